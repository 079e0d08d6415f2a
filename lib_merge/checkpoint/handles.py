"""Many files open for reading with a bounded number of handles."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib_merge.checkpoint._positional import PositionalFile
from lib_merge.checkpoint.header import FileState, file_state
from lib_merge.errors import CheckpointError

_MOST = 512


def handle_limit() -> int:
    """Handles that models may take: half of what the system gives this process."""
    try:
        import resource
    except ImportError:  # Windows, which allows thousands
        return _MOST
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return _MOST
    return max(4, min(_MOST, soft // 2))


def memory_bytes() -> int:
    """The machine's memory, or a guess where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 << 30


class Handles:
    """Open files, the least recently used of which are closed when there are too many.

    Safe from any thread; a file in use is never closed under its user.

    Args:
        limit: Most files open at once; None asks the system.
        is_in_order: Whether each file is read from front to back: the system then reads
            farther ahead, which for many files at a time is twice as fast.
        is_once: Whether each file is read once and is too large to be worth keeping in
            the system's page cache.
    """

    def __init__(
        self,
        limit: int | None = None,
        *,
        is_in_order: bool = False,
        is_once: bool = False,
    ) -> None:
        self._limit = limit or handle_limit()
        self._is_in_order = is_in_order
        self._is_once = is_once
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, PositionalFile] = OrderedDict()
        self._users: dict[Path, int] = {}

    @contextmanager
    def use(self, path: Path, state: FileState) -> Iterator[PositionalFile]:
        """An open file, for the time of the context.

        Args:
            path: The file.
            state: What it was when its header was read.

        Raises:
            CheckpointError: It is gone, cannot be opened, or has changed since.
        """
        with self._lock:
            file = self._open.get(path)
            if file is None:
                file = self._opened(path, state)
            self._open.move_to_end(path)
            self._users[path] = self._users.get(path, 0) + 1
        try:
            yield file
        finally:
            with self._lock:
                self._users[path] -= 1
                self._close_surplus()

    def _opened(self, path: Path, state: FileState) -> PositionalFile:
        if file_state(path) != state:
            raise CheckpointError(
                f"{path} changed while it was in use; start again when it is complete."
            )
        try:
            file = PositionalFile(path)
        except OSError as fault:
            raise CheckpointError(
                f"{path} cannot be opened ({fault.strerror}); check that it is still "
                "there and may be read."
            ) from fault
        if self._is_in_order:
            file.reads_in_order()
        if self._is_once:
            file.reads_once()
        self._open[path] = file
        return file

    def _close_surplus(self) -> None:
        for path in list(self._open):
            if len(self._open) <= self._limit:
                return
            if not self._users.get(path):
                self._open.pop(path).close()
                self._users.pop(path, None)

    @property
    def n_open(self) -> int:
        """Files open now."""
        return len(self._open)

    def close(self, path: Path) -> None:
        """Close one file that nobody uses; safe to call twice."""
        with self._lock:
            file = self._open.pop(path, None)
            self._users.pop(path, None)
        if file is not None:
            file.close()
