"""Plans a repaired copy of a checkpoint: every defect that can be mended is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from itertools import zip_longest
from pathlib import Path

from lib_merge.analysis.health.deep import read_deep
from lib_merge.analysis.health.defects import N_NAMED, Defect, Finding
from lib_merge.analysis.health.expected import Expected, expected_layout
from lib_merge.analysis.health.fit import Fit, fit_of
from lib_merge.analysis.health.inspection import Inspection
from lib_merge.analysis.health.job import (
    FileValues,
    Numbers,
    OutTensor,
    Rewrite,
    with_change,
)
from lib_merge.analysis.health.look import inspect_header
from lib_merge.analysis.health.recognise import Recognised, recognise
from lib_merge.checkpoint.header import Header, read_header
from lib_merge.checkpoint.scaled import is_scale
from lib_merge.core.blocks import Component, TensorInfo
from lib_merge.core.dtypes import DType
from lib_merge.core.ports import Progress
from lib_merge.errors import CheckpointError, InputError

DROPPED = (
    Defect.DENOISER,
    Defect.TEXT_EXTRA,
    Defect.NESTED_IDS,
    Defect.LORA,
    Defect.EMA,
    Defect.TRAINING,
)
"""Kinds of extra keys that are left out unless they are to be kept."""

DROPPABLE = (*DROPPED, Defect.SCHEDULE, Defect.UNKNOWN)
_PROJECTION = "text_projection"


class Action(str, Enum):
    """What is done to a key."""

    DROP = "leave out"
    FILL = "add"
    REPLACE = "replace"
    RESHAPE = "reshape"
    TURN = "put back in place"
    COUNT = "write anew"
    CAST = "convert"


@dataclass(frozen=True)
class Step:
    """Something that is done to one key, for a reason."""

    action: Action
    key: str
    reason: str


@dataclass(frozen=True)
class RepairOptions:
    """What is mended, and how.

    Attributes:
        base: A sound model of the same architecture, for keys that are missing, of a
            wrong shape, or not finite.
        drop: Kinds of extra keys to leave out besides the usual.
        keep: Kinds of defects to leave as they are.
        fill_components: Whether components that are absent come from the base.
        fill_dead: Whether tensors that are all zero come from the base.
        dtype: What the weights are converted to; None keeps their types.
        is_deep: Whether values are read to find NaN and dead tensors.
    """

    base: Path | None = None
    drop: frozenset[Defect] = frozenset()
    keep: frozenset[Defect] = frozenset()
    fill_components: bool = False
    fill_dead: bool = False
    dtype: DType | None = None
    is_deep: bool = True


@dataclass(frozen=True)
class RepairPlan:
    """What a repair would do.

    Attributes:
        inspection: The file as it is.
        steps: Everything that is done.
        left: What is wrong and stays so, with the reason as a sentence.
        job: The file that is written.
    """

    inspection: Inspection
    steps: tuple[Step, ...]
    left: tuple[str, ...]
    job: Rewrite

    def sentences(self) -> tuple[str, ...]:
        """The steps in words, those of one kind together."""
        groups: dict[tuple[Action, str], list[str]] = {}
        for step in self.steps:
            groups.setdefault((step.action, step.reason), []).append(step.key)
        return tuple(
            f"{action.value} {_listed(keys)}: {reason}"
            for (action, reason), keys in groups.items()
        )


def _listed(keys: list[str]) -> str:
    noun = "key" if len(keys) == 1 else "keys"
    more = ", ..." if len(keys) > N_NAMED else ""
    return f"{len(keys)} {noun} ({', '.join(keys[:N_NAMED])}{more})"


def plan_repair(
    path: Path, options: RepairOptions, progress: Progress | None = None
) -> RepairPlan:
    """Find out what a repair would do; nothing is written.

    Args:
        path: The damaged file.
        options: What to mend.
        progress: Advanced by bytes while values are read.

    Raises:
        CheckpointError: The file or the base cannot be read, is of no known
            architecture, or the two do not go together.
    """
    header = read_header(path)
    inspection = inspect_header(header)
    if options.is_deep:
        (inspection,) = read_deep([inspection], progress=progress)
    return _Planner(header, inspection, options).plan()


class _Planner:
    """Walks the file's keys once, then adds what is missing."""

    def __init__(
        self, header: Header, inspection: Inspection, options: RepairOptions
    ) -> None:
        self._header = header
        self._inspection = inspection
        self._options = options
        self._known = _known(header)
        assert self._known.architecture is not None
        expected = expected_layout(self._known.architecture.id)
        if expected is None:
            raise CheckpointError(
                f"{header.path} is {self._known.label}, whose whole layout is not "
                "known here; inspect shows it, repair cannot mend it."
            )
        self._expected: Expected = expected
        self._fit: Fit = fit_of(self._known.infos, expected)
        self._base = _Base(options.base, self._known) if options.base else None
        self._steps: list[Step] = []
        self._left: list[str] = []
        self._faults = self._faults_by_key()

    def _faults_by_key(self) -> Mapping[str, dict[Defect, str]]:
        found: dict[str, dict[Defect, str]] = {}
        for finding in self._inspection.contents.findings:
            if finding.defect in self._options.keep:
                continue
            details = finding.details or ("",) * len(finding.keys)
            for key, detail in zip(finding.keys, details, strict=True):
                found.setdefault(key, {})[finding.defect] = detail
        return found

    def plan(self) -> RepairPlan:
        """Everything that is done."""
        tensors = [
            tensor
            for key in self._known.infos
            if not is_scale(key)
            for tensor in self._existing(key)
        ]
        tensors += self._added()
        tensors = [self._cast(tensor) for tensor in tensors]
        inputs = [self._header.path]
        if self._base is not None:
            inputs.append(self._base.header.path)
        plan = RepairPlan(
            self._inspection,
            tuple(self._steps),
            (*self._left, *self._unmendable()),
            Rewrite(tuple(tensors), {}, tuple(inputs)),
        )
        metadata = with_change(
            self._header.metadata, "repair", self._header.path, plan.sentences()
        )
        return replace(plan, job=replace(plan.job, metadata=metadata))

    def _unmendable(self) -> Iterator[str]:
        """Findings that no step is about, as sentences."""
        dropped = {*DROPPED, *self._options.drop}
        for finding in self._inspection.contents.findings:
            defect = finding.defect
            if defect.is_extra and defect in dropped - self._options.keep:
                continue
            mended = {step.key for step in self._steps}
            pairs = zip_longest(finding.keys, finding.details, fillvalue="")
            rest = [(key, text) for key, text in pairs if key not in mended]
            if rest and defect.is_problem:
                keys, details = zip(*rest, strict=True)
                shown = details if finding.details else ()
                yield Finding(defect, keys, shown).text
        yield from self._inspection.problems

    def _existing(self, key: str) -> Iterator[OutTensor]:
        faults = self._faults.get(key, {})
        info = self._known.infos[key]
        dropped = [d for d in faults if self._is_dropped(d)]
        if dropped:
            yield from self._turned(key)
            self._note(Action.DROP, key, dropped[0].words)
        elif Defect.POSITION_IDS in faults:
            self._note(Action.COUNT, key, "int64 0, 1, 2 ... as loaders want them")
            yield OutTensor(key, TensorInfo(DType.I64, _ids_shape(info)), Numbers(True))
        elif Defect.MISSHAPEN in faults:
            yield self._reshaped(key, info)
        elif Defect.NON_FINITE in faults:
            yield self._replaced(key, info, "it holds NaN or infinity")
        elif Defect.DEAD in faults and self._options.fill_dead:
            yield self._replaced(key, info, "it is all zero")
        else:
            yield OutTensor(key, info, self._values(key))

    def _is_dropped(self, defect: Defect) -> bool:
        return defect in DROPPED or defect in self._options.drop

    def _turned(self, key: str) -> Iterator[OutTensor]:
        """OpenCLIP's projection, where a tool saved it as a layer of its own."""
        if not key.endswith(f".{_PROJECTION}.weight"):
            return
        name = key.removesuffix(".weight")
        info = self._known.infos[key]
        if name not in self._fit.missing or len(info.shape) != 2:
            return
        turned = TensorInfo(info.dtype, info.shape[::-1])
        if turned.shape != self._fit.shape_of(self._expected[name]):
            return
        rows, columns = info.shape
        values = replace(self._values(key), turned=(rows, columns))
        self._note(Action.TURN, name, f"it was saved transposed, as {key}")
        yield OutTensor(name, turned, values)

    def _reshaped(self, key: str, info: TensorInfo) -> OutTensor:
        shape = dict(self._fit.misshapen)[key]
        n_elements = TensorInfo(info.dtype, shape).n_elements
        if 0 not in shape and n_elements == info.n_elements:
            text = f"{list(info.shape)} holds the same values as {list(shape)}"
            self._note(Action.RESHAPE, key, text)
            wanted = TensorInfo(info.dtype, shape)
            return OutTensor(key, wanted, self._values(key))
        return self._replaced(key, info, "its shape does not fit", shape)

    def _replaced(
        self, key: str, info: TensorInfo, why: str, shape: tuple[int, ...] | None = None
    ) -> OutTensor:
        wanted = TensorInfo(info.dtype, info.shape if shape is None else shape)
        found = self._from_base(key, wanted.shape)
        if found is None:
            return OutTensor(key, info, self._values(key))
        assert self._base is not None
        reason = f"{why}; that of {self._base.header.path.name} is taken"
        self._note(Action.REPLACE, key, reason)
        return OutTensor(key, wanted, found)

    def _values(self, key: str) -> FileValues:
        return self._known.values(self._header, key)

    def _from_base(self, key: str, shape: tuple[int, ...] | None) -> FileValues | None:
        if self._base is None:
            return None
        info = self._base.known.infos.get(key)
        if info is None:
            self._left.append(f"{self._base.header.path.name} has no {key} to give.")
            return None
        if shape is not None and info.shape != shape and 0 not in shape:
            self._left.append(
                f"{self._base.header.path.name} cannot give {key}: it has "
                f"{list(info.shape)} there, {list(shape)} is wanted."
            )
            return None
        return self._base.known.values(self._base.header, key, must_be_finite=True)

    def _added(self) -> Iterator[OutTensor]:
        if self._base is None:
            return
        turned = {step.key for step in self._steps if step.action is Action.TURN}
        for defect, why in (
            (Defect.MISSING, "it is missing"),
            (Defect.ABSENT, "its component is absent"),
        ):
            is_wanted = defect is Defect.MISSING or self._options.fill_components
            if defect in self._options.keep or not is_wanted:
                continue
            for name in self._keys_of(defect):
                if name not in turned:
                    yield from self._filled(name, why)

    def _keys_of(self, defect: Defect) -> Iterator[str]:
        for finding in self._inspection.contents.findings:
            if finding.defect is defect:
                yield from finding.keys

    def _filled(self, name: str, why: str) -> Iterator[OutTensor]:
        assert self._base is not None
        component = self._known.component_of(name)
        # A small model that lacks a whole component cannot tell its widths.
        is_told = not self._fit.widths or self._inspection.part(component or "")
        shape = self._fit.shape_of(self._expected[name]) if is_told else None
        found = self._from_base(name, shape)
        if found is None:
            return
        info = self._base.known.infos[name]
        dtype = self._usual_dtype(component) or info.dtype
        reason = f"{why}; that of {self._base.header.path.name} is taken"
        self._note(Action.FILL, name, reason)
        yield OutTensor(name, TensorInfo(dtype, info.shape), found)

    def _usual_dtype(self, component: str | None) -> DType | None:
        """The type that most of a component's tensors have."""
        part = self._inspection.part(component or "")
        if part is None:
            return None
        name = max(part.dtypes, key=lambda dtype: part.dtypes[dtype])
        dtype = DType.from_name(name)
        return dtype if dtype.is_float and dtype.size > 1 else None

    def _cast(self, tensor: OutTensor) -> OutTensor:
        wanted = self._options.dtype
        info = tensor.info
        if wanted is None or not info.dtype.is_float or info.dtype is wanted:
            return tensor
        role = self._known.role_of(tensor.key)
        if role is None or role.component is Component.SCHEDULE:
            return tensor
        self._note(Action.CAST, tensor.key, f"to {wanted.torch_name}")
        return replace(tensor, info=replace(info, dtype=wanted))

    def _note(self, action: Action, key: str, reason: str) -> None:
        self._steps.append(Step(action, key, reason))


class _Base:
    """A sound model that gives what another lacks."""

    def __init__(self, path: Path, wanted: Recognised) -> None:
        self.header = read_header(path)
        known = _known(self.header)
        if known.architecture is not wanted.architecture:
            raise InputError(
                f"--base {path} is {known.label}, the file to mend is "
                f"{wanted.label}; give a base of the same architecture."
            )
        self.known = known


def _known(header: Header) -> Recognised:
    known = recognise(header.infos, where=header.path.name)
    if known.architecture is None:
        reason = " ".join(known.problems) or f"It is: {known.label}."
        raise CheckpointError(
            f"{header.path} cannot be repaired, only whole checkpoints can. {reason}"
        )
    return known


def _ids_shape(info: TensorInfo) -> tuple[int, ...]:
    return (1, max(1, info.n_elements))
