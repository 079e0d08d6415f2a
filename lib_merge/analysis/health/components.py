"""Plans a checkpoint whose components come from several files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from lib_merge.analysis.health.defects import N_NAMED
from lib_merge.analysis.health.expected import expected_layout
from lib_merge.analysis.health.job import (
    FileValues,
    Numbers,
    OutTensor,
    Rewrite,
    cut_values,
    with_change,
)
from lib_merge.analysis.health.recognise import Recognised, recognise
from lib_merge.checkpoint.header import Header, read_header
from lib_merge.checkpoint.scaled import EIGHT_BITS, is_scale
from lib_merge.core.blocks import Component, TensorInfo, Treatment
from lib_merge.core.dtypes import DType
from lib_merge.core.layouts import Layout, find_stored
from lib_merge.core.naming import Binding, ComponentNames, How, Place
from lib_merge.errors import CheckpointError, InputError, RecipeError


@dataclass(frozen=True)
class ComponentOptions:
    """Which components come from where.

    Attributes:
        takes: The file that each of these components is taken from.
        strips: Components that are left out.
        fix_ids: Whether position ids are written as int64 0, 1, 2 ...; else they are
            those of the file that the component comes from.
    """

    takes: Mapping[Component, Path] = field(default_factory=dict)
    strips: frozenset[Component] = frozenset()
    fix_ids: bool = False


@dataclass(frozen=True)
class ComponentPlan:
    """What would be put together.

    Attributes:
        sentences: It in words.
        job: The file that is written.
    """

    sentences: tuple[str, ...]
    job: Rewrite


class _Model:
    """A file with what was recognised in it."""

    def __init__(self, header: Header, known: Recognised) -> None:
        self.header = header
        self.known = known

    @property
    def name(self) -> str:
        return self.header.path.name

    @cached_property
    def has_scales(self) -> bool:
        """Whether eight-bit weights have scales beside them."""
        return any(is_scale(key) for key in self.known.infos)

    def keys_of(self, component: Component) -> list[str]:
        """Keys of a component, in the architecture's names; no EMA, no scales."""
        found = []
        for key in self.known.infos:
            role = self.known.role_of(key)
            if role is None or is_scale(key) or role.component is not component:
                continue
            if role.treatment is not Treatment.DROP_UNLESS_ASKED:
                found.append(key)
        return found


def plan_components(path: Path, options: ComponentOptions) -> ComponentPlan:
    """Find out what would be put together; nothing is written.

    A component is found in whatever file has it: a whole model of this or another
    architecture (CLIP-L is in SD1, SDXL, SD3 and Flux), in single-file or diffusers
    names, or a file of its own, such as a .vae.safetensors.

    Args:
        path: The model whose other components stay.
        options: What comes from elsewhere, and what is left out.

    Raises:
        CheckpointError: A file cannot be read or is no model.
        RecipeError: Every component that does not fit, and why.
    """
    model = _model(path)
    assert model.known.architecture is not None
    both = set(options.takes) & options.strips
    if both:
        name = min(component.value for component in both)
        raise InputError(f"{name} is to be taken and left out; choose one.")
    own = [names.component for names in model.known.architecture.names]
    problems: list[str] = []
    taken: dict[str, OutTensor] = {}
    sentences = []
    for component, source in options.takes.items():
        if component not in own:
            problems.append(
                f"{model.known.architecture.label} has no {component.value}; it has "
                f"{', '.join(c.value for c in own)}."
            )
            continue
        giver = _model(source)
        found = list(_taken(model, giver, component, problems))
        taken.update({tensor.key: tensor for tensor in found})
        sentences.append(f"{component.value} of {giver.name}: {len(found)} tensors")
    if problems:
        raise RecipeError(problems)
    tensors = [*_kept(model, options), *taken.values()]
    if options.fix_ids:
        tensors, n_fixed = _fixed(tensors)
        sentences.append(f"position ids written anew in {n_fixed} places")
    sentences += [
        f"{component.value} left out: {len(model.keys_of(component))} tensors"
        for component in sorted(options.strips, key=lambda c: c.value)
    ]
    inputs = (model.header.path, *dict.fromkeys(options.takes.values()))
    metadata = with_change(model.header.metadata, "components", path, sentences)
    return ComponentPlan(
        tuple(sentences), Rewrite(tuple(tensors), metadata, tuple(inputs))
    )


def _model(path: Path) -> _Model:
    header = read_header(path)
    known = recognise(header.infos, where=path.name)
    if known.layout is None:
        reason = " ".join(known.problems) or f"It is: {known.label}."
        raise CheckpointError(f"{path} has no components of a model. {reason}")
    return _Model(header, known)


def _kept(model: _Model, options: ComponentOptions) -> Iterator[OutTensor]:
    gone = {*options.takes, *options.strips}
    for key, info in model.known.infos.items():
        role = model.known.role_of(key)
        if is_scale(key) or (role is not None and role.component in gone):
            continue
        info = _unscaled(model, info)
        yield OutTensor(key, info, model.known.values(model.header, key))


def _unscaled(model: _Model, info: TensorInfo) -> TensorInfo:
    """Scaled float8 is multiplied out, into 16 bits; all else keeps its type."""
    is_eight = info.dtype in EIGHT_BITS
    if is_eight and model.has_scales:
        return replace(info, dtype=DType.F16)
    return info


def _taken(
    model: _Model, giver: _Model, component: Component, problems: list[str]
) -> Iterator[OutTensor]:
    """The giver's component under the model's names."""
    assert model.known.architecture is not None
    names = next(n for n in model.known.architecture.names if n.component is component)
    offered = {giver.known.relative(key): key for key in giver.keys_of(component)}
    if not offered:
        problems.append(f"{giver.name} has no {component.value} to take.")
        return
    wanted = _wanted(model, component)
    if not wanted:
        wanted = {
            f"{names.prefix}{rest}": giver.known.infos[key]
            for rest, key in offered.items()
        }
    finder = _Finder(model, giver, names, offered)
    missing, misshapen = [], []
    for key, info in wanted.items():
        found = finder.find(key, info)
        if found is None:
            if not _is_spare(model, key):
                missing.append(key)
        elif found[0].shape != info.shape:
            misshapen.append(f"{key} is {list(found[0].shape)}, not {list(info.shape)}")
        else:
            yield OutTensor(key, _unscaled(giver, found[0]), found[1])
    if missing:
        problems.append(
            f"The {component.value} of {giver.name} lacks {_listed(missing)}; choose a "
            "file that has it whole."
        )
    if misshapen:
        problems.append(
            f"The {component.value} of {giver.name} does not fit {model.name}: "
            f"{_listed(misshapen, '; ')}."
        )


def _wanted(model: _Model, component: Component) -> Mapping[str, TensorInfo]:
    """What the model has of a component, without what does not belong to it."""
    assert model.known.architecture is not None
    expected = expected_layout(model.known.architecture.id)
    return {
        key: model.known.infos[key]
        for key in model.keys_of(component)
        if expected is None or key in expected
    }


def _is_spare(model: _Model, key: str) -> bool:
    """Whether a whole model may lack a key."""
    assert model.known.architecture is not None
    expected = expected_layout(model.known.architecture.id)
    if expected is not None and key in expected:
        return not expected[key].is_required
    is_ids = key.endswith("position_ids")
    return is_ids or model.known.architecture.is_spare(key)


class _Finder:
    """Finds a component's tensors in a file of another architecture or naming."""

    def __init__(
        self,
        model: _Model,
        giver: _Model,
        names: ComponentNames,
        offered: Mapping[str | None, str],
    ) -> None:
        assert model.known.architecture is not None
        self._giver = giver
        self._names = names
        self._keys = {rest: key for rest, key in offered.items() if rest}
        infos = {rest: giver.known.infos[key] for rest, key in self._keys.items()}
        self._infos = infos
        self._layouts = []
        for place in names.places:
            binding = Binding(names, Place("", place.style, place.marks))
            if any(binding.spot(rest) is not None for rest in infos):
                layout = Layout(model.known.architecture, (binding,), infos)
                self._layouts.append(layout)
        self._canonical = Binding(names, names.canonical)
        self._architecture = model.known.architecture

    def find(self, key: str, info: TensorInfo) -> tuple[TensorInfo, FileValues] | None:
        """A tensor as the giver holds it, or None."""
        rest = key[len(self._names.prefix) :]
        if rest in self._infos:
            source = self._keys[rest]
            values = self._giver.known.values(self._giver.header, source)
            return self._infos[rest], values
        wanted = Layout(self._architecture, (self._canonical,), {key: info})
        for layout in self._layouts:
            stored = find_stored(wanted, key, layout)
            if stored is None or not stored.runs:
                continue
            if stored.how is How.TRANSPOSED:
                return self._turned(stored.runs[0].key, stored.info)
            spans = []
            for run in stored.runs:
                values = self._giver.known.values(
                    self._giver.header, self._keys[run.key]
                )
                spans.append(cut_values(values, run.start, run.stop))
            if any(values.turned for values in spans):
                return None
            joined = tuple(span for values in spans for span in values.spans)
            return stored.info, FileValues(self._giver.header, joined)
        return None

    def _turned(
        self, rest: str, info: TensorInfo
    ) -> tuple[TensorInfo, FileValues] | None:
        values = self._giver.known.values(self._giver.header, self._keys[rest])
        if values.turned is not None:
            return info, replace(values, turned=None)
        rows, columns = self._infos[rest].shape
        return info, replace(values, turned=(rows, columns))


def _fixed(tensors: Sequence[OutTensor]) -> tuple[list[OutTensor], int]:
    found, n_fixed = [], 0
    for tensor in tensors:
        if tensor.key.endswith("position_ids"):
            info = TensorInfo(DType.I64, (1, max(1, tensor.info.n_elements)))
            tensor = OutTensor(tensor.key, info, Numbers(is_counted=True))
            n_fixed += 1
        found.append(tensor)
    return found, n_fixed


def _listed(items: Sequence[str], separator: str = ", ") -> str:
    shown = separator.join(items[:N_NAMED])
    more = f"{separator}..." if len(items) > N_NAMED else ""
    noun = "key" if len(items) == 1 else "keys"
    return f"{len(items)} {noun} ({shown}{more})"
