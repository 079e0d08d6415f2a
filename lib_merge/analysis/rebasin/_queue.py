"""Assignments that run in threads of their own while the next products are computed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from lib_merge.analysis.rebasin._assign import Scores, best_permutation
from lib_merge.analysis.rebasin.spec import PermutationSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_WORKERS = 16


@dataclass(frozen=True)
class _Entry:
    name: str
    scores: Scores | None
    n_bytes: int
    future: Future[NDArray[np.int64]]


class SolveQueue:
    """Solves assignments side by side and hands them out in the order they came.

    What comes out does not depend on how long each takes: the caller waits for those
    that the next one depends on. A context manager; leaving it hands out the rest.

    Args:
        spec: Whose structures are solved.
        limit_bytes: Memory of all that wait; a single one may need more.
        done: Gets name, scores (None where they were not needed) and the best choice.
    """

    def __init__(
        self,
        spec: PermutationSpec,
        limit_bytes: int,
        done: Callable[[str, Scores | None, NDArray[np.int64]], None],
    ) -> None:
        self._spec = spec
        self._limit_bytes = limit_bytes
        self._done = done
        self._entries: deque[_Entry] = deque()
        n_workers = min(MOST_WORKERS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(n_workers, thread_name_prefix="merge-assign")

    def wait_for(self, names: Collection[str]) -> None:
        """Hand out entries until none of these is left."""
        while any(entry.name in names for entry in self._entries):
            self._hand_out()

    def submit(self, name: str, scores: Scores) -> None:
        """Solve one, once there is room for it."""
        n_bytes = scores.n_bytes
        while self._entries and self._waiting_bytes() + n_bytes > self._limit_bytes:
            self._hand_out()
        structure = self._spec.permutations[name].structure
        future = self._pool.submit(best_permutation, structure, scores)
        self._entries.append(_Entry(name, scores, n_bytes, future))

    def submit_known(self, name: str, best: NDArray[np.int64]) -> None:
        """Take one that is solved already in its place of the order."""
        future: Future[NDArray[np.int64]] = Future()
        future.set_result(best)
        self._entries.append(_Entry(name, None, 0, future))

    def _waiting_bytes(self) -> int:
        return sum(entry.n_bytes for entry in self._entries)

    def _hand_out(self) -> None:
        entry = self._entries.popleft()
        self._done(entry.name, entry.scores, entry.future.result())

    def __enter__(self) -> SolveQueue:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            while fault is None and self._entries:
                self._hand_out()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
