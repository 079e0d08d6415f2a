"""The board: one snapshot that the study's thread writes and anybody reads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from lib_merge.autombw import snapshot as states
from lib_merge.autombw._files import write_json
from lib_merge.autombw._slots import SlotTable
from lib_merge.autombw.records import ImageScore
from lib_merge.autombw.snapshot import Snapshot
from lib_merge.autombw.space import BASELINES
from lib_merge.autombw.study import Study
from lib_merge.core.ports import Progress
from lib_merge.errors import DiskFullError

_log = logging.getLogger(__name__)

LIVE_EVERY_S = 0.5
"""How often other processes are told of what changes with every picture."""

Listener = Callable[[Snapshot], None]


class Board:
    """Keeps the snapshot of a running study.

    Args:
        study: The study.
        listener: Called with every new snapshot, in the study's thread.
        path: The file that other processes read it from, or None for the study's own.
    """

    def __init__(
        self,
        study: Study,
        listener: Listener | None = None,
        *,
        path: Path | None = None,
    ) -> None:
        self._study = study
        self._path = path or study.live_path
        self._written = -LIVE_EVERY_S
        self._listener = listener
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._busy_s = 0.0
        self._n_timed = 0
        self._clock = time.monotonic()
        self._n_left = 0
        settings = study.settings
        self._now = Snapshot(
            settings.name, n_trials=settings.n_trials, n_images=settings.n_images
        )

    def snapshot(self) -> Snapshot:
        """What the study is doing now."""
        with self._lock:
            return self._now

    def say(self, **changes: object) -> None:
        """Change fields of the snapshot, tell the listener and other processes."""
        with self._lock:
            self._now = self._now.with_changes(**changes)
            now = self._now
        is_news = "state" in changes or "message" in changes
        if is_news or time.monotonic() - self._written >= LIVE_EVERY_S:
            self._written = time.monotonic()
            try:
                write_json(self._path, now.to_json(), is_durable=False)
            except (OSError, DiskFullError) as fault:
                _log.warning("%s: %s", self._path, fault)
        if self._listener is not None:
            try:
                self._listener(now)
            except Exception:  # a display that fails is not worth a night's run
                _log.exception("A display of study '%s' failed.", now.name)

    def begin(self, progress: Progress | None, n_decided: int) -> None:
        """Count what is left: pictures of the search and of the finalists."""
        settings = self._study.settings
        n_slots = max(0, settings.n_trials - n_decided)
        n_candidates = settings.n_finalists + len(BASELINES)
        self._n_left = n_slots * settings.n_images
        self._n_left += n_candidates * settings.n_held_out_images
        self._progress = progress
        if progress is not None:
            progress.start(f"study {settings.name}", self._n_left, "images")

    def show_slots(self, table: SlotTable, n_workers: int = 1) -> None:
        """Show what is decided so far."""
        slots = table.decided()
        best = table.best()
        names = [label for label, _ in BASELINES]
        starts = [table.decision(n).record for n in range(len(table.starts))]
        baselines = [(r.label, r.score) for r in starts if r and r.label in names]
        self.say(
            trial=len(slots),
            scores=tuple(slot.score for slot in slots.values()),
            n_workers=n_workers,
            best_score=best.score if best else None,
            best_trial=best.number if best else None,
            best_label=best.label if best else "",
            baselines=tuple(baselines),
        )

    def show_search_again(self, state: str, message: str) -> None:
        """Count the search's points again, after the candidates."""
        self.say(
            state=state,
            message=message,
            trial=len(self.snapshot().scores),
            n_trials=self._study.settings.n_trials,
            eta_s=None,
        )

    def begin_trial(self, n_images: int, message: str) -> None:
        """An attempt, or a candidate, begins."""
        self._clock = time.monotonic()
        self.say(image=0, n_images=n_images, message=message)

    def show_image(self, path: Path, scored: ImageScore) -> None:
        """A picture was stored and scored."""
        now = time.monotonic()
        self._busy_s += now - self._clock
        self._clock = now
        self._n_timed += 1
        self._n_left = max(0, self._n_left - 1)
        if self._progress is not None:
            self._progress.advance(1)
        self.say(
            image=self.snapshot().image + 1,
            last_image=str(path),
            last_score=scored.score,
            eta_s=self._busy_s / self._n_timed * self._n_left,
        )

    def forget_images(self, n_images: int) -> None:
        """Pictures that will have to be made again."""
        self._n_left += n_images

    def on_pause(self) -> None:
        """Waiting begins."""
        self._state_before = self.snapshot().state
        self.say(state=states.PAUSED, message="Paused; your model is back.")

    def on_go(self) -> None:
        """Waiting ended."""
        self._clock = time.monotonic()
        self.say(state=self._state_before, message="Going on.")

    def check_progress(self) -> None:
        """Let whoever watches the progress stop the study.

        Raises:
            Cancelled: They asked for it.
        """
        if self._progress is not None:
            self._progress.check()
