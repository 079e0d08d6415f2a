"""Runs a plan: reads, computes and writes key by key within a budget of memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from lib_merge.checkpoint.handles import memory_bytes
from lib_merge.checkpoint.journal import Journal
from lib_merge.core.plan import CopyOp, Plan, loras_of, models_of
from lib_merge.core.ports import Progress, Sink
from lib_merge.engine._compute import Job, NonFiniteInputs, Worker
from lib_merge.engine._work import (
    MemoryGate,
    Shape,
    Unit,
    leaves_out,
    shape_of_work,
    unfinished,
    unit_bytes,
    units_of,
    work_bytes,
)
from lib_merge.engine.progress import NullProgress
from lib_merge.engine.sources import Sources
from lib_merge.errors import InputError, MemoryLimitError

_POLL_S = 0.1
_HINT_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class RunOptions:
    """How a merge is run; none of it changes a bit of the result on one device.

    Attributes:
        budget_bytes: Most memory for buffers, over all threads. Python and torch
            themselves come on top (about 300 MB).
        n_threads: Threads that read, compute and write; None takes what the machine
            has, at most eight.
        device: torch device that computes, "cpu" or "cuda:0".
        cache_bytes: So much of the models is kept in memory by `LiveMerger` between
            merges, as stored.
        chunk_elements: Values handled at once; None chooses by the budget.
    """

    budget_bytes: int = 2 << 30
    n_threads: int | None = None
    device: str = "cpu"
    cache_bytes: int = 0
    chunk_elements: int | None = None


@dataclass(frozen=True)
class RunReport:
    """What a run did.

    Attributes:
        seconds: Wall time.
        bytes_read: From files (not from memory).
        bytes_written: To the sink.
        n_merged: Tensors that a method made.
        n_copied: Tensors taken from one model, converted or not.
        n_threads: Threads that worked.
        non_finite_keys: Keys with NaN or infinity from a model in the result.
        left_out: (key, model node, number of bad values) of models that a pool went
            without.
        n_resumed: Values that a killed run had finished before.
    """

    seconds: float
    bytes_read: int
    bytes_written: int
    n_merged: int
    n_copied: int
    n_threads: int
    non_finite_keys: tuple[str, ...] = ()
    left_out: tuple[tuple[str, int, int], ...] = ()
    n_resumed: int = 0


def run_plan(
    plan: Plan,
    sink: Sink,
    options: RunOptions | None = None,
    progress: Progress | None = None,
    *,
    sources: Sources | None = None,
    journal: Journal | None = None,
) -> RunReport:
    """Compute every tensor of a plan and hand it to a sink.

    Args:
        plan: From `plan_recipe`.
        sink: A file being written or a model in memory; called from several threads.
        options: Memory, threads and device.
        progress: Advanced by bytes of output for every pass (`work_bytes` in all);
            asked once a run whether to stop.
        sources: Models to read from that outlive this run (their cache serves the
            next); opened for the plan's recipe by this call.
        journal: Where finished parts are noted; what it has already is passed over.

    Raises:
        NonFiniteError: A result is NaN or infinite where the models are finite.
        MemoryLimitError: The device or the machine ran out of memory.
        CheckpointError: A model's file changed or cannot be read.
        InputError: The device does not exist, or the budget is too small.
        Cancelled: The user asked to stop.
    """
    options = options or RunOptions()
    progress = progress or NullProgress()
    began = time.monotonic()
    check_device(options.device)
    own = Sources() if sources is None else sources
    try:
        own.open(plan.recipe)
        n_read_before = own.n_read
        shape = _shape(plan, options)
        non_finite = NonFiniteInputs()
        job = Job(
            sources=own,
            sink=sink,
            sizes=shape.sizes,
            compute=plan.recipe.compute_dtype,
            device=options.device,
            policy=plan.recipe.on_non_finite,
            non_finite=non_finite,
            gate=MemoryGate(shape.large_bytes),
            journal=journal,
            is_cache_spared=plan.n_bytes_in > memory_bytes() // 2,
            advance=_checking(progress),
        )
        units = _units(plan, shape.sizes.chunk, journal, progress)
        _run_units(units, job, shape.n_threads, progress)
        n_read = own.n_read - n_read_before
    finally:
        if sources is None:
            own.close()
    n_merged = sum(not isinstance(task.op, CopyOp) for task in plan.tasks)
    return RunReport(
        seconds=time.monotonic() - began,
        bytes_read=n_read,
        bytes_written=plan.n_bytes_out,
        n_merged=n_merged,
        n_copied=len(plan.tasks) - n_merged,
        n_threads=shape.n_threads,
        non_finite_keys=non_finite.kept_keys(),
        left_out=non_finite.left_out(),
        n_resumed=0 if journal is None else journal.n_done,
    )


def check_device(device: str) -> None:
    """Refuse a device that torch cannot compute on here.

    Raises:
        InputError: It cannot; the message has torch's own reason.
    """
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as fault:
        first_line = str(fault).splitlines()[0]
        raise InputError(
            f"Device '{device}' cannot be used ({first_line}); use cpu, or cuda:0 "
            "where torch has CUDA."
        ) from fault


def _units(
    plan: Plan, chunk: int, journal: Journal | None, progress: Progress
) -> list[Unit]:
    is_leaving_out = leaves_out(plan)
    units = units_of(plan.tasks, chunk, is_leaving_out=is_leaving_out)
    if journal is not None and journal.n_done:
        units = unfinished(units, journal)
        left = sum(unit_bytes(unit, is_leaving_out=is_leaving_out) for unit in units)
        progress.advance(work_bytes(plan) - left)
    return units


def _shape(plan: Plan, options: RunOptions) -> Shape:
    return shape_of_work(
        plan,
        budget_bytes=options.budget_bytes,
        n_threads=options.n_threads,
        device=options.device,
        chunk_elements=options.chunk_elements,
    )


def _checking(progress: Progress) -> Callable[[int], None]:
    """Progress that also gives the user a chance to stop in the middle of a tensor."""

    def advance(amount: int) -> None:
        progress.advance(amount)
        progress.check()

    return advance


def _run_units(
    units: Sequence[Unit], job: Job, n_threads: int, progress: Progress
) -> None:
    feed = _hinted(units, job.sources, 2 * n_threads)
    # Sums over whole tensors, and the products that make up a LoRA's change, want a
    # thread that computes alone: their last bits may differ where a library splits
    # them up.
    is_elementwise = not any(u.is_whole or any(loras_of(u.task.op)) for u in units)
    if is_elementwise and (n_threads == 1 or len(units) == 1):
        _work(feed, Worker(job), progress)
        return
    crew = _Crew(feed, job, progress)
    crew.run(n_threads)


def _hinted(units: Sequence[Unit], sources: Sources, n_ahead: int) -> Iterator[Unit]:
    """Units one by one; the system is told of those that come next."""
    for index, unit in enumerate(units):
        for later in units[index + n_ahead : index + n_ahead + 1]:
            span = (later.start, min(later.stop, later.start + _HINT_ELEMENTS))
            sources.hint(models_of(later.task.op), later.task.key, span, wanted=True)
        yield unit


def _work(feed: Iterator[Unit], worker: Worker, progress: Progress) -> None:
    for unit in feed:
        progress.check()
        _run_unit(worker, unit)


def _run_unit(worker: Worker, unit: Unit) -> None:
    import torch

    try:
        worker.run(unit)
    except (MemoryError, torch.cuda.OutOfMemoryError) as fault:
        raise MemoryLimitError(
            f"Out of memory at '{unit.task.key}'; give a smaller --memory, or compute "
            "on another --device."
        ) from fault


class _Crew:
    """Threads that share one feed of units; the first fault stops all of them."""

    def __init__(
        self,
        feed: Iterator[Unit],
        job: Job,
        progress: Progress,
    ) -> None:
        self._feed = feed
        self._job = job
        self._progress = progress
        self._lock = threading.Lock()
        self._is_stopped = threading.Event()
        self._n_single = threading.Semaphore(0)

    def run(self, n_threads: int) -> None:
        """Work until the feed is empty; raises the first fault of any thread."""
        import torch

        n_before = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(n_threads, thread_name_prefix="merge") as pool:
                futures = [pool.submit(self._loop) for _ in range(n_threads)]
                self._await(futures, n_before)
        finally:
            torch.set_num_threads(n_before)
        for future in futures:
            future.result()

    def _await(self, futures: Sequence[Future[None]], n_before: int) -> None:
        import torch

        try:
            for _ in futures:
                self._n_single.acquire()
            # Threads that others start from now on get their usual number again.
            torch.set_num_threads(n_before)
            # Waiting in short steps lets Ctrl-C through on every system.
            while wait(futures, timeout=_POLL_S).not_done:
                pass
        finally:
            self._is_stopped.set()

    def _loop(self) -> None:
        import torch

        # Each of our threads computes alone. The setting sticks to this thread, once
        # it was read (torch reads the common one at a thread's first use).
        torch.get_num_threads()
        torch.set_num_threads(1)
        self._n_single.release()
        try:
            _work(self._next_units(), Worker(self._job), self._progress)
        finally:
            # Either the feed is empty or something failed: nobody needs more units.
            self._is_stopped.set()

    def _next_units(self) -> Iterator[Unit]:
        while not self._is_stopped.is_set():
            with self._lock:
                unit = next(self._feed, None)
            if unit is None:
                return
            yield unit
