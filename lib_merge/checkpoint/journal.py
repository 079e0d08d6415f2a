"""What of a growing file is on the disk for good, so that a killed save goes on.

A journal lies beside the partial file. A part is noted in it only after it was synced,
so that what it says holds after a crash of the process or of the machine.
"""

from __future__ import annotations

import glob
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SUFFIX = ".journal"
STALE_S = 60.0
"""A partial file that nobody has written to for so long may be a killed process's."""

Span = tuple[int, int]
"""Values [start, stop) of a flattened tensor."""


@dataclass(frozen=True)
class Partial:
    """A partial file whose process is gone, and what it holds for good.

    Attributes:
        path: The partial file.
        done: Finished values by key, merged and in order.
    """

    path: Path
    done: Mapping[str, tuple[Span, ...]]


class Journal:
    """Notes finished parts of a pending file, every few seconds; safe from any thread.

    Args:
        partial: The pending file's path.
        signature: Equal for saves that produce the same bytes.
        sync: Waits until what was written so far is on the disk.
        done: What an earlier process had finished.
        interval_s: Least time between two entries. A save that is shorter than this
            costs nothing and leaves nothing to go on from.
    """

    def __init__(
        self,
        partial: Path,
        signature: str,
        sync: Callable[[], None],
        *,
        done: Mapping[str, Sequence[Span]] | None = None,
        interval_s: float = 5.0,
    ) -> None:
        self.path = journal_of(partial)
        self.done = {key: tuple(spans) for key, spans in (done or {}).items()}
        self._signature = signature
        self._sync = sync
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._waiting: list[tuple[str, int, int]] = []
        self._last = time.monotonic()
        self._is_begun = False

    def mark(self, key: str, start: int, stop: int) -> None:
        """Say that values [start, stop) of a tensor were written."""
        with self._lock:
            self._waiting.append((key, start, stop))
            is_due = time.monotonic() - self._last >= self._interval_s
        # One thread syncs, the others go on working.
        if is_due and self._writing.acquire(blocking=False):
            try:
                self.flush()
            finally:
                self._writing.release()

    def flush(self) -> None:
        """Sync the file and note what was finished before."""
        with self._lock:
            finished, self._waiting = self._waiting, []
            self._last = time.monotonic()
        if not finished:
            return
        self._sync()
        lines = []
        if not self._is_begun:
            lines.append(json.dumps(self._head()))
            kept = [[key, *span] for key, spans in self.done.items() for span in spans]
            lines.append(json.dumps({"done": kept}))
            self._is_begun = True
        lines.append(json.dumps({"done": finished}))
        # A line that a crash cut short does not parse, and is not believed.
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())

    def _head(self) -> dict[str, object]:
        return {
            "version": 1,
            "signature": self._signature,
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }

    def missing(self, key: str, start: int, stop: int) -> Iterator[Span]:
        """Those parts of values [start, stop) that are not finished yet."""
        position = start
        for first, last in self.done.get(key, ()):
            if last <= position or first >= stop:
                continue
            if first > position:
                yield position, first
            position = min(last, stop)
        if position < stop:
            yield position, stop

    @property
    def n_done(self) -> int:
        """Values that an earlier process had finished."""
        return sum(b - a for spans in self.done.values() for a, b in spans)


def journal_of(partial: Path) -> Path:
    """Where a partial file's journal lies."""
    return partial.with_name(partial.name + SUFFIX)


def partial_files(target: Path) -> list[Path]:
    """Partial files of a target, whoever left them or works on them."""
    return sorted(target.parent.glob(f".{glob.escape(target.name)}.*-*.tmp"))


def find_partial(target: Path, signature: str, n_bytes: int) -> Partial | None:
    """What a killed save of the same merge left, if it can be gone on with.

    Args:
        target: What the file was to be called.
        signature: Of the merge.
        n_bytes: The file's final size.
    """
    for path in partial_files(target):
        with suppress(OSError):
            if path.stat().st_size == n_bytes and not is_in_use(path):
                done = _read_done(journal_of(path), signature)
                if done:
                    return Partial(path, done)
    return None


def _read_done(path: Path, signature: str) -> dict[str, tuple[Span, ...]]:
    """Finished values by key; empty where the journal is of another merge."""
    if not path.is_file():
        return {}
    head: object = None
    found: dict[str, list[Span]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            if head is None:
                head = entry
                if entry.get("version") != 1 or entry.get("signature") != signature:
                    return {}
            for key, start, stop in entry.get("done", ()):
                found.setdefault(str(key), []).append((int(start), int(stop)))
        except (ValueError, TypeError, AttributeError):
            break
    return {key: tuple(_joined(spans)) for key, spans in found.items()}


def _joined(spans: list[Span]) -> Iterator[Span]:
    first, last = -1, -1
    for start, stop in sorted(spans):
        if start > last:
            if last > first:
                yield first, last
            first, last = start, stop
        last = max(last, stop)
    if last > first:
        yield first, last


def is_in_use(partial: Path) -> bool:
    """Whether a process may still be at work on a partial file.

    The process that its name or journal tells of is asked after where that is possible:
    on this machine, and not on Windows. Elsewhere the file's age decides.

    Raises:
        OSError: It is gone.
    """
    age_s = time.time() - _last_change(partial)
    host = _host_of(journal_of(partial))
    pid = partial.name.split(".")[-2].partition("-")[0]
    if os.name == "nt" or not pid.isdigit():
        return age_s <= STALE_S
    if host is None:
        # Another machine may be at work on a shared disk; the age keeps its file safe.
        return age_s <= STALE_S or _is_running(int(pid))
    if host != socket.gethostname():
        return age_s <= STALE_S
    return _is_running(int(pid))


def _last_change(partial: Path) -> float:
    changed = partial.stat().st_mtime
    with suppress(OSError):
        changed = max(changed, journal_of(partial).stat().st_mtime)
    return changed


def _host_of(journal: Path) -> str | None:
    try:
        with journal.open(encoding="utf-8") as file:
            host = json.loads(file.readline()).get("host")
    except (OSError, ValueError, AttributeError):
        return None
    return host if isinstance(host, str) else None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def remove_leftovers(target: Path) -> None:
    """Remove partial files of this target whose process was killed."""
    for path in partial_files(target):
        with suppress(OSError):
            if not is_in_use(path):
                remove_partial(path)


def remove_partial(path: Path) -> None:
    """Remove a partial file with its journal, which means nothing without it."""
    journal_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
