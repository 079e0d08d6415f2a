"""A model's tensors as its architecture speaks of them, however they are stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from lib_merge.core.blocks import Architecture, Component, KeyInfos, KeyRole, TensorInfo
from lib_merge.core.dtypes import DType
from lib_merge.core.naming import CANONICAL, Binding, How, Rule, Spot

_SPOTS: dict[tuple[str, tuple[Binding, ...]], dict[str, Spot | None]] = {}
"""Looked-up names by naming: hundreds of models have the same."""


@dataclass(frozen=True)
class Run:
    """Values [start, stop) of one stored tensor."""

    key: str
    start: int
    stop: int


@dataclass(frozen=True)
class Stored:
    """Where a model holds the values of a tensor that another model names.

    Attributes:
        runs: One after the other they are the tensor's values.
        info: The tensor that they make: its shape, and the widest of their types.
        how: TRANSPOSED where the one run, a whole matrix, has to be turned first.
        n_channels: How many input channels the stored tensor has of those that are
            wanted; the others are zero. None where it has all of them.
    """

    runs: tuple[Run, ...]
    info: TensorInfo
    how: How = How.PLAIN
    n_channels: int | None = None

    @property
    def is_direct(self) -> bool:
        """Whether runs may be read piece by piece, each value once."""
        return self.how is How.PLAIN and self.n_channels is None


class Layout:
    """What was recognised in a file: architecture, kind, and a place for every tensor.

    Args:
        architecture: Of the model.
        bindings: How the file names each component that it has.
        infos: Its tensors.
        kind: What it is within its architecture: "plain", "inpainting", ...
    """

    def __init__(
        self,
        architecture: Architecture,
        bindings: Sequence[Binding],
        infos: KeyInfos,
        kind: str = "plain",
    ) -> None:
        self.architecture = architecture
        self.bindings = tuple(bindings)
        self.infos = infos
        self.kind = kind

    @cached_property
    def spots(self) -> Mapping[str, Spot | None]:
        """The canonical place of every stored key; None for an unknown name."""
        known = _SPOTS.setdefault((self.architecture.id, self.bindings), {})
        for key in self.infos:
            if key not in known:
                known[key] = self._spot(key)
        return {key: known[key] for key in self.infos}

    def _spot(self, key: str) -> Spot | None:
        for binding in self.bindings:
            spot = binding.spot(key)
            if spot is not None and self.architecture.role_of(spot.key) is not None:
                return spot
        return Spot(key) if self.architecture.role_of(key) is not None else None

    @property
    def is_canonical(self) -> bool:
        """Whether its keys are those that the architecture speaks of."""
        return all(binding.is_canonical for binding in self.bindings)

    @property
    def is_single_file(self) -> bool:
        """Whether its names are a single file's, in any of their spellings."""
        return all(
            b.place.prefix == b.names.prefix and b.place.style.name == CANONICAL.name
            for b in self.bindings
        )

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """The components that it has tensors of, in the architecture's order."""
        roles = map(self.role_of, self.infos)
        has = {role.component for role in roles if role is not None}
        order = dict.fromkeys(block.component for block in self.architecture.blocks)
        return tuple(component for component in order if component in has)

    @property
    def naming(self) -> str:
        """What its names are called: "single file", "diffusers", or both."""
        names = (binding.place.style.name for binding in self.bindings)
        return " and ".join(dict.fromkeys(names)) or "single file"

    def role_of(self, key: str) -> KeyRole | None:
        """The role of one of its stored keys, or None for an unknown one."""
        spot = self.spots.get(key)
        return None if spot is None else self.architecture.role_of(spot.key)

    @cached_property
    def parts(self) -> Mapping[str, tuple[str, ...]]:
        """Stored keys by canonical key, in the order of their shares; no halves."""
        if self.is_canonical:
            return {key: (key,) for key, spot in self.spots.items() if spot}
        found: dict[str, dict[int, str]] = {}
        counts: dict[str, int] = {}
        for key, spot in self.spots.items():
            if spot is not None:
                found.setdefault(spot.key, {}).setdefault(spot.part, key)
                counts[spot.key] = len(spot.shares)
        return {
            name: tuple(shares[part] for part in sorted(shares))
            for name, shares in found.items()
            if len(shares) == counts[name]
        }

    @cached_property
    def canonical(self) -> KeyInfos:
        """Its tensors under their canonical names; unknown ones keep theirs."""
        if self.is_canonical:
            return self.infos
        tensors: dict[str, TensorInfo] = {}
        for key, spot in self.spots.items():
            name = key if spot is None else spot.key
            if spot is None:
                tensors[key] = self.infos[key]
            elif name not in tensors and name in self.parts:
                tensors[name] = self._joined(self.parts[name], spot.how)
        return tensors

    def _joined(self, keys: Sequence[str], how: How) -> TensorInfo:
        infos = [self.infos[key] for key in keys]
        shape = infos[0].shape
        if len(infos) > 1 and shape:
            shape = (sum(info.shape[0] for info in infos if info.shape), *shape[1:])
        if how is How.TRANSPOSED:
            shape = shape[::-1]
        elif how is How.AS_CONV and len(shape) == 2:
            shape = (*shape, 1, 1)
        return TensorInfo(_widest(info.dtype for info in infos), shape)

    def as_canonical(self) -> Layout:
        """The same model as a single file would hold it."""
        bindings = [replace(b, place=b.names.canonical) for b in self.bindings]
        return Layout(self.architecture, bindings, self.canonical, self.kind)

    def as_pipeline(self) -> Layout:
        """The same model as the folders of a diffusers pipeline would hold it.

        A component's folder is the prefix of its keys. Tensors that diffusers has no
        name for (EMA shadows, schedule constants) are left out.
        """
        bindings = [replace(b, place=b.names.in_folder) for b in self.bindings]
        tensors: dict[str, TensorInfo] = {}
        for key, info in self.canonical.items():
            rules = (binding.rule(key) for binding in bindings)
            rule = next((rule for rule in rules if rule is not None), None)
            if rule is not None and self.architecture.role_of(key) is not None:
                tensors.update(_split(rule, info))
        return Layout(self.architecture, bindings, tensors, self.kind)

    def can_name(self, key: str) -> bool:
        """Whether its naming has a name for a canonical key of a component it holds."""
        own = [b for b in self.bindings if key.startswith(b.names.prefix)]
        return not own or any(binding.rule(key) is not None for binding in own)


def _split(rule: Rule, info: TensorInfo) -> Iterator[tuple[str, TensorInfo]]:
    """The stored tensors that a canonical one becomes."""
    shape = info.shape
    if rule.how is How.TRANSPOSED:
        shape = shape[::-1]
    elif rule.how is How.AS_CONV and len(shape) == 4:
        shape = shape[:2]
    if len(rule.stored) == 1:
        yield rule.stored[0], replace(info, shape=shape)
        return
    for name, share in zip(rule.stored, rule.shares, strict=True):
        rows = shape[0] * share // sum(rule.shares)
        yield name, replace(info, shape=(rows, *shape[1:]))


def find_stored(wanted: Layout, key: str, model: Layout) -> Stored | None:
    """Where a model holds a tensor that is named as another model names it.

    Args:
        wanted: The layout whose key it is.
        key: One of its keys.
        model: The layout to look in; of the same architecture.

    Returns:
        The place, or None where the model lacks the tensor or a part of it. The info
        has the shape that the model's values would have under that key.
    """
    info = wanted.infos[key]
    if model is wanted or (wanted.bindings == model.bindings and key in model.infos):
        return _same(info, model.infos[key], key)
    spot = wanted.spots.get(key)
    if spot is None:
        return _same(info, model.infos[key], key) if key in model.infos else None
    keys = model.parts.get(spot.key)
    if keys is None or spot.key not in wanted.canonical:
        return None
    return _placed(wanted, key, spot, model, keys)


@lru_cache(maxsize=1 << 14)
def _same(wanted: TensorInfo, found: TensorInfo, key: str) -> Stored:
    """The tensor of the same name, widened by channels of zeros where it is narrow."""
    whole = (Run(key, 0, found.n_elements),)
    n_channels = _narrow(wanted.shape, found.shape)
    if n_channels is None:
        return Stored(whole, found)
    return Stored(whole, replace(found, shape=wanted.shape), n_channels=n_channels)


def _narrow(wanted: Sequence[int], found: Sequence[int]) -> int | None:
    """How many of the wanted input channels a convolution has, if it lacks some."""
    if len(wanted) != 4 or len(found) != 4 or found[1] >= wanted[1]:
        return None
    is_alike = wanted[0] == found[0] and tuple(wanted[2:]) == tuple(found[2:])
    return found[1] if is_alike and found[1] == 4 else None


def _placed(
    wanted: Layout, key: str, spot: Spot, model: Layout, keys: Sequence[str]
) -> Stored:
    mine, theirs = wanted.canonical[spot.key], model.canonical[spot.key]
    info = wanted.infos[key]
    how = model.spots[keys[0]]
    assert how is not None
    if mine.shape != theirs.shape:
        whole = Stored((Run(keys[0], 0, theirs.n_elements),), theirs)
        is_alone = len(keys) == 1 and len(spot.shares) == 1
        return _same(mine, theirs, keys[0]) if is_alone else whole
    found = TensorInfo(theirs.dtype, info.shape)
    is_turned = (spot.how is How.TRANSPOSED) != (how.how is How.TRANSPOSED)
    if is_turned:
        return Stored((Run(keys[0], 0, theirs.n_elements),), found, How.TRANSPOSED)
    pieces = list(_pieces(model, keys, how))
    start, stop = _share(wanted, key, spot)
    spans = [(start, stop)]
    if spot.how is How.SWAPPED:
        half = theirs.n_elements // 2
        spans = [(half, theirs.n_elements), (0, half)]
    runs = [run for span in spans for run in _cut(pieces, *span)]
    return Stored(tuple(_merged(runs)), found)


def _share(layout: Layout, key: str, spot: Spot) -> tuple[int, int]:
    """The values of the canonical tensor that a stored one holds."""
    start = 0
    for other in layout.parts[spot.key]:
        if other == key:
            break
        start += layout.infos[other].n_elements
    return start, start + layout.infos[key].n_elements


def _pieces(model: Layout, keys: Sequence[str], spot: Spot) -> Iterator[Run]:
    """The canonical tensor's values in order, as runs of stored tensors."""
    for key in keys:
        n_elements = model.infos[key].n_elements
        if spot.how is How.SWAPPED:
            half = n_elements // 2
            yield Run(key, half, n_elements)
            yield Run(key, 0, half)
        else:
            yield Run(key, 0, n_elements)


def _cut(pieces: Sequence[Run], start: int, stop: int) -> Iterator[Run]:
    """The runs of values [start, stop) of what the pieces make."""
    position = 0
    for piece in pieces:
        n_elements = piece.stop - piece.start
        first, last = max(start - position, 0), min(stop - position, n_elements)
        if first < last:
            yield Run(piece.key, piece.start + first, piece.start + last)
        position += n_elements


def cut_runs(stored: Stored, start: int, stop: int) -> Sequence[Run]:
    """The runs that hold values [start, stop) of a tensor.

    Args:
        stored: A direct place.
        start: Index of the first value in the flattened tensor.
        stop: Index behind the last.
    """
    runs = stored.runs
    if len(runs) == 1:
        first = runs[0].start
        return (Run(runs[0].key, first + start, first + stop),)
    return tuple(_cut(runs, start, stop))


def _merged(runs: Sequence[Run]) -> Iterator[Run]:
    held: Run | None = None
    for run in runs:
        if held is not None and held.key == run.key and held.stop == run.start:
            held = replace(held, stop=run.stop)
            continue
        if held is not None:
            yield held
        held = run
    if held is not None:
        yield held


def _widest(dtypes: Iterator[DType]) -> DType:
    """The type that holds the values of all of them without a loss."""
    found = sorted(set(dtypes), key=lambda dtype: (dtype.size, dtype.name))
    if {DType.F16, DType.BF16} <= set(found) and found[-1].size == 2:
        return DType.F32
    return found[-1]
