"""Reads and writes at an offset, from several threads, on every operating system."""

from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path

HAS_POSITIONAL_IO = hasattr(os, "preadv") and hasattr(os, "pwrite")
"""Windows has no pread; there every access seeks under a lock instead."""

_DONT_CACHE = 0x80
"""RWF_DONTCACHE of Linux 6.14 and newer, for which `os` has no name yet: what is read
leaves the page cache at once, unless it was there before."""

_REFUSALS = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class PositionalFile:
    """A file opened once and read or written at offsets by any number of threads.

    Args:
        path: The file.
        is_new: Create it (it must not exist) and open it for reading and writing.
        is_writable: Open it for reading and writing; otherwise for reading only.
    """

    def __init__(
        self, path: Path, *, is_new: bool = False, is_writable: bool = False
    ) -> None:
        self.path = path
        flags = os.O_RDWR if is_new or is_writable else os.O_RDONLY
        flags |= os.O_CREAT | os.O_EXCL if is_new else 0
        flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        self._fd = os.open(path, flags, 0o666)
        self._lock = threading.Lock()
        self._is_open = True
        self._read_flags = 0

    def reads_once(self) -> None:
        """Keep what is read out of the system's page cache, where that is possible."""
        if sys.platform == "linux":
            self._read_flags = _DONT_CACHE

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill a buffer from an offset; returns how much there was."""
        done = 0
        while done < len(buffer):
            n_read = self._read_once(offset + done, buffer[done:])
            if n_read == 0:
                break
            done += n_read
        return done

    def _read_once(self, offset: int, buffer: memoryview) -> int:
        if HAS_POSITIONAL_IO:
            try:
                return os.preadv(self._fd, [buffer], offset, self._read_flags)
            except OSError as fault:
                if not self._read_flags or fault.errno not in _REFUSALS:
                    raise
                self._read_flags = 0  # An older system, or another file system.
                return os.preadv(self._fd, [buffer], offset)
        with self._lock:
            os.lseek(self._fd, offset, os.SEEK_SET)
            data = os.read(self._fd, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write_at(self, offset: int, data: memoryview | bytes) -> None:
        """Write all of the data at an offset."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            done += self._write_once(offset + done, view[done:])

    def _write_once(self, offset: int, data: memoryview) -> int:
        if HAS_POSITIONAL_IO:
            return os.pwrite(self._fd, data, offset)
        with self._lock:
            os.lseek(self._fd, offset, os.SEEK_SET)
            return os.write(self._fd, data)

    def will_read(self, offset: int, n_bytes: int) -> None:
        """Tell the system what comes next, so that it reads ahead; a hint only."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, offset, n_bytes, os.POSIX_FADV_WILLNEED)

    def reads_in_order(self) -> None:
        """Tell the system to read far ahead, as all is read in order; a hint only."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def was_read(self, offset: int, n_bytes: int) -> None:
        """Tell the system that it need not keep this in memory; a hint only."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, offset, n_bytes, os.POSIX_FADV_DONTNEED)

    def allocate(self, n_bytes: int) -> None:
        """Give the file its final size, on the disk where the system can do that.

        Raises:
            OSError: ENOSPC, before anything was written.
        """
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._fd, 0, n_bytes)
            except OSError as fault:
                if fault.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
        os.ftruncate(self._fd, n_bytes)

    def sync(self) -> None:
        """Wait until everything written is on the disk."""
        os.fsync(self._fd)

    def size(self) -> int:
        """Bytes in the file now."""
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        """Close it; safe to call twice."""
        if self._is_open:
            self._is_open = False
            os.close(self._fd)
