"""How far a job is, how fast it goes, and whether the user wants it stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from lib_merge.errors import Cancelled

_RATE_WINDOW_S = 10.0
"""Rates look back this far, so that a slow start does not spoil the estimate."""


@dataclass(frozen=True)
class ProgressSnapshot:
    """The state of a job at one moment.

    Attributes:
        label: What is being done.
        unit: What is counted: "B" for bytes, else a plural word.
        done: Units done in this phase.
        total: Units of this phase.
        elapsed_s: Since the phase began.
        rate: Units a second lately, or None while nothing is known.
        eta_s: Seconds to the end of the phase, or None while nothing is known.
    """

    label: str
    unit: str
    done: int
    total: int
    elapsed_s: float
    rate: float | None
    eta_s: float | None

    @property
    def fraction(self) -> float:
        """Between 0 and 1; 1 for a phase without units."""
        return min(1.0, self.done / self.total) if self.total > 0 else 1.0


class NullProgress:
    """Reports to nobody and never stops."""

    def start(self, label: str, total: int, unit: str = "B") -> None:
        """Ignore a phase."""

    def advance(self, amount: int) -> None:
        """Ignore an amount."""

    def check(self) -> None:
        """Go on."""


class JobProgress:
    """The progress of one job; every method is safe from any thread.

    Args:
        callback: Called with a snapshot after every start and advance, at most once
            in `min_interval_s`; in the thread that advanced, so it must be quick.
        min_interval_s: Least time between two calls.
    """

    def __init__(
        self,
        callback: Callable[[ProgressSnapshot], None] | None = None,
        *,
        min_interval_s: float = 0.1,
    ) -> None:
        self._callback = callback
        self._min_interval_s = min_interval_s
        self._lock = threading.Lock()
        self._is_cancelled = threading.Event()
        self._label = ""
        self._unit = "B"
        self._done = 0
        self._total = 0
        self._started = time.monotonic()
        self._last_call = 0.0
        self._marks: list[tuple[float, int]] = []

    def start(self, label: str, total: int, unit: str = "B") -> None:
        """Begin a phase of `total` units."""
        with self._lock:
            self._label, self._unit = label, unit
            self._done, self._total = 0, total
            self._started = time.monotonic()
            self._marks = [(self._started, 0)]
            self._last_call = self._started
        self._report()

    def advance(self, amount: int) -> None:
        """Say that this much more is done."""
        with self._lock:
            self._done += amount
            now = time.monotonic()
            is_end = self._done >= self._total
            if now - self._last_call < self._min_interval_s and not is_end:
                return
            self._last_call = now
            self._marks.append((now, self._done))
            while len(self._marks) > 2 and now - self._marks[1][0] > _RATE_WINDOW_S:
                self._marks.pop(0)
        self._report()

    def _report(self) -> None:
        if self._callback is not None:
            self._callback(self.snapshot())

    def cancel(self) -> None:
        """Ask the job to stop at its next check."""
        self._is_cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody asked it to stop."""
        return self._is_cancelled.is_set()

    def check(self) -> None:
        """Stop here if the user asked for it.

        Raises:
            Cancelled: `cancel` was called.
        """
        if self._is_cancelled.is_set():
            label = self._label or "The job"
            raise Cancelled(f"{label}: stopped as asked; nothing was left behind.")

    def snapshot(self) -> ProgressSnapshot:
        """How it stands now."""
        with self._lock:
            now = time.monotonic()
            then, done_then = self._marks[0] if self._marks else (now, 0)
            span = now - then
            gained = self._done - done_then
            rate = gained / span if span > 0 and gained > 0 else None
            left = max(0, self._total - self._done)
            return ProgressSnapshot(
                label=self._label,
                unit=self._unit,
                done=self._done,
                total=self._total,
                elapsed_s=now - self._started,
                rate=rate,
                eta_s=left / rate if rate else None,
            )
