"""Snapshots: what a study is doing now, for a tab, a terminal or another process."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from typing import Any

NEW = "new"
STARTING = "starting"
RUNNING = "running"
HELD_OUT = "scoring finalists"
SAVING = "saving"
PAUSED = "paused"
STOPPED = "stopped"
COMPLETE = "complete"
FAILED = "failed"


@dataclass(frozen=True)
class Snapshot:
    """A study at one moment.

    Attributes:
        name: The study's name.
        state: new, starting, running, scoring finalists, saving, paused, stopped,
            complete or failed.
        trial: Points decided so far (or finalists scored, in that state).
        n_trials: Points asked for (or candidates, while scoring finalists).
        image: Pictures done of the trial in flight.
        n_images: Pictures a trial.
        scores: One a decided point, in order; None where it failed.
        best_score: Of the search, or None.
        best_trial: The best trial's number, or None.
        best_label: Its label, or "".
        baselines: (label, score) of A, B and uniform as far as scored.
        last_image: The last stored picture's path, or "".
        last_score: Its score, or None.
        eta_s: Seconds to the end, or None while unknown.
        n_failed: Attempts that failed in this run.
        n_workers: Workers that are at the study.
        message: One sentence for people.
        updated: Unix time, seconds.
    """

    name: str
    state: str = NEW
    trial: int = 0
    n_trials: int = 0
    image: int = 0
    n_images: int = 0
    scores: tuple[float | None, ...] = ()
    best_score: float | None = None
    best_trial: int | None = None
    best_label: str = ""
    baselines: tuple[tuple[str, float], ...] = ()
    last_image: str = ""
    last_score: float | None = None
    eta_s: float | None = None
    n_failed: int = 0
    n_workers: int = 1
    message: str = ""
    updated: float = 0.0

    def with_changes(self, **changes: Any) -> Snapshot:
        """The same with some fields replaced, and the time of now."""
        return replace(self, updated=time.time(), **changes)

    def to_json(self) -> dict[str, Any]:
        """A plain JSON object; `from_json` gives an equal snapshot back."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Snapshot:
        """Read what `to_json` wrote.

        Raises:
            TypeError: Fields are missing or unknown.
        """
        baselines = tuple((str(k), float(v)) for k, v in data["baselines"])
        scores = tuple(data["scores"])
        return cls(**{**data, "baselines": baselines, "scores": scores})
