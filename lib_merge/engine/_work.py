"""How the work on a plan is cut up: units, run sizes, passes, memory, threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lib_merge.checkpoint.journal import Journal
from lib_merge.core.dtypes import DType
from lib_merge.core.method import MergeMethod
from lib_merge.core.plan import (
    CopyOp,
    KeyTask,
    LoraOp,
    MergeOp,
    Op,
    Plan,
    loras_of,
    parts_of,
)
from lib_merge.core.recipe import NonFinite
from lib_merge.core.runs import MAX_RUN, Over, run_elements
from lib_merge.engine._evaluate import aligned, is_materialised, unit_elements
from lib_merge.errors import InputError
from lib_merge.lora.change import panel_elements
from lib_merge.methods import methods

MAX_ELEMENT_BYTES = 8
_SMALL_TILE = 32640
"""Below 32768 elements torch starts no threads of its own, whatever it is set to."""

_MIN_CHUNK = 1 << 12
_MAX_THREADS = 8
_SMALL_BYTES = 32 << 20
"""Outputs below this are made in the calling thread: handing over costs more."""

_WINDOW_BYTES = 32 << 20
"""So much of all models is read at once while a tensor is walked through once."""

_RESIDENT_BYTES = 64 << 20
"""A tensor that several passes go over stays in memory up to this size."""

_CHANGE_TENSORS = 4
"""Tensors of full size for a LoRA's change that depends on the weight it changes."""

_CHANGE_RUNS = 4
"""Run-sized tensors that the change by a LoRA needs at a time."""

_TILE_TENSORS = 14
"""Run-sized tensors that a method needs at a time besides its inputs."""


@dataclass(frozen=True)
class Unit:
    """Values [start, stop) of one output tensor.

    Attributes:
        task: The tensor.
        start: Index of the first value.
        stop: Index behind the last.
        is_whole: Whether one worker must do all of the tensor, in order.
    """

    task: KeyTask
    start: int
    stop: int
    is_whole: bool = False


@dataclass(frozen=True)
class Sizes:
    """How much is handled at once.

    Attributes:
        chunk: Values written, and for elementwise methods read, at once.
        tile: Values computed at once; small enough for the processor's cache.
        resident_bytes: Largest tensor, over all models, that is kept between passes.
    """

    chunk: int
    tile: int
    resident_bytes: int


@dataclass(frozen=True)
class TaskWork:
    """What one task takes.

    Attributes:
        is_whole: Whether one worker must do all of it, in order.
        n_passes: Passes over the tensor before the one that merges.
        run: Values of a run that a method may hold of all its inputs; 0 if none does.
        unit: Values that cannot be separated (a row, an entry of the first axis).
        n_inputs: Most inputs of one operation.
        whole_tensors: Tensors of full size held at once, in the working dtype.
        workspaces: Methods that take more than those.
        n_factors: Numbers that the changes by LoRAs are computed from.
        n_loras: LoRAs that take part.
    """

    is_whole: bool
    n_passes: int
    run: int
    unit: int
    n_inputs: int
    whole_tensors: int
    workspaces: tuple[MergeMethod, ...] = ()
    n_factors: int = 0
    n_loras: int = 0


def task_work(task: KeyTask, *, is_leaving_out: bool = False) -> TaskWork:
    """What a task takes.

    Args:
        task: The task.
        is_leaving_out: Whether models with NaN are left out: that must be known of the
            whole tensor first.
    """
    if isinstance(task.op, CopyOp):
        return TaskWork(False, 0, 0, 1, 1, 0)
    found = list(_nodes(task.op))
    declared = [(op, methods().get(op.method), is_root) for op, is_root in found]
    n_passes = sum(m.n_passes for _, m, _ in declared)
    wholes = [
        (len(op.inputs) - m.hides_base + 1)
        if m.over is Over.TENSOR
        else int(is_materialised(m, is_root=is_root))
        for op, m, is_root in declared
    ]
    n_passes += sum(
        len(op.inputs) - m.hides_base if m.over is Over.TENSOR else 1
        for op, m, is_root in declared
        if is_materialised(m, is_root=is_root)
    )
    loras = list(loras_of(task.op))
    n_from_base = sum(lora.needs_base for lora in loras)
    n_passes += n_from_base
    runs = [run_elements(len(op.inputs)) for op, m, _ in declared if m.measure]
    scans = is_leaving_out and any(m.is_pool for _, m, _ in declared)
    root = methods().get(task.op.method) if isinstance(task.op, MergeOp) else None
    is_cut_freely = root is None or root.over is Over.ELEMENTS
    return TaskWork(
        is_whole=bool(n_passes or scans or not is_cut_freely),
        n_passes=n_passes + int(scans),
        run=min(runs, default=0),
        unit=_unit(task, root),
        n_inputs=max((len(op.inputs) for op, _, _ in declared), default=1),
        whole_tensors=sum(wholes) + _CHANGE_TENSORS * n_from_base,
        workspaces=tuple(m for _, m, _ in declared if m.over is Over.TENSOR),
        n_factors=sum(lora.n_factors for lora in loras),
        n_loras=len(loras),
    )


def _unit(task: KeyTask, root: MergeMethod | None) -> int:
    """Values that cannot be separated in the pass that gives the result."""
    if root is not None:
        return unit_elements(root, task.shape)
    return panel_elements(task.shape) if isinstance(task.op, LoraOp) else 1


def _nodes(op: Op, *, is_root: bool = True) -> Iterator[tuple[MergeOp, bool]]:
    """Every merge of a tree, the root first."""
    if isinstance(op, MergeOp):
        yield op, is_root
    for part in parts_of(op):
        if part is not None:
            yield from _nodes(part, is_root=False)


def leaves_out(plan: Plan) -> bool:
    """Whether models with NaN or infinity are left out of pools."""
    return plan.recipe.on_non_finite is NonFinite.LEAVE_OUT


def work_bytes(plan: Plan) -> int:
    """What a run's progress adds up to: the output's bytes, once for every pass."""
    is_leaving_out = leaves_out(plan)
    return sum(
        unit_bytes(Unit(task, 0, task.n_elements), is_leaving_out=is_leaving_out)
        for task in plan.tasks
    )


def unit_bytes(unit: Unit, *, is_leaving_out: bool) -> int:
    """Progress of one unit."""
    work = task_work(unit.task, is_leaving_out=is_leaving_out)
    return (unit.stop - unit.start) * unit.task.dtype.size * (1 + work.n_passes)


def units_of(
    tasks: Sequence[KeyTask], chunk: int, *, is_leaving_out: bool
) -> list[Unit]:
    """Work for the crew: large tensors that one worker must do come first."""
    whole: list[Unit] = []
    cut: list[Unit] = []
    for task in tasks:
        if not task.n_elements:
            continue
        work = task_work(task, is_leaving_out=is_leaving_out)
        if work.is_whole:
            whole.append(Unit(task, 0, task.n_elements, is_whole=True))
            continue
        step = max(1, chunk // work.unit) * work.unit
        cut += [
            Unit(task, start, min(start + step, task.n_elements))
            for start in range(0, task.n_elements, step)
        ]
    whole.sort(key=lambda unit: -unit.stop)
    return whole + cut


def unfinished(units: Sequence[Unit], journal: Journal) -> list[Unit]:
    """What a killed run left to do; a tensor done by one worker is done or not."""
    found = []
    for unit in units:
        spans = list(journal.missing(unit.task.key, unit.start, unit.stop))
        if not unit.is_whole:
            found += [Unit(unit.task, start, stop) for start, stop in spans]
        elif spans:
            found.append(unit)
    return found


class MemoryGate:
    """Lets units that need large tensors in only while there is room for them.

    Args:
        n_bytes: Room for all of them together.
    """

    def __init__(self, n_bytes: int) -> None:
        self._free = n_bytes
        self._changed = threading.Condition()

    @contextmanager
    def room(self, n_bytes: int) -> Iterator[None]:
        """Wait for room, hold it, give it back."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= n_bytes)
            self._free -= n_bytes
        try:
            yield
        finally:
            with self._changed:
                self._free += n_bytes
                self._changed.notify_all()


@dataclass(frozen=True)
class Shape:
    """Threads and sizes that keep to a budget.

    Attributes:
        n_threads: Workers.
        sizes: Of each.
        large_bytes: Room for tensors of full size, over all workers.
    """

    n_threads: int
    sizes: Sizes
    large_bytes: int


def large_bytes(task: KeyTask, work: TaskWork, compute: DType) -> int:
    """Memory for tensors of full size that a task holds."""
    extra = sum(m.workspace_bytes(task.shape, compute.size) for m in work.workspaces)
    return int(work.whole_tensors * task.n_elements * compute.size + extra)


def shape_of_work(
    plan: Plan,
    *,
    budget_bytes: int,
    n_threads: int | None,
    device: str,
    chunk_elements: int | None,
) -> Shape:
    """Threads and buffer sizes that keep to a budget.

    Raises:
        InputError: The budget is too small for this plan; says what it needs.
    """
    is_cpu = device == "cpu"
    is_leaving_out = leaves_out(plan)
    needs = [(t, task_work(t, is_leaving_out=is_leaving_out)) for t in plan.tasks]
    n_threads = n_threads or _n_threads(plan, is_cpu=is_cpu)
    chunk = chunk_elements or _chunk(plan, is_cpu=is_cpu)
    compute = plan.recipe.compute_dtype
    largest = max((large_bytes(t, w, compute) for t, w in needs), default=0)
    while True:
        sizes = _sizes(chunk, n_threads, is_cpu=is_cpu)
        each = max((worker_bytes(t, w, sizes) for t, w in needs), default=0)
        room = budget_bytes - each * n_threads
        if room >= largest:
            extra = (room - largest) // (3 * n_threads)
            resident = max(0, min(_RESIDENT_BYTES, extra))
            sizes = Sizes(sizes.chunk, sizes.tile, resident)
            return Shape(n_threads, sizes, room - resident * n_threads)
        if chunk > _MIN_CHUNK:
            chunk //= 2
        elif n_threads > 1:
            n_threads -= 1
        else:
            raise InputError(_too_small(budget_bytes, each + largest, needs, compute))


def _too_small(
    budget: int, needed: int, needs: Sequence[tuple[KeyTask, TaskWork]], compute: DType
) -> str:
    task = max(needs, key=lambda n: large_bytes(n[0], n[1], compute))[0]
    largest = max(large_bytes(t, w, compute) for t, w in needs)
    where = f" ('{task.key}' must be held whole)" if largest else ""
    n_models = max(work.n_inputs for _, work in needs)
    return (
        f"A memory budget of {budget / 1e6:.2f} MB is too small for {n_models} "
        f"models{where}; give at least {needed / 1e6:.1f} MB (--memory)."
    )


def _sizes(chunk: int, n_threads: int, *, is_cpu: bool) -> Sizes:
    tile = _SMALL_TILE if is_cpu and n_threads == 1 else MAX_RUN
    if not is_cpu:
        tile = chunk
    return Sizes(chunk, min(chunk, tile), 0)


def _chunk(plan: Plan, *, is_cpu: bool) -> int:
    """Values at once: fewer, the more models are read."""
    chunk = 1 << 19 if is_cpu else 1 << 22
    most = max((task.element_bytes for task in plan.tasks), default=1)
    while chunk > MAX_RUN and chunk * most > _WINDOW_BYTES:
        chunk //= 2
    return chunk


def tile_of(task: KeyTask, work: TaskWork, sizes: Sizes) -> int:
    """Values that a task's merging pass computes at once."""
    tile = min(work.run, sizes.tile) if work.run else sizes.tile
    if isinstance(task.op, LoraOp):
        return work.unit
    if work.unit == 1 or not isinstance(task.op, MergeOp):
        return tile
    return aligned(tile, methods().get(task.op.method), task.shape)


def worker_bytes(task: KeyTask, work: TaskWork, sizes: Sizes) -> int:
    """Memory that one worker takes for a task, tensors of full size apart."""
    n_elements = min(task.n_elements, max(sizes.chunk, work.run, work.unit))
    windows = n_elements * (task.element_bytes + MAX_ELEMENT_BYTES)
    if isinstance(task.op, CopyOp):
        return windows
    tile = min(task.n_elements, max(tile_of(task, work, sizes), work.run))
    # A method that holds a run of every model may need it twice (float32, float64).
    n_held = 2 * work.n_inputs if work.run else min(work.n_inputs, 3)
    n_held += _CHANGE_RUNS * work.n_loras
    factors = work.n_factors * MAX_ELEMENT_BYTES
    return windows + factors + tile * MAX_ELEMENT_BYTES * (_TILE_TENSORS + n_held)


def _n_threads(plan: Plan, *, is_cpu: bool) -> int:
    if plan.n_bytes_out < _SMALL_BYTES:
        return 1
    return n_cpus() if is_cpu else 2


def n_cpus() -> int:
    """Processors that this process may use, at most eight."""
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    return min(available, _MAX_THREADS)
