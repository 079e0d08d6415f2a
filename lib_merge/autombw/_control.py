"""Pause, resume and stop from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lib_merge.errors import Cancelled


class Control:
    """What a study's thread asks between pictures."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._go = threading.Event()
        self._go.set()

    def pause(self) -> None:
        """Ask to wait after the picture that is being rendered."""
        self._go.clear()

    def resume(self) -> None:
        """Go on."""
        self._go.set()

    def stop(self) -> None:
        """Ask to stop after the picture that is being rendered."""
        self._stop.set()
        self._go.set()

    @property
    def is_pausing(self) -> bool:
        """Whether `gate` would wait."""
        return not self._go.is_set()

    @property
    def is_stopping(self) -> bool:
        """Whether `gate` would raise."""
        return self._stop.is_set()

    def gate(self, *, on_pause: Callable[[], None], on_go: Callable[[], None]) -> None:
        """Pass, wait while paused, or raise.

        Args:
            on_pause: Called once when waiting begins.
            on_go: Called once when it ends.

        Raises:
            Cancelled: Stopping was asked for.
        """
        if self.is_pausing and not self.is_stopping:
            on_pause()
            self._go.wait()
            on_go()
        if self.is_stopping:
            raise Cancelled("The study was stopped; resume it when you like.")
