"""Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from lib_merge.engine.progress import JobProgress, ProgressSnapshot

_BAR_WIDTH = 28
_LINE_EVERY_S = 10.0


class _Display:
    """Draws snapshots; never more than one line on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._label = ""
        self._last_line = 0.0
        self._width = 0

    def show(self, snapshot: ProgressSnapshot) -> None:
        """Draw one."""
        if self._is_terminal:
            text = _bar(snapshot)
            padding = " " * max(0, self._width - len(text))
            self._width = len(text)
            self._stream.write(f"\r{text}{padding}")
            self._stream.flush()
            return
        now = time.monotonic()
        is_new = snapshot.label != self._label
        is_end = snapshot.done >= snapshot.total
        if is_new or is_end or now - self._last_line >= _LINE_EVERY_S:
            self._label, self._last_line = snapshot.label, now
            self._stream.write(_line(snapshot) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Leave the line of the bar."""
        if self._is_terminal and self._width:
            self._stream.write("\n")
            self._stream.flush()


class TerminalProgress(JobProgress):
    """A `JobProgress` that is drawn on a stream, stderr unless told otherwise."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._display = _Display(stream or sys.stderr)
        super().__init__(self._display.show)

    def close(self) -> None:
        """End the display."""
        self._display.close()


def format_amount(amount: float, unit: str) -> str:
    """An amount in words: bytes as kB, MB or GB, other units counted."""
    if unit != "B":
        return f"{amount:.0f} {unit}"
    for size, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if amount >= size:
            return f"{amount / size:.2f} {name}"
    return f"{amount:.0f} B"


def format_seconds(seconds: float) -> str:
    """A time as 0:07 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}"


def _tail(snapshot: ProgressSnapshot) -> str:
    done = format_amount(snapshot.done, snapshot.unit)
    total = format_amount(snapshot.total, snapshot.unit)
    parts = [f"{done} of {total}"]
    if snapshot.rate is not None:
        parts.append(f"{format_amount(snapshot.rate, snapshot.unit)}/s")
    if snapshot.eta_s is not None and snapshot.done < snapshot.total:
        parts.append(f"{format_seconds(snapshot.eta_s)} left")
    return ", ".join(parts)


def _bar(snapshot: ProgressSnapshot) -> str:
    n_full = int(snapshot.fraction * _BAR_WIDTH)
    bar = "#" * n_full + "-" * (_BAR_WIDTH - n_full)
    return f"{snapshot.label} [{bar}] {snapshot.fraction:4.0%}  {_tail(snapshot)}"


def _line(snapshot: ProgressSnapshot) -> str:
    return f"{snapshot.label}: {snapshot.fraction:.0%} ({_tail(snapshot)})"
