"""Loading and downloading of scorers, shown on the study's board."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lib_merge.autombw._board import Board


class ScorerProgress:
    """Says on the board what a scorer is doing; satisfies the Progress port.

    Args:
        board: The study's board.
        gate: Waits while the study is paused; raises `Cancelled` when it is stopped.
    """

    def __init__(self, board: Board, gate: Callable[[], None]) -> None:
        self._board = board
        self._gate = gate
        self._lock = threading.Lock()
        self._label = ""
        self._total = self._done = self._shown = 0

    def start(self, label: str, total: int, unit: str = "B") -> None:
        """Show what begins."""
        with self._lock:
            self._label, self._total, self._done, self._shown = label, total, 0, 0
        self._board.say(message=f"{label}.")

    def advance(self, amount: int) -> None:
        """Show every whole percent."""
        with self._lock:
            self._done += amount
            percent = 100 * self._done // max(1, self._total)
            is_news, self._shown = percent > self._shown, max(percent, self._shown)
        if is_news:
            self._board.say(message=f"{self._label}: {percent} %.")

    def check(self) -> None:
        """Wait while paused.

        Raises:
            Cancelled: The study is stopped.
        """
        self._gate()
