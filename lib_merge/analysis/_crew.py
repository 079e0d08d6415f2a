"""Does work on a row of items in several threads and gives the results in order."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError, wait
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_POLL_S = 0.1
_MOST = 8


def default_threads() -> int:
    """Processors that this process may use, at most eight."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _MOST)
    return min(os.cpu_count() or 1, _MOST)


def n_ahead(n_threads: int) -> int:
    """Items that are under way or waiting at a time."""
    return 2 * n_threads + 1


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], n_threads: int
) -> Iterator[Result]:
    """The results of some items, in the items' order.

    Args:
        work: Called in one of the threads, in each of which torch computes alone.
        items: Taken shortly before they are needed.
        n_threads: How many.

    Raises:
        BaseException: The first fault of `work` in the items' order.
    """
    with _pool(n_threads) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= n_ahead(n_threads):
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def _pool(n_threads: int) -> Iterator[ThreadPoolExecutor]:
    import torch

    n_before = torch.get_num_threads()
    barrier = threading.Barrier(n_threads)
    with ThreadPoolExecutor(n_threads, thread_name_prefix="compare") as pool:
        try:
            wait([pool.submit(_settle, barrier) for _ in range(n_threads)])
        finally:
            # Threads that others start from now on get their usual number again.
            torch.set_num_threads(n_before)
        yield pool


def _settle(barrier: threading.Barrier) -> None:
    """Let torch use one thread in this one; it sticks, once the number was read."""
    import torch

    torch.get_num_threads()
    torch.set_num_threads(1)
    barrier.wait()


def _result(future: Future[Result]) -> Result:
    # Waiting in short steps lets Ctrl-C through on every system.
    while True:
        try:
            return future.result(timeout=_POLL_S)
        except TimeoutError:
            if future.done():
                return future.result()
