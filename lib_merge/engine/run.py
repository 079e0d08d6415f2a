"""Runs a plan: reads, computes and writes key by key within a budget of memory."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from lib_merge.checkpoint.reader import torch_dtype
from lib_merge.core.plan import KeyTask, MergeOp, Plan, models_of
from lib_merge.core.ports import Progress, Sink
from lib_merge.engine._compute import NonFiniteInputs, Sizes, Unit, Worker
from lib_merge.engine.progress import NullProgress
from lib_merge.engine.sources import Sources
from lib_merge.errors import InputError, MemoryLimitError

_CPU_SIZES = Sizes(chunk=1 << 19, tile=1 << 17)
_SMALL_TILE = 32640
"""Below 32768 elements torch starts no threads of its own, whatever it is set to."""

_DEVICE_SIZES = Sizes(chunk=1 << 22, tile=1 << 22)
_MIN_CHUNK = 1 << 12
_MAX_THREADS = 8
_SMALL_BYTES = 32 << 20
"""Outputs below this are made in the calling thread: handing over costs more."""

_POLL_S = 0.1


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
        non_finite_keys: Keys in which a model itself holds NaN or infinity.
    """

    seconds: float
    bytes_read: int
    bytes_written: int
    n_merged: int
    n_copied: int
    n_threads: int
    non_finite_keys: tuple[str, ...] = ()


def run_plan(
    plan: Plan,
    sink: Sink,
    options: RunOptions | None = None,
    progress: Progress | None = None,
    *,
    sources: Sources | None = None,
) -> RunReport:
    """Compute every tensor of a plan and hand it to a sink.

    Args:
        plan: From `plan_recipe`.
        sink: A file being written or a model in memory; called from several threads.
        options: Memory, threads and device.
        progress: Advanced by bytes of output; asked once a chunk whether to stop.
        sources: Models to read from that outlive this run (their cache serves the
            next); opened for the plan's recipe by this call.

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
    _check_device(options.device)
    own = Sources() if sources is None else sources
    try:
        own.open(plan.recipe)
        n_read_before = own.n_read
        n_threads, sizes = _shape_of_work(plan, options)
        non_finite = NonFiniteInputs()

        def new_worker() -> Worker:
            return Worker(
                own,
                sink,
                sizes=sizes,
                compute_dtype=torch_dtype(plan.recipe.compute_dtype),
                device=options.device,
                non_finite=non_finite,
            )

        _run_units(_units(plan.tasks, sizes.chunk), new_worker, n_threads, progress)
        n_read = own.n_read - n_read_before
    finally:
        if sources is None:
            own.close()
    n_merged = sum(isinstance(task.op, MergeOp) for task in plan.tasks)
    return RunReport(
        seconds=time.monotonic() - began,
        bytes_read=n_read,
        bytes_written=plan.n_bytes_out,
        n_merged=n_merged,
        n_copied=len(plan.tasks) - n_merged,
        n_threads=n_threads,
        non_finite_keys=non_finite.keys(),
    )


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as fault:
        first_line = str(fault).splitlines()[0]
        raise InputError(
            f"Device '{device}' cannot be used ({first_line}); use cpu, or cuda:0 "
            "where torch has CUDA."
        ) from fault


def _shape_of_work(plan: Plan, options: RunOptions) -> tuple[int, Sizes]:
    """Threads and buffer sizes that keep to the budget."""
    is_cpu = options.device == "cpu"
    base = _CPU_SIZES if is_cpu else _DEVICE_SIZES
    n_models = max((len(models_of(task.op)) for task in plan.tasks), default=1)
    n_threads = options.n_threads or _n_threads(plan, is_cpu=is_cpu)
    chunk = options.chunk_elements or base.chunk
    tile = _SMALL_TILE if is_cpu and n_threads == 1 else base.tile
    sizes = Sizes(chunk, min(chunk, tile))
    while sizes.worker_bytes(n_models) * n_threads > options.budget_bytes:
        if sizes.chunk > _MIN_CHUNK:
            chunk = sizes.chunk // 2
            sizes = Sizes(chunk, min(chunk, tile))
        elif n_threads > 1:
            n_threads -= 1
        else:
            needed = sizes.worker_bytes(n_models) / 1e6
            raise InputError(
                f"A memory budget of {options.budget_bytes / 1e6:.2f} MB is too small "
                f"for {n_models} models; give at least {needed:.1f} MB (--memory)."
            )
    return n_threads, sizes


def _n_threads(plan: Plan, *, is_cpu: bool) -> int:
    if plan.n_bytes_out < _SMALL_BYTES:
        return 1
    return _n_cpus() if is_cpu else 2


def _n_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    return min(available, _MAX_THREADS)


def _units(tasks: Sequence[KeyTask], chunk: int) -> list[Unit]:
    return [
        Unit(task, start, min(start + chunk, task.n_elements))
        for task in tasks
        for start in range(0, task.n_elements, chunk)
    ]


def _run_units(
    units: Sequence[Unit],
    new_worker: Callable[[], Worker],
    n_threads: int,
    progress: Progress,
) -> None:
    feed = iter(units)
    if n_threads == 1 or len(units) == 1:
        _work(feed, new_worker(), progress)
        return
    crew = _Crew(feed, new_worker, progress)
    crew.run(n_threads)


def _work(feed: Iterator[Unit], worker: Worker, progress: Progress) -> None:
    for unit in feed:
        progress.check()
        _run_unit(worker, unit)
        progress.advance((unit.stop - unit.start) * unit.task.dtype.size)


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
        new_worker: Callable[[], Worker],
        progress: Progress,
    ) -> None:
        self._feed = feed
        self._new_worker = new_worker
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
            _work(self._next_units(), self._new_worker(), self._progress)
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
