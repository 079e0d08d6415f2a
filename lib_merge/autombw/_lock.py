"""Lock files that the system frees when their holder dies."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from lib_merge.errors import StudyError


class StudyLock:
    """Held while a study runs; the system frees it when the process dies.

    Args:
        path: The lock file; it stays behind, only the system's lock on it counts.
        name: The study's name, for the message.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._file: IO[bytes] | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            StudyError: Another process, or another runner in this one, holds it.
        """
        file = self._path.open("a+b")
        try:
            _lock_soon(file)
        except OSError as fault:
            file.close()
            raise StudyError(
                f"Study '{self._name}' is being run by another process"
                f"{_owner(self._path)}; stop that one, or wait until it ends."
            ) from fault
        file.seek(0)
        file.truncate()
        file.write(b" %d" % os.getpid())  # byte 0 is what Windows locks
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._file is not None:
            _unlock(self._file)
            self._file.close()
            self._file = None

    def __enter__(self) -> StudyLock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class WaitingLock:
    """A lock that is waited for: held for moments, by threads and processes.

    Args:
        path: The lock file; it stays behind, only the system's lock on it counts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mine = threading.local()

    def acquire(self) -> None:
        """Wait until it is ours."""
        file = self._path.open("a+b")
        pause_s = 0.001
        while True:
            try:
                _lock(file)
                break
            except OSError:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 0.05)
        self._mine.file = file

    def release(self) -> None:
        """Give it back."""
        _unlock(self._mine.file)
        self._mine.file.close()
        del self._mine.file


def _lock_soon(file: IO[bytes]) -> None:
    """Take the lock, with a second's patience for an `is_locked` that looks at it."""
    for _ in range(20):
        try:
            return _lock(file)
        except OSError:
            time.sleep(0.05)
    return _lock(file)


def is_locked(path: Path) -> bool:
    """Whether some process holds this lock file now."""
    try:
        file = path.open("r+b")
    except OSError:
        return False
    with file:
        try:
            _lock(file)
        except OSError:
            return True
        _unlock(file)
    return False


def _owner(path: Path) -> str:
    try:
        return f" (process {int(path.read_bytes()[1:])})"
    except (OSError, ValueError):
        return ""


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

    def _unlock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: IO[bytes]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)
