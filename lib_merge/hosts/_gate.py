"""The host's queue lock and, on the Forges, its main thread; always in that order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from lib_merge.errors import HostError

T = TypeVar("T")


class Gate:
    """One job at a time on the host's model.

    Args:
        lock: The host's `queue_lock`: first come first served, and not re-entrant.
        main_thread: The Forges' `modules_forge.main_thread`, or None.
    """

    def __init__(self, lock: Any, main_thread: Any = None) -> None:
        self._lock = lock
        self._main_thread = main_thread
        self._owner: int | None = None
        self._guest = threading.local()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Work inside a job of the host's own, which holds the lock already.

        Only for threads that the host has called in the middle of its job: it cannot
        be checked, and without the host's lock the model would be open to all.
        """
        was_inside = getattr(self._guest, "is_inside", False)
        self._guest.is_inside = True
        try:
            yield
        finally:
            self._guest.is_inside = was_inside

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lock.

        Raises:
            HostError: This thread holds it already, and would wait for itself for ever.
        """
        if getattr(self._guest, "is_inside", False):
            yield
            return
        if self._owner == threading.get_ident():
            raise HostError(
                "The model is open in this very thread; close the edit before "
                "rendering, loading or editing again."
            )
        with self._lock:
            self._owner = threading.get_ident()
            try:
                yield
            finally:
                self._owner = None

    def run(self, job: Callable[[], T]) -> T:
        """Run a job under the lock, on the main thread where the host has one.

        The main thread prints a task's exception and answers None, so result and
        exception travel in a box of our own.
        """
        with self.hold():
            return self._on_main_thread(job)

    def _on_main_thread(self, job: Callable[[], T]) -> T:
        is_main = threading.current_thread() is threading.main_thread()
        if self._main_thread is None or is_main:
            return job()
        results: list[T] = []
        faults: list[BaseException] = []

        def boxed() -> None:
            try:
                results.append(job())
            except BaseException as fault:
                # Also what is no Exception: it would end the host's main loop.
                faults.append(fault)

        self._main_thread.run_and_wait_result(boxed)
        if faults:
            raise faults[0]
        if not results:
            raise HostError("The host's main thread dropped the job; restart the host.")
        return results[0]
