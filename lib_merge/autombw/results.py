"""Results: what the held-out seeds say of the finalists, the parents and the middle."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lib_merge.autombw.intervals import (
    ARITHMETIC,
    Interval,
    paired_interval,
    paired_scores,
    score_interval,
)
from lib_merge.autombw.records import ImageScore


@dataclass(frozen=True)
class Candidate:
    """One model on held-out seeds.

    Attributes:
        label: "trial 17", "A", "B" or "uniform".
        number: The trial's number, or None for a baseline that is no finalist.
        point: Its block values.
        search_score: What the search scored it, or None when it was no trial.
        score: The tally of its held-out pictures.
        images: The pictures, in the same order for every candidate (paired).
    """

    label: str
    number: int | None
    point: dict[str, float]
    search_score: float | None
    score: float
    images: tuple[ImageScore, ...]

    @property
    def scores(self) -> tuple[float, ...]:
        """The score of every picture."""
        return tuple(image.score for image in self.images)

    @property
    def mean(self) -> float:
        """The plain mean of the scores."""
        return statistics.fmean(self.scores)

    @property
    def standard_error(self) -> float | None:
        """Of the mean over pictures; None for a single picture."""
        return standard_error(self.scores)

    def interval(self, tally_id: str = ARITHMETIC) -> Interval:
        """Its score and where it may lie."""
        return score_interval(self.scores, tally_id)

    @property
    def is_finalist(self) -> bool:
        """Whether it came out of the search, so that it can win."""
        return self.number is not None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Candidate:
        """Read what `asdict` gave."""
        images = tuple(ImageScore.from_json(image) for image in data["images"])
        return cls(**{**data, "images": images})


@dataclass(frozen=True)
class Difference:
    """Winner minus a rival, picture by picture.

    Attributes:
        rival: The rival's label.
        mean: Mean difference of the scores.
        standard_error: Of that mean; None for a single picture.
        n_images: How many pairs.
        n_better: Pairs in which the winner scored higher.
        low: Lower bound of the 95 % interval of the mean difference; None for a
            single picture, and in results of older versions.
        high: Upper bound, or None.
    """

    rival: str
    mean: float
    standard_error: float | None
    n_images: int
    n_better: int
    low: float | None = None
    high: float | None = None

    @property
    def is_clear(self) -> bool:
        """Whether the pictures tell it from no difference."""
        if self.low is None or self.high is None:
            error = self.standard_error
            return error is not None and abs(self.mean) >= 2 * error
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class StudyResult:
    """How a study ended.

    Attributes:
        candidates: Finalists first, then A, B and uniform; each model once.
        winner: The label of the best finalist on held-out seeds.
        differences: Winner against each baseline.
        seconds: Wall time of the held-out scoring.
        checkpoint: The saved merge, or None.
        checkpoint_sha256: Its hash, or None.
        note: What went wrong after the scores were in (saving ...), else "".
        ending: Why the search ended, one sentence; "" where it was not kept.
    """

    candidates: tuple[Candidate, ...]
    winner: str
    differences: tuple[Difference, ...]
    seconds: float
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    note: str = ""
    ending: str = ""

    def candidate(self, label: str) -> Candidate:
        """The candidate of this label."""
        return next(c for c in self.candidates if c.label == label)

    @property
    def best(self) -> Candidate:
        """The winner."""
        return self.candidate(self.winner)

    def to_json(self) -> dict[str, Any]:
        """A plain JSON object; `from_json` gives an equal result back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> StudyResult:
        """Read what `to_json` wrote."""
        candidates = tuple(Candidate.from_json(c) for c in data["candidates"])
        differences = tuple(Difference(**d) for d in data["differences"])
        return cls(**{**data, "candidates": candidates, "differences": differences})


def standard_error(values: Sequence[float]) -> float | None:
    """Standard error of a mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    return statistics.stdev(values) / math.sqrt(len(values))


def difference(winner: Candidate, rival: Candidate) -> Difference:
    """The paired difference of two candidates over the pictures that both have."""
    mine, theirs = paired_scores(winner.images, rival.images)
    deltas = [a - b for a, b in zip(mine, theirs, strict=True)]
    found = paired_interval(mine, theirs)
    return Difference(
        rival=rival.label,
        mean=found.estimate,
        standard_error=standard_error(deltas),
        n_images=len(deltas),
        n_better=sum(delta > 0 for delta in deltas),
        low=found.low,
        high=found.high,
    )
