"""The estimate: what a study will take, from one timed picture."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib_merge.autombw._files import read_json, write_json
from lib_merge.autombw.fidelity import cost
from lib_merge.autombw.objective import Objective
from lib_merge.autombw.settings import Shot, StudySettings, shots
from lib_merge.autombw.study import Study

FILE = "estimate.json"


@dataclass(frozen=True)
class Estimate:
    """What a study will take if no trial is given up early.

    Attributes:
        picture_s: The timed picture, rendered and scored.
        merge_s: Merging once.
        trial_s: A whole trial, from the costs of its pictures (pixels times steps).
        n_trials: Trials of the search.
        held_out_s: All candidates on held-out seeds.
        n_bytes: Of all pictures on the disk.
    """

    picture_s: float
    merge_s: float
    trial_s: float
    n_trials: int
    held_out_s: float
    n_bytes: int

    @property
    def total_s(self) -> float:
        """Search and held-out seeds together."""
        return self.n_trials * self.trial_s + self.held_out_s

    def sentence(self) -> str:
        """For people."""
        trials = f"{self.n_trials} trials of {time_words(self.trial_s)}"
        return (
            f"One picture takes {time_words(self.picture_s)} and a merge "
            f"{time_words(self.merge_s)}: {trials} and held-out seeds make "
            f"{time_words(self.total_s)} at most, and "
            f"{max(1, self.n_bytes >> 20)} MiB of pictures."
        )

    @classmethod
    def from_json(cls, data: Any) -> Estimate:
        """Read what `asdict` gave.

        Raises:
            TypeError: Fields are missing or unknown.
        """
        return cls(**data)


def time_words(seconds: float) -> str:
    """A time span for people."""
    if seconds < 90:
        return f"{seconds:.2g} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def time_picture(objective: Objective, study: Study) -> Estimate:
    """Merge the first start point, render and score one picture, and store what it
    says of the whole study.

    Raises:
        MergeError: Whatever merging, rendering and scoring raise.
    """
    settings = study.settings
    shot = shots(settings)[0]
    folder = study.folder / "preflight"
    point = settings.start_points()[0].point
    started = time.monotonic()
    measured = objective.measure(point, [shot], folder)
    seconds = time.monotonic() - started - measured.merge_seconds
    n_bytes = (folder / shot.file).stat().st_size
    found = estimate(
        settings, shot, seconds, merge_s=measured.merge_seconds, n_bytes=n_bytes
    )
    write_json(study.folder / FILE, asdict(found))
    return found


def estimate(
    settings: StudySettings, shot: Shot, seconds: float, *, merge_s: float, n_bytes: int
) -> Estimate:
    """What one timed picture says of a study.

    Args:
        settings: The study's.
        shot: The picture.
        seconds: What it took.
        merge_s: What merging took.
        n_bytes: What it takes on the disk.
    """
    unit = cost(shot.request)
    n_pixels = shot.request.width * shot.request.height

    def weight(some: tuple[Shot, ...]) -> float:
        return math.fsum(cost(one.request) for one in some) / unit

    def size(some: tuple[Shot, ...]) -> float:
        pixels = sum(one.request.width * one.request.height for one in some)
        return n_bytes * pixels / n_pixels

    seen, held_out = shots(settings), shots(settings, is_held_out=True)
    n_candidates = settings.n_finalists + len(settings.space.baselines())
    return Estimate(
        picture_s=seconds,
        merge_s=merge_s,
        trial_s=seconds * weight(seen) + merge_s,
        n_trials=settings.n_trials,
        held_out_s=n_candidates * (seconds * weight(held_out) + merge_s),
        n_bytes=round(settings.n_trials * size(seen) + n_candidates * size(held_out)),
    )


def read_estimate(folder: Path) -> Estimate | None:
    """A study's stored estimate, or None."""
    try:
        return Estimate.from_json(read_json(folder / FILE))
    except (OSError, ValueError, TypeError):
        return None
