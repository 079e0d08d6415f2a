"""Computes units of work, run by run, in memory that is used again and again."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from lib_merge.checkpoint.journal import Journal
from lib_merge.checkpoint.reader import torch_dtype
from lib_merge.core.dtypes import DType
from lib_merge.core.plan import CopyOp, KeyTask, Op, models_of
from lib_merge.core.ports import Sink
from lib_merge.core.recipe import NonFinite
from lib_merge.core.runs import MAX_RUN
from lib_merge.engine._changes import Changes
from lib_merge.engine._evaluate import Evaluator, FoundNonFinite, count_non_finite
from lib_merge.engine._keys import without
from lib_merge.engine._window import Buffers, RawWindow
from lib_merge.engine._work import (
    MemoryGate,
    Sizes,
    TaskWork,
    Unit,
    large_bytes,
    task_work,
    tile_of,
)
from lib_merge.engine.rounding import round_into
from lib_merge.engine.sources import Sources
from lib_merge.errors import NonFiniteError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class NonFiniteInputs:
    """Where models themselves hold NaN or infinity; shared by all workers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: set[str] = set()
        self._left_out: dict[tuple[str, int], int] = {}

    def keep(self, key: str) -> None:
        """Note a key whose NaN or infinity goes into the result."""
        with self._lock:
            self._kept.add(key)

    def leave_out(self, key: str, counts: Mapping[int, int]) -> None:
        """Note models that a key was merged without, with their bad values' number."""
        with self._lock:
            self._left_out |= {(key, model): n for model, n in counts.items()}

    def kept_keys(self) -> tuple[str, ...]:
        """Keys with NaN or infinity in the result, sorted."""
        return tuple(sorted(self._kept))

    def left_out(self) -> tuple[tuple[str, int, int], ...]:
        """(key, model node, number of bad values), sorted."""
        return tuple((*place, n) for place, n in sorted(self._left_out.items()))


@dataclass(frozen=True)
class Job:
    """What all workers of a run share.

    Attributes:
        sources: The open models.
        sink: Where values go.
        sizes: Buffer sizes.
        compute: What methods work in.
        device: Where they work.
        policy: What happens where a model holds NaN or infinity.
        non_finite: Where that is noted.
        gate: Room for tensors of full size.
        journal: Where finished units are noted, if anywhere.
        is_cache_spared: Whether the system's page cache is relieved of what was read:
            the models are so large that it would only push other things out.
        advance: Told bytes of progress.
    """

    sources: Sources
    sink: Sink
    sizes: Sizes
    compute: DType
    device: str
    policy: NonFinite
    non_finite: NonFiniteInputs
    gate: MemoryGate
    journal: Journal | None
    is_cache_spared: bool
    advance: Callable[[int], None]


class Worker:
    """Computes units; each thread has its own.

    Args:
        job: What it shares with the others.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._buffers = Buffers()

    def run(self, unit: Unit) -> None:
        """Compute one unit and hand it to the sink.

        Raises:
            NonFiniteError: A value came out as NaN or infinity, or does not fit the
                type to save in; or a model holds such values and may not.
        """
        task = unit.task
        leaves_out = self._job.policy is NonFinite.LEAVE_OUT
        work = task_work(task, is_leaving_out=leaves_out)
        tally = _Tally(self._job.advance, unit, 1 + work.n_passes)
        with self._job.gate.room(large_bytes(task, work, self._job.compute)):
            if isinstance(task.op, CopyOp):
                self._copy(unit, task.op)
            else:
                self._merge(unit, work, tally)
        if self._job.is_cache_spared:
            span = (unit.start, unit.stop)
            self._job.sources.hint(models_of(task.op), task.key, span, wanted=False)
        if self._job.journal is not None:
            self._job.journal.mark(task.key, unit.start, unit.stop)
        tally.close()

    def _copy(self, unit: Unit, op: CopyOp) -> None:
        task = unit.task
        raws = self._window(unit, self._job.sizes.chunk)
        raw = raws.values(op.model, unit.start, unit.stop)
        if raw.dtype == torch_dtype(task.dtype):
            self._job.sink.write(task.key, unit.start, raw)
            return
        out = self._out(task, unit.stop - unit.start)
        place = _Place(task, unit.start, lambda: [raw], self._job.non_finite)
        _round_checked(out, raw, place)
        self._job.sink.write(task.key, unit.start, out)

    def _merge(self, unit: Unit, work: TaskWork, tally: _Tally) -> None:
        task = unit.task
        is_pool_unit = work.is_whole and self._job.policy is NonFinite.LEAVE_OUT
        n_window = self._n_window(task, work)
        raws = self._window(unit, n_window)
        op: Op = task.op
        if is_pool_unit:
            op = self._without_bad(task, raws, tally)
        evaluator = Evaluator(
            task,
            op,
            raws,
            Changes(
                self._job.sources,
                task,
                compute_dtype=torch_dtype(self._job.compute),
                device=self._job.device,
            ),
            compute_dtype=torch_dtype(self._job.compute),
            device=self._job.device,
            is_checked=self._job.policy is not NonFinite.KEEP and not is_pool_unit,
            on_work=tally.add,
        )
        try:
            evaluator.prepare()
            self._write_runs(unit, evaluator, tile_of(task, work, self._job.sizes))
        except FoundNonFinite:
            raise NonFiniteError(
                self._bad_message(task, self._bad(task, raws))
            ) from None

    def _write_runs(self, unit: Unit, evaluator: Evaluator, tile: int) -> None:
        """The merging pass: runs are computed, rounded and written in chunks."""
        task = unit.task
        chunk = max(tile, self._job.sizes.chunk // tile * tile)
        for first in range(unit.start, unit.stop, chunk):
            last = min(first + chunk, unit.stop)
            out = self._out(task, last - first)
            for start in range(first, last, tile):
                stop = min(start + tile, last)
                values = evaluator.values(start, stop)
                raws = partial(evaluator.raw_values, start, stop)
                place = _Place(task, start, raws, self._job.non_finite)
                _round_checked(out[start - first : stop - first], values, place)
            self._job.sink.write(task.key, first, out)

    def _out(self, task: KeyTask, n_elements: int) -> Tensor:
        n_bytes = n_elements * task.dtype.size
        buffer = self._buffers.get("out", n_bytes).tensor[:n_bytes]
        return buffer.view(torch_dtype(task.dtype))

    def _n_window(self, task: KeyTask, work: TaskWork) -> int:
        """Values of each model that are read at once."""
        n_bytes = task.n_elements * task.element_bytes
        if work.n_passes and n_bytes <= self._job.sizes.resident_bytes:
            return task.n_elements
        return max(self._job.sizes.chunk, work.run, work.unit)

    def _window(self, unit: Unit, n_window: int) -> RawWindow:
        return RawWindow(
            self._job.sources,
            unit.task,
            n_window=n_window,
            limit=unit.stop,
            buffers=self._buffers,
        )

    def _without_bad(self, task: KeyTask, raws: RawWindow, tally: _Tally) -> Op:
        """The task's operation without models that hold NaN or infinity in this key."""
        bad = self._bad(task, raws, tally.add)
        if not bad:
            return task.op
        op = without(task.op, bad)
        if op is None:
            raise NonFiniteError(self._bad_message(task, bad, is_needed=True))
        self._job.non_finite.leave_out(task.key, bad)
        return op

    def _bad(
        self,
        task: KeyTask,
        raws: RawWindow,
        on_work: Callable[[int], None] = lambda n: None,
    ) -> dict[int, int]:
        """How many values of each model are NaN or infinite, over the whole tensor."""
        counts: dict[int, int] = {}
        step = min(self._job.sizes.chunk, MAX_RUN)
        for start in range(0, task.n_elements, step):
            stop = min(start + step, task.n_elements)
            for model in models_of(task.op):
                values = raws.values(model, start, stop)
                if not _is_finite(values):
                    counts[model] = counts.get(model, 0) + count_non_finite(values)
            on_work(stop - start)
        return {model: n for model, n in counts.items() if n}

    def _bad_message(
        self, task: KeyTask, bad: Mapping[int, int], *, is_needed: bool = False
    ) -> str:
        listed = "; ".join(
            f"{self._job.sources.path(model)} has {n} of {task.n_elements}"
            for model, n in bad.items()
        )
        remedy = (
            "the merge of this key needs it, so it cannot be left out; repair the file "
            "or choose another"
            if is_needed
            else "repair the file, leave such models of a pool out for such keys "
            "(--non-finite leave_out), or let the values through (--non-finite keep)"
        )
        return (
            f"'{task.key}' holds values that are NaN or infinity: {listed}. To go on, "
            f"{remedy}."
        )


class _Tally:
    """Progress of one unit; passes that were not needed are made up for at its end."""

    def __init__(self, advance: Callable[[int], None], unit: Unit, n_passes: int):
        self._advance = advance
        self._size = unit.task.dtype.size
        self._left = (unit.stop - unit.start) * self._size * n_passes
        self._last = (unit.stop - unit.start) * self._size

    def add(self, n_elements: int) -> None:
        """Say that a pass went over so many values."""
        amount = min(n_elements * self._size, max(0, self._left - self._last))
        self._left -= amount
        self._advance(amount)

    def close(self) -> None:
        """The unit is written."""
        self._advance(self._left)
        self._left = 0


def _is_finite(values: Tensor) -> bool:
    """Whether the sum of all values is finite, which it is not if one of them is not.

    It may overflow where all are; whoever needs to know counts then.
    """
    import torch

    total = float(values.to(torch.float32).sum())
    return total - total == 0.0


@dataclass(frozen=True)
class _Place:
    """Where a run lies, for messages, with what it was computed from."""

    task: KeyTask
    start: int
    raws: Callable[[], list[Tensor]]
    non_finite: NonFiniteInputs


def _round_checked(out: Tensor, values: Tensor, place: _Place) -> None:
    import torch

    if values.device != out.device:
        values = values.to(out.device)
    round_into(out, values)
    if values.element_size() == 1:
        values = values.to(torch.float32)
    low, high = torch.aminmax(values)
    limit = torch.finfo(out.dtype).max
    # NaN compares false, so this is true for finite values within the limits only.
    if low.item() >= -limit and high.item() <= limit:
        return
    bad = ~torch.isfinite(out.to(torch.float64))
    # Some versions of torch clamp to the largest float8 instead of giving NaN.
    bad |= values.to(torch.float64).abs() > _rounding_limit(out.dtype)
    for raw in place.raws():
        is_fine = torch.isfinite(raw.to(torch.float64))
        if not bool(is_fine.all()):
            place.non_finite.keep(place.task.key)
        bad &= is_fine
    if bool(bad.any()):
        index = int(bad.nonzero()[0])
        raise NonFiniteError(_message(place, index, float(values[index])))


def _rounding_limit(dtype: torch.dtype) -> float:
    """The largest value that rounds to a finite number: half a step above the last."""
    import torch

    info = torch.finfo(dtype)
    step = info.eps * 2.0 ** math.floor(math.log2(info.max))
    return info.max + step / 2


def _message(place: _Place, index: int, value: float) -> str:
    task = place.task
    where = f"'{task.key}' (block {task.block}, value {place.start + index})"
    if math.isfinite(value):
        return (
            f"{where} came out as {value:g}, which does not fit {task.dtype.torch_name}"
            "; save in a wider type (--save-dtype bfloat16 or float32), or take a "
            "smaller alpha there."
        )
    return (
        f"{where} came out as {value:g} although every model is finite there; take a "
        "smaller alpha there, or compute in float64 (--precision float64)."
    )
