"""Scoring: how the raw values of one scorer or several become one score a picture.

Raw values are kept as they came, so that weights can change later without rendering.
Two normalisations: "sigmoid" of the raw value, as AutoMBW counts ImageReward, and "z":
(raw - mean) / sd over the pictures of a study's first trials, frozen with the study,
so that scorers of any scale can be weighed against each other. Until the first trials
are in, mean and sd are guessed from the range that a scorer declares.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lib_merge.autombw.records import UNNAMED, ImageScore, TrialRecord
from lib_merge.autombw.tally import sigmoid
from lib_merge.errors import ScorerError, StudyError

SIGMOID = "sigmoid"
Z_SCORE = "z"
NORMALISATIONS = (SIGMOID, Z_SCORE)

KEEP = "keep"
UNLOAD = "unload"
AUTO = "auto"
MEMORY_POLICIES = (AUTO, KEEP, UNLOAD)
"""What becomes of scorers while the image model works: kept in memory, unloaded, or
unloaded only where both do not fit."""

DEFAULT_RANGE = (-2.0, 2.0)
"""Taken for a scorer that nobody knows (any more)."""


@dataclass(frozen=True)
class Judge:
    """One scorer of a study.

    Attributes:
        id: The scorer's id.
        weight: Its share in the score, 0 to record it only.
        weights_file: Its weights, or None for where it looks itself.
        options: Its own options, (name, text) each.
    """

    id: str
    weight: float = 1.0
    weights_file: str | None = None
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ScoringSettings:
    """How a study judges its pictures.

    Attributes:
        judges: The scorers; empty for the study's one `scorer` alone.
        normalise: sigmoid or z.
        n_calibration: Whole trials over which z takes mean and sd.
        memory: auto, keep or unload (see `MEMORY_POLICIES`).
    """

    judges: tuple[Judge, ...] = ()
    normalise: str = SIGMOID
    n_calibration: int = 3
    memory: str = AUTO

    def __post_init__(self) -> None:
        problems = []
        if self.normalise not in NORMALISATIONS:
            known = ", ".join(NORMALISATIONS)
            problems.append(f"Normalisation '{self.normalise}': use {known}.")
        if self.memory not in MEMORY_POLICIES:
            known = ", ".join(MEMORY_POLICIES)
            problems.append(f"Scorer memory '{self.memory}': use {known}.")
        if self.n_calibration < 1:
            problems.append(
                f"n_calibration is {self.n_calibration}; it must be at least 1."
            )
        problems += _judge_problems(self.judges)
        if problems:
            raise StudyError("\n".join(problems))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ScoringSettings:
        """Read what `asdict` gave.

        Raises:
            TypeError: Fields are missing or unknown.
        """
        judges = tuple(
            Judge(**{**one, "options": tuple(tuple(o) for o in one["options"])})
            for one in data["judges"]
        )
        return cls(**{**data, "judges": judges})


def _judge_problems(judges: Sequence[Judge]) -> list[str]:
    problems = []
    ids = [judge.id for judge in judges]
    for judge in judges:
        if not math.isfinite(judge.weight) or judge.weight < 0:
            problems.append(
                f"Scorer {judge.id} has the weight {judge.weight:g}; use 0 or more."
            )
        if ids.count(judge.id) > 1:
            problems.append(f"Scorer {judge.id} is named twice; name it once.")
    if judges and not any(judge.weight > 0 for judge in judges):
        problems.append("Every scorer has the weight 0; give one of them more.")
    return list(dict.fromkeys(problems))


@dataclass(frozen=True)
class Scale:
    """Mean and spread of a scorer's raw values over the first trials' pictures."""

    mean: float
    sd: float


@dataclass(frozen=True)
class Scoring:
    """Turns raw values into a score.

    Attributes:
        weights: Weight by scorer id, in the study's order.
        normalise: sigmoid or z.
        ranges: Usual range of raw values by scorer id.
        scales: The frozen scales by scorer id; None while z guesses from the ranges.
    """

    weights: Mapping[str, float]
    normalise: str = SIGMOID
    ranges: Mapping[str, tuple[float, float]] | None = None
    scales: Mapping[str, Scale] | None = None

    @property
    def is_settled(self) -> bool:
        """Whether equal raw values give equal scores from now on."""
        return self.normalise == SIGMOID or self.scales is not None

    def score(self, raws: Mapping[str, float], *, is_reversed: bool = False) -> float:
        """One picture's score, above 0 and at most 1; higher is better.

        sigmoid: the weighted mean of sigmoid(raw). z: sigmoid of the weighted mean of
        (raw - mean) / sd.

        Args:
            raws: Raw value by scorer id.
            is_reversed: The payload wants low raw values.

        Raises:
            ScorerError: A scorer that counts has no raw value here.
        """
        sign = -1.0 if is_reversed else 1.0
        total = math.fsum(self.weights.values())
        parts = []
        for scorer_id, weight in self.weights.items():
            if weight > 0:
                value = sign * self._normal(scorer_id, self._raw(scorer_id, raws))
                value = sigmoid(value) if self.normalise == SIGMOID else value
                parts.append(weight / total * value)
        mean = math.fsum(parts)
        return mean if self.normalise == SIGMOID else sigmoid(mean)

    def _raw(self, scorer_id: str, raws: Mapping[str, float]) -> float:
        if scorer_id in raws:
            return raws[scorer_id]
        if len(self.weights) == 1 and UNNAMED in raws:
            return raws[UNNAMED]
        known = ", ".join(key or "one without a name" for key in raws)
        raise ScorerError(
            f"A picture has no raw value of the scorer {scorer_id} (it has: {known}); "
            "only scorers that judged every picture can be given a weight."
        )

    def _normal(self, scorer_id: str, raw: float) -> float:
        if self.normalise == SIGMOID:
            return raw
        scale = self._scale(scorer_id)
        return (raw - scale.mean) / scale.sd

    def _scale(self, scorer_id: str) -> Scale:
        if self.scales is not None and scorer_id in self.scales:
            return self.scales[scorer_id]
        low, high = (self.ranges or {}).get(scorer_id, DEFAULT_RANGE)
        return Scale((low + high) / 2, (high - low) / 4)

    def frozen(self, images: Sequence[ImageScore]) -> Scoring:
        """The same scoring with scales taken from these pictures.

        A scorer whose raw values do not vary keeps the guess from its range.
        """
        scales = {}
        for scorer_id in self.weights:
            raws = [self._raw(scorer_id, image.raws) for image in images]
            guess = self._scale(scorer_id)
            sd = statistics.stdev(raws) if len(raws) > 1 else 0.0
            is_flat = sd <= 1e-9 * max(1.0, abs(statistics.fmean(raws)))
            scales[scorer_id] = guess if is_flat else Scale(statistics.fmean(raws), sd)
        return replace(self, scales=scales)


def calibration(
    records: Sequence[TrialRecord], n_trials: int
) -> tuple[TrialRecord, ...] | None:
    """The first whole trials, or None while there are fewer."""
    whole = sorted((r for r in records if r.is_complete), key=lambda r: r.number)
    return tuple(whole[:n_trials]) if len(whole) >= n_trials else None


def scales_to_json(scales: Mapping[str, Scale]) -> dict[str, Any]:
    """A plain JSON object; `scales_from_json` gives equal scales back."""
    return {scorer_id: asdict(scale) for scorer_id, scale in scales.items()}


def scales_from_json(data: Any, where: str) -> dict[str, Scale]:
    """Read what `scales_to_json` wrote.

    Raises:
        StudyError: It is damaged.
    """
    try:
        scales = {key: Scale(one["mean"], one["sd"]) for key, one in data.items()}
        if all(math.isfinite(s.mean) and s.sd > 0 for s in scales.values()):
            return scales
    except (AttributeError, KeyError, TypeError):
        pass
    raise StudyError(
        f"{where} is damaged; delete it, and the study takes its first trials' scale "
        "again."
    )
