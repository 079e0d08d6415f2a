"""Hashes a file while it is being written, in any order, by following what is there."""

from __future__ import annotations

import hashlib
import heapq
import threading
from collections.abc import Callable

_BLOCK_BYTES = 1 << 20


class StreamHash:
    """SHA-256 of a growing file, computed in a thread of its own.

    It reads back what was written, up to the first byte that is still missing, so the
    hash is that of the file and not of what was meant to be in it.

    Args:
        read_into: (offset, buffer) -> bytes read, of the file being written.
        n_bytes: Its final size.
    """

    def __init__(
        self, read_into: Callable[[int, memoryview], int], n_bytes: int
    ) -> None:
        self._read_into = read_into
        self._n_bytes = n_bytes
        self._frontier = 0
        self._waiting: list[tuple[int, int]] = []
        self._changed = threading.Condition()
        self._is_stopped = False
        self._digest = hashlib.sha256()
        self._thread = threading.Thread(
            target=self._follow, name="merge-hash", daemon=True
        )
        self._thread.start()

    def mark(self, start: int, end: int) -> None:
        """Say that bytes [start, end) are written; safe from any thread."""
        with self._changed:
            heapq.heappush(self._waiting, (start, end))
            moved = False
            while self._waiting and self._waiting[0][0] <= self._frontier:
                self._frontier = max(self._frontier, heapq.heappop(self._waiting)[1])
                moved = True
            if moved:
                self._changed.notify()

    def stop(self) -> None:
        """Give up; safe to call at any time."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        self._thread.join()

    def result(self) -> str | None:
        """Wait for the whole file; 64 hex digits, or None if it was never whole."""
        while self._thread.is_alive():
            self._thread.join(0.1)
        return self._digest.hexdigest() if self._frontier >= self._n_bytes else None

    def _follow(self) -> None:
        buffer = memoryview(bytearray(_BLOCK_BYTES))
        position = 0
        while position < self._n_bytes:
            with self._changed:
                # Whole blocks only, but for the last: fewer and cheaper reads.
                wanted = min(position + _BLOCK_BYTES, self._n_bytes)
                while self._frontier < wanted and not self._is_stopped:
                    self._changed.wait()
                if self._is_stopped:
                    return
            n_read = self._read_into(position, buffer[: wanted - position])
            if n_read == 0:
                return
            self._digest.update(buffer[:n_read])
            position += n_read
