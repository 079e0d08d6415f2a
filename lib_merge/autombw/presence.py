"""Presence: which workers of a study are alive, so that a dead one's work is redone.

On one machine a worker holds a lock file, which the system frees the moment it dies.
Across machines it counts up in the storage, and a count that stands still is a death.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol

from lib_merge.autombw._lock import StudyLock, is_locked
from lib_merge.autombw.ledger import Ledger
from lib_merge.errors import MergeError

_log = logging.getLogger(__name__)

BEAT_S = 10.0
"""How often a worker counts up."""

DEAD_AFTER_S = 60.0
"""A count that stood still for so long, by our own clock, belongs to a dead worker."""


def new_worker_id() -> str:
    """A name that no other worker has: machine, process, and a few random digits."""
    host = re.sub(r"[^\w-]+", "-", socket.gethostname())[:40] or "machine"
    return f"{host}-{os.getpid()}-{secrets.token_hex(2)}"


class Presence(Protocol):
    """Shows that this worker is alive, and says which others are."""

    def __enter__(self) -> Presence: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def is_alive(self, worker: str) -> bool:
        """Whether a worker lives, as far as can be told."""
        ...

    def others(self) -> tuple[str, ...]:
        """The other workers that are alive."""
        ...


class LockPresence:
    """A lock file a worker, in the study's folder.

    Args:
        folder: The workers' folder.
        worker: This worker.
    """

    def __init__(self, folder: Path, worker: str) -> None:
        self._folder = folder
        self._worker = worker
        self._lock = StudyLock(folder / f"{worker}.lock", worker)

    def __enter__(self) -> LockPresence:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        remove_dead(self._folder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()
        _forget(self._folder, self._worker)

    def is_alive(self, worker: str) -> bool:
        """Whether its lock file is held."""
        return bool(worker) and (
            worker == self._worker or is_locked(self._folder / f"{worker}.lock")
        )

    def others(self) -> tuple[str, ...]:
        """Every other held lock file's worker."""
        return tuple(w for w in living(self._folder) if w != self._worker)


def living(folder: Path) -> tuple[str, ...]:
    """The workers whose lock files in this folder are held."""
    paths = sorted(folder.glob("*.lock"))
    return tuple(path.stem for path in paths if is_locked(path))


def dead(folder: Path) -> tuple[str, ...]:
    """The workers whose lock files in this folder are left over."""
    paths = sorted(folder.glob("*.lock"))
    return tuple(path.stem for path in paths if not is_locked(path))


def remove_dead(folder: Path) -> None:
    """Delete what dead workers left in the workers' folder."""
    for worker in dead(folder):
        _forget(folder, worker)


def _forget(folder: Path, worker: str) -> None:
    for suffix in (".lock", ".json"):
        with suppress(OSError):
            (folder / f"{worker}{suffix}").unlink()


class BeatPresence:
    """A count in the storage that goes up while the worker lives.

    Args:
        ledger: Where it counts.
        folder: Lock files of the workers that share this machine's folder.
        worker: This worker.
        beat_s: Seconds between counts.
        dead_after_s: Seconds without a count that mean death.
    """

    def __init__(
        self,
        ledger: Ledger,
        folder: Path,
        worker: str,
        *,
        beat_s: float | None = None,
        dead_after_s: float | None = None,
    ) -> None:
        self._ledger = ledger
        self._folder = folder
        self._here = LockPresence(folder, worker)
        self._worker = worker
        self._beat_s = BEAT_S if beat_s is None else beat_s
        self._dead_after_s = DEAD_AFTER_S if dead_after_s is None else dead_after_s
        self._seen: dict[str, tuple[int, float]] = {}
        self._count = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> BeatPresence:
        for worker in dead(self._folder):
            self._ledger.set_number(_key(worker), 0)
        self._here.__enter__()
        self._count = 1
        self._ledger.set_number(_key(self._worker), self._count)
        name = f"autombw-beat-{self._worker}"
        self._thread = threading.Thread(target=self._beat, name=name, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(MergeError):
            self._ledger.set_number(_key(self._worker), 0)
        self._here.__exit__(kind, fault, trace)

    def _beat(self) -> None:
        while not self._stop.wait(self._beat_s):
            self._count += 1
            try:
                self._ledger.set_number(_key(self._worker), self._count)
            except MergeError as fault:
                _log.warning("This worker could not show that it lives: %s", fault)

    def is_alive(self, worker: str) -> bool:
        """Whether its count went up lately; one seen for the first time is given time.

        A count of 0 is a worker that ended and said so.
        """
        if worker == self._worker:
            return True
        count = self._ledger.numbers().get(_key(worker), 0)
        return self._lives(worker, count)

    def others(self) -> tuple[str, ...]:
        """Every other worker whose count goes up."""
        counts = self._ledger.numbers()
        found = [key.removeprefix(_PREFIX) for key in counts if key.startswith(_PREFIX)]
        return tuple(
            worker
            for worker in sorted(found)
            if worker != self._worker and self._lives(worker, counts[_key(worker)])
        )

    def _lives(self, worker: str, count: int) -> bool:
        lock = self._folder / f"{worker}.lock"
        if lock.exists() and not is_locked(lock):
            return False  # it was killed on this machine, and never said so
        now = time.monotonic()
        last, since = self._seen.get(worker, (-1, now))
        if count != last:
            since = now
        self._seen[worker] = (count, since)
        return count > 0 and now - since < self._dead_after_s


_PREFIX = "beat:"


def _key(worker: str) -> str:
    return f"{_PREFIX}{worker}"
