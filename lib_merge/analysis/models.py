"""Finds the models of a comparison and what they have in common; no tensor is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_merge.checkpoint.header import FileState, Header, file_state, read_header
from lib_merge.checkpoint.names import stored_name
from lib_merge.checkpoint.scaled import refuse_scaled
from lib_merge.core.blocks import (
    Architecture,
    BlockId,
    Component,
    KeyInfos,
    Treatment,
)
from lib_merge.engine.layouts import single_file_layout
from lib_merge.errors import CheckpointError, InputError

_N_NAMED = 3


@dataclass(frozen=True)
class CommonKey:
    """A tensor that all models have in one shape.

    Attributes:
        key: As the base spells it.
        names: As each model spells it.
        n_values: How many numbers it holds.
        block: Where it belongs.
        component: Of the block.
    """

    key: str
    names: tuple[str, ...]
    n_values: int
    block: BlockId
    component: Component


@dataclass(frozen=True)
class LeftOutKey:
    """A tensor that is not compared.

    Attributes:
        key: Its name.
        reason: Why, with the models' names.
    """

    key: str
    reason: str


@dataclass(frozen=True)
class ModelSet:
    """The models of a comparison.

    Attributes:
        headers: Of every model; a base that was given apart comes first.
        states: Of their files when the headers were read.
        names: Short and unique.
        base: Position of the model that changes are measured from.
        n_apart: 1 if the base was given apart from the models, else 0.
        architecture: Of all of them.
        keys: What is compared, in the order of the base's bytes.
        left_out: What is not.
    """

    headers: tuple[Header, ...]
    states: tuple[FileState, ...]
    names: tuple[str, ...]
    base: int
    n_apart: int
    architecture: Architecture
    keys: tuple[CommonKey, ...]
    left_out: tuple[LeftOutKey, ...]

    def part_names(self, *, is_by_key: bool = False) -> tuple[str, ...]:
        """Components and blocks that are compared, and tensors if asked for."""
        components = dict.fromkeys(key.component.value for key in self.keys)
        blocks = dict.fromkeys(str(key.block) for key in self.keys)
        keys = [key.key for key in self.keys] if is_by_key else []
        return (*components, *blocks, *keys)

    def check_unchanged(self) -> None:
        """See whether every file is what it was when its header was read.

        Raises:
            CheckpointError: One is gone or has changed; names it.
        """
        for header, state in zip(self.headers, self.states, strict=True):
            try:
                now = file_state(header.path)
            except CheckpointError as fault:
                raise CheckpointError(
                    f"{header.path} went away while it was being read; nothing of it "
                    "is shown. Put it back, or compare without it."
                ) from fault
            if now != state:
                raise CheckpointError(
                    f"{header.path} was changed while it was being read; nothing of it "
                    "is shown. Compare again when it is complete."
                )


def find_models(paths: Sequence[Path], base: Path | None = None) -> ModelSet:
    """Read the headers of some models and find the tensors that they share.

    Args:
        paths: Two or more checkpoints.
        base: The model that changes are measured from, among them or not; None takes
            the first.

    Raises:
        InputError: Fewer than two models, or one given twice.
        CheckpointError: A file cannot be used, is of another architecture than the
            others, or has nothing to compare.
    """
    files, at = _files(paths, base)
    states = tuple(file_state(path) for path in files)
    _check_distinct(files, states)
    headers = tuple(read_header(path) for path in files)
    for header in headers:
        refuse_scaled(header)
    names = short_names(files)
    architecture = _architecture(headers, names)
    _check_sizes(headers, names, at, architecture)
    keys, left_out = _common_keys(headers, names, at, architecture)
    if not keys:
        raise CheckpointError(
            f"{headers[at].path} and the other models have no tensor that all of them "
            f"hold in one shape (the first: {left_out[0].key}, {left_out[0].reason}); "
            "leave out the ones that hold other parts."
        )
    return ModelSet(
        headers=headers,
        states=states,
        names=names,
        base=at,
        n_apart=len(files) - len(paths),
        architecture=architecture,
        keys=tuple(keys),
        left_out=tuple(left_out),
    )


def _files(paths: Sequence[Path], base: Path | None) -> tuple[list[Path], int]:
    """All files, and where the base stands among them."""
    files = [Path(path) for path in paths]
    if base is None:
        if len(files) < 2:
            raise InputError(
                f"{len(files) or 'No'} model is too few to compare; give two or more."
            )
        return files, 0
    try:
        base_state = file_state(base)
    except CheckpointError as fault:
        raise CheckpointError(f"The base cannot be used: {fault}") from fault
    for at, path in enumerate(files):
        if file_state(path) == base_state:
            if len(files) < 2:
                raise InputError(
                    f"{path} is the only model and the base, too; give another model."
                )
            return files, at
    if not files:
        raise InputError("Only a base is given; give models to compare it with.")
    return [Path(base), *files], 0


def _check_distinct(files: Sequence[Path], states: Sequence[FileState]) -> None:
    seen: dict[tuple[int, int], Path] = {}
    for path, state in zip(files, states, strict=True):
        place = (state.device, state.inode)
        other = seen.setdefault(place, path)
        if other is not path:
            same = f"{path}" if other == path else f"{other} and {path}"
            raise InputError(
                f"{same}: the same file is given twice; leave one out (a copy of it "
                "may be compared)."
            )


def short_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """File names without suffix; with as much of their folders as tells them apart."""
    names = [path.stem for path in paths]
    for depth in range(1, 8):
        twice = {name for name, count in Counter(names).items() if count > 1}
        if not twice:
            break
        for i, path in enumerate(paths):
            if names[i] in twice:
                folders = path.absolute().parts[:-1][-depth:]
                names[i] = "/".join((*folders, path.stem))
    return tuple(
        f"{name} ({i + 1})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    )


def _architecture(headers: Sequence[Header], names: Sequence[str]) -> Architecture:
    found = [single_file_layout(header).architecture for header in headers]
    counts = Counter(architecture.id for architecture in found)
    if len(counts) == 1:
        return found[0]
    common = counts.most_common(1)[0][0]
    label = next(a.label for a in found if a.id == common)
    odd = [
        f"{header.path} is {architecture.label}"
        for header, architecture in zip(headers, found, strict=True)
        if architecture.id != common
    ]
    more = f" and {len(odd) - _N_NAMED} more" if len(odd) > _N_NAMED else ""
    raise CheckpointError(
        f"Models of one architecture only can be compared: {'; '.join(odd[:_N_NAMED])}"
        f"{more}; the others are {label}. Leave out one kind."
    )


def _common_keys(
    headers: Sequence[Header],
    names: Sequence[str],
    base: int,
    architecture: Architecture,
) -> tuple[list[CommonKey], list[LeftOutKey]]:
    common, left_out = [], []
    for key, info in headers[base].infos.items():
        role = architecture.role_of(key)
        if role is None:
            left_out.append(LeftOutKey(key, f"unknown to {architecture.label}"))
            continue
        if role.treatment is not Treatment.MERGE or not info.n_elements:
            continue  # Constants and ids are the same, EMA shadows are not used.
        stored = [stored_name(header.infos, key) for header in headers]
        reason = _misfit(key, stored, headers, names, base)
        if reason is not None:
            left_out.append(LeftOutKey(key, reason))
            continue
        spelled = tuple(name for name in stored if name is not None)
        n_values = info.n_elements
        common.append(CommonKey(key, spelled, n_values, role.block, role.component))
    left_out += _extra_keys(headers, names, base, architecture)
    return common, left_out


def _misfit(
    key: str,
    stored: Sequence[str | None],
    headers: Sequence[Header],
    names: Sequence[str],
    base: int,
) -> str | None:
    """Why a key of the base cannot be compared over all models, or None."""
    missing, shapes, integers = [], [], []
    shape = headers[base].infos[key].shape
    for name, header, model in zip(stored, headers, names, strict=True):
        if name is None:
            missing.append(model)
            continue
        info = header.infos[name]
        if info.shape != shape:
            shapes.append(f"{model} {list(info.shape)}")
        elif not info.dtype.is_float:
            integers.append(model)
    if missing:
        return f"missing in {_listed(missing)}"
    if shapes:
        return f"shape {list(shape)} in {names[base]}, but {_listed(shapes)}"
    if integers:
        return f"integers in {_listed(integers)}"
    return None


def _extra_keys(
    headers: Sequence[Header],
    names: Sequence[str],
    base: int,
    architecture: Architecture,
) -> Iterator[LeftOutKey]:
    """What other models have and the base has not."""
    mine = headers[base].infos
    owners: dict[str, list[str]] = {}
    for header, name in zip(headers, names, strict=True):
        for key in header.infos:
            if key in mine or stored_name(mine, key) is not None:
                continue
            role = architecture.role_of(key)
            if role is None or role.treatment is Treatment.MERGE:
                owners.setdefault(key, []).append(name)
    for key, having in owners.items():
        yield LeftOutKey(key, f"only in {_listed(having)}")


def _check_sizes(
    headers: Sequence[Header],
    names: Sequence[str],
    base: int,
    architecture: Architecture,
) -> None:
    """A model whose tensors mostly have other shapes is none to compare with."""
    mine = headers[base].infos
    n_all = _n_values(mine, architecture)
    for header in headers:
        odd = {}
        for key, info in mine.items():
            name = stored_name(header.infos, key)
            if name is not None and header.infos[name].shape != info.shape:
                odd[key] = info
        if 2 * _n_values(odd, architecture) > n_all:
            key, info = next(iter(odd.items()))
            name = stored_name(header.infos, key)
            assert name is not None
            raise CheckpointError(
                f"{header.path} is of another size than {names[base]}: {len(odd)} of "
                f"its tensors have other shapes ('{key}' is "
                f"{list(header.infos[name].shape)}, not {list(info.shape)}); models of "
                "one size only can be compared."
            )


def _n_values(infos: KeyInfos, architecture: Architecture) -> int:
    """Numbers in the tensors that would be compared."""
    return sum(
        info.n_elements
        for key, info in infos.items()
        if (role := architecture.role_of(key)) is not None
        and role.treatment is Treatment.MERGE
    )


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - _N_NAMED} more" if len(items) > _N_NAMED else ""
    return ", ".join(items[:_N_NAMED]) + more
