"""Evaluates an operation over runs of one tensor, measuring first what it must know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lib_merge.core.method import MergeMethod, row_elements
from lib_merge.core.plan import (
    CopyOp,
    KeyTask,
    LoraOp,
    MergeOp,
    Op,
    models_of,
    outer_loras,
    parts_of,
)
from lib_merge.core.runs import Over, Place, Run, run_elements
from lib_merge.core.spaces import Space
from lib_merge.engine._changes import Changes
from lib_merge.engine._window import RawWindow
from lib_merge.methods import methods

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class FoundNonFinite(Exception):
    """A model holds NaN or infinity where it was read; caught inside the engine."""


@dataclass(frozen=True)
class _Whole:
    """A part's values over the whole tensor, or its delta with the base to be added."""

    values: Tensor
    base: Op | None = None


class Evaluator:
    """One operation over one tensor.

    Args:
        task: The output tensor.
        op: The task's operation, maybe without some models.
        raws: The models' stored values.
        changes: What LoRAs add.
        compute_dtype: What methods work in.
        device: Where they work.
        is_checked: Whether models are looked at for NaN and infinity.
        on_work: Told the number of values after every run of a measuring pass.
    """

    def __init__(
        self,
        task: KeyTask,
        op: Op,
        raws: RawWindow,
        changes: Changes,
        *,
        compute_dtype: torch.dtype,
        device: str,
        is_checked: bool,
        on_work: Callable[[int], None],
    ) -> None:
        self._task = task
        self._op = op
        self._raws = raws
        self._changes = changes
        self._dtype = compute_dtype
        self._device = device
        self._is_checked = is_checked
        self._on_work = on_work
        self._outer = frozenset(id(lora) for lora in outer_loras(op))
        self._measured: dict[int, Any] = {}
        self._wholes: dict[int, _Whole] = {}
        self._read: list[tuple[Tensor, int, int, int]] = []

    def prepare(self) -> None:
        """Measure and compute what later runs build on: nothing for most methods.

        Raises:
            FoundNonFinite: A model holds NaN or infinity.
        """
        self._prepare(self._op, is_root=True)

    def _prepare(self, op: Op, *, is_root: bool) -> None:
        for part in parts_of(op):
            if part is not None:
                self._prepare(part, is_root=False)
        if isinstance(op, LoraOp):
            base = op.base
            step = run_elements(1)
            self._changes.prepare(
                op, lambda: self._fill(step, lambda s, e: self._values(base, s, e))
            )
        elif isinstance(op, MergeOp):
            self._prepare_merge(op, is_root=is_root)

    def _prepare_merge(self, op: MergeOp, *, is_root: bool) -> None:
        method = methods().get(op.method)
        if method.measure is not None:
            runs = _OpRuns(self, op, method)
            self._measured[id(op)] = method.measure(runs, **given_params(op, method))
        if is_materialised(method, is_root=is_root):
            self._wholes[id(op)] = self._materialise(op, method)

    def _materialise(self, op: MergeOp, method: MergeMethod) -> _Whole:
        """The whole result, flat; a delta keeps its base to be added run by run."""
        if method.over is not Over.TENSOR:
            step = aligned(run_elements(len(op.inputs)), method, self._task.shape)
            return _Whole(self._fill(step, lambda s, e: self._apply(op, method, s, e)))
        step = run_elements(1)
        is_base_given = not method.hides_base
        args = [
            method.shaped(self._fill(step, self._reader(op, i)), self._task.shape)
            for i in range(0 if is_base_given else 1, len(op.inputs))
        ]
        values = method.function(*args, **self._extras(op, method, 0)).reshape(-1)
        base = op.inputs[0] if method.result is Space.DELTA else None
        return _Whole(values, base)

    def _reader(self, op: MergeOp, index: int) -> Callable[[int, int], Tensor]:
        """Values of an input in its space (a delta has the base taken off)."""
        part, base = op.inputs[index], op.inputs[0]
        assert part is not None
        assert base is not None
        if methods().get(op.method).space_of(index) is not Space.DELTA:
            return lambda s, e: self._values(part, s, e)
        change = self._changes.difference(part, base)
        if change is not None:
            return change
        return lambda s, e: self._values(part, s, e) - self._values(base, s, e)

    def _fill(self, step: int, read: Callable[[int, int], Tensor]) -> Tensor:
        import torch

        n_elements = self._task.n_elements
        out = torch.empty(n_elements, dtype=self._dtype, device=self._device)
        for start in range(0, n_elements, step):
            stop = min(start + step, n_elements)
            out[start:stop] = read(start, stop)
            self._verify()
            self._on_work(stop - start)
        return out

    def values(self, start: int, stop: int) -> Tensor:
        """The operation's values [start, stop), 1-D in the working dtype.

        Args:
            start: On a bound that the operation's method allows (`aligned`).
            stop: Another, or the end.

        Raises:
            FoundNonFinite: A model holds NaN or infinity here.
        """
        values = self._values(self._op, start, stop)
        self._verify()
        return values

    def raw_values(self, start: int, stop: int) -> list[Tensor]:
        """What is stored in every model that the operation reads."""
        return [self._raws.values(m, start, stop) for m in models_of(self._op)]

    def _values(self, op: Op, start: int, stop: int) -> Tensor:
        if isinstance(op, CopyOp):
            return self._widened(op.model, start, stop)
        if isinstance(op, LoraOp):
            return self._with_change(op, start, stop)
        whole = self._wholes.get(id(op))
        if whole is not None:
            part = whole.values[start:stop]
            if whole.base is None:
                return part
            return self._values(whole.base, start, stop) + part
        return self._apply(op, methods().get(op.method), start, stop)

    def _with_change(self, op: LoraOp, start: int, stop: int) -> Tensor:
        base = self._values(op.base, start, stop)
        if id(op) not in self._outer:
            change = self._changes.values(op, start, stop)
            return base.add(change, alpha=op.strength)
        # Whole blocks of rows: the product is added where the base lies, once less
        # through memory.
        is_own = id(op.base) in self._outer or (
            isinstance(op.base, CopyOp)
            and self._raws.values(op.base.model, start, stop).dtype != base.dtype
        )
        own = base if is_own else base.clone()
        return self._changes.add_to(op, own, start, stop)

    def _apply(self, op: MergeOp, method: MergeMethod, start: int, stop: int) -> Tensor:
        first, last = _with_halo(method, self._task, start, stop)

        def read(index: int) -> Tensor:
            part = op.inputs[index]
            assert part is not None
            flat = self._values(part, first, last)
            shaped: Tensor = method.shaped(flat, self._task.shape)
            return shaped

        def change(index: int) -> Tensor | None:
            exact = self._changes.difference(op.inputs[index], op.inputs[0])
            if exact is None:
                return None
            shaped: Tensor = method.shaped(exact(first, last), self._task.shape)
            return shaped

        base = read(0) if method.has_base else None
        args = method.arguments(read, given_inputs(op), base, change)
        values: Tensor = method.function(*args, **self._extras(op, method, first))
        if method.result is Space.DELTA and base is not None:
            values = base + values
        flat: Tensor = values.reshape(-1)
        return flat[start - first : stop - first]

    def _extras(self, op: MergeOp, method: MergeMethod, start: int) -> dict[str, Any]:
        extras: dict[str, Any] = given_params(op, method)
        if method.wants_place:
            extras["place"] = self._place(op, method, start)
        if method.measure is not None:
            extras["measured"] = self._measured[id(op)]
        return extras

    def _place(self, op: MergeOp, method: MergeMethod, start: int) -> Place:
        pool = tuple(i - method.n_single for i in given_inputs(op))
        models = tuple(i for i in pool if i >= 0) if method.is_pool else ()
        return Place(self._task.key, self._task.shape, start, models)

    def runs_of(self, op: MergeOp, method: MergeMethod) -> Iterator[Run]:
        """One pass over the inputs of an operation, in bounds that never change."""
        step = run_elements(len(op.inputs))
        place = self._place(op, method, 0)
        n_elements = self._task.n_elements
        for start in range(0, n_elements, step):
            stop = min(start + step, n_elements)

            def read(index: int, start: int = start, stop: int = stop) -> Tensor:
                part = op.inputs[index]
                assert part is not None
                return self._values(part, start, stop)

            def change(index: int, start: int = start, stop: int = stop) -> Any:
                exact = self._changes.difference(op.inputs[index], op.inputs[0])
                return None if exact is None else exact(start, stop)

            base = read(0) if method.has_base else None
            args = method.arguments(read, given_inputs(op), base, change)
            yield Run(args, replace(place, start=start))
            self._verify()
            self._on_work(stop - start)

    def _widened(self, model: int, start: int, stop: int) -> Tensor:
        raw = self._raws.values(model, start, stop)
        if self._device != "cpu":
            raw = raw.to(self._device)
        values = raw.to(self._dtype)
        if self._is_checked:
            # A sum shows NaN and infinity at a third of what looking for them costs.
            self._read.append((values.sum(), model, start, stop))
        return values

    def _verify(self) -> None:
        """Look at what was read since the last call.

        Raises:
            FoundNonFinite: There is NaN or infinity in it.
        """
        import torch

        if not self._read:
            return
        read, self._read = self._read, []
        total = float(torch.stack([entry[0] for entry in read]).sum())
        if total - total == 0.0:
            return
        for _, model, start, stop in read:
            if count_non_finite(self._raws.values(model, start, stop)):
                raise FoundNonFinite


@dataclass(frozen=True)
class _OpRuns:
    """The runs of an operation's inputs; see `core.runs.Runs`."""

    evaluator: Evaluator
    op: MergeOp
    method: MergeMethod

    @property
    def place(self) -> Place:
        """The whole tensor's place."""
        return self.evaluator._place(self.op, self.method, 0)

    def __iter__(self) -> Iterator[Run]:
        return self.evaluator.runs_of(self.op, self.method)


def count_non_finite(values: Tensor) -> int:
    """How many values are NaN or infinite, in any float type."""
    import torch

    return int((~torch.isfinite(values.to(torch.float64))).sum())


def given_inputs(op: MergeOp) -> Sequence[int]:
    """Positions of the inputs that are there."""
    return [i for i, part in enumerate(op.inputs) if part is not None]


def given_params(op: MergeOp, method: MergeMethod) -> dict[str, Any]:
    """Parameters of an operation; per-model ones only of the models that are there."""
    given = [i - method.n_single for i in given_inputs(op) if i >= method.n_single]
    return {
        name: tuple(value[i] for i in given) if isinstance(value, tuple) else value
        for name, value in op.params
    }


def is_materialised(method: MergeMethod, *, is_root: bool) -> bool:
    """Whether a method's result is computed whole before anything is made of it.

    A method that needs whole rows cannot serve the fixed runs of one around it.
    """
    if method.over is Over.TENSOR:
        return True
    return not is_root and method.over is not Over.ELEMENTS


def unit_elements(method: MergeMethod, shape: tuple[int, ...]) -> int:
    """Values that a method cannot do with fewer of: 1, a row, an entry."""
    if method.over is Over.ROWS:
        return row_elements(shape)
    if method.over is Over.SLABS and len(shape) > 1:
        count = 1
        for side in shape[1:]:
            count *= side
        return max(1, count)
    return 1


def aligned(n_elements: int, method: MergeMethod, shape: tuple[int, ...]) -> int:
    """About so many values, in whole units of a method."""
    unit = unit_elements(method, shape)
    return max(1, n_elements // unit) * unit


def _with_halo(
    method: MergeMethod, task: KeyTask, start: int, stop: int
) -> tuple[int, int]:
    if method.over is not Over.SLABS:
        return start, stop
    reach = method.halo * unit_elements(method, task.shape)
    return max(0, start - reach), min(task.n_elements, stop + reach)
