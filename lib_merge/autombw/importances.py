"""Importances: which axes of the search decide the score, and in which direction.

Many whole trials: Optuna's PED-ANOVA (where the best fifth of the trials lies on an
axis against where all lie). Few: rank correlation of each axis with the score. In both
cases the same is done with shuffled scores, which tells how much importance mere luck
would give to the luckiest axis.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib_merge.autombw.records import TrialRecord

PED_ANOVA = "ped_anova"
RANK_CORRELATION = "rank_correlation"

MIN_TRIALS = 5
"""Whole trials below which nothing is said."""

MIN_ANOVA = 40
"""Whole trials from which PED-ANOVA has something to compare."""

CLEAR_TREND = 0.2
"""Rank correlation below which no trend is told."""

TOP_SHARE = 0.2
"""The best trials, whose place on an axis PED-ANOVA looks at."""


@dataclass(frozen=True)
class Importance:
    """One axis.

    Attributes:
        axis: Its name.
        share: Of the importance of all axes together, 0 to 1.
        trend: Rank correlation of its value with the score: above 0, more is better.
    """

    axis: str
    share: float
    trend: float

    @property
    def trend_words(self) -> str:
        """What the trend says."""
        if abs(self.trend) < CLEAR_TREND:
            return "no trend"
        side = "higher" if self.trend > 0 else "lower"
        return f"{side} is better ({self.trend:+.2f})"


@dataclass(frozen=True)
class Importances:
    """All axes, the most important first.

    Attributes:
        method: ped_anova or rank_correlation.
        n_trials: Whole trials that speak.
        axes: By share, falling.
        luck: Importance that the luckiest axis gets from shuffled scores (their
            median), on the scale of the shares; None when it was not asked for.
    """

    method: str
    n_trials: int
    axes: tuple[Importance, ...]
    luck: float | None = None


def importances(
    records: Sequence[TrialRecord], *, n_shuffles: int = 0
) -> Importances | None:
    """What the whole trials say of every axis that was varied.

    Args:
        records: The study's attempts.
        n_shuffles: How often luck is measured; 0 leaves it out.

    Returns:
        None while there are too few trials, or nothing varies.
    """
    whole = [r for r in records if r.is_complete and r.score is not None]
    columns = varied(whole)
    scores = [r.score or 0.0 for r in whole]
    if len(whole) < MIN_TRIALS or not columns or len(set(scores)) == 1:
        return None
    is_enough = len(whole) >= MIN_ANOVA
    measure = _ped_anova if is_enough else _by_rank
    values = measure(columns, scores)
    total = sum(values.values()) or 1.0
    found = [
        Importance(axis, values[axis] / total, spearman(column, scores))
        for axis, column in columns.items()
    ]
    luck = None
    if n_shuffles:
        draw = random.Random(len(whole))
        tops = []
        for _ in range(n_shuffles):
            mixed = draw.sample(scores, len(scores))
            tops.append(max(measure(columns, mixed).values()))
        luck = statistics.median(tops) / total
    return Importances(
        method=PED_ANOVA if is_enough else RANK_CORRELATION,
        n_trials=len(whole),
        axes=tuple(sorted(found, key=lambda one: (-one.share, one.axis))),
        luck=luck,
    )


def varied(records: Sequence[TrialRecord]) -> dict[str, list[float]]:
    """Values by axis, one a record, of the axes that are not the same in all."""
    if not records:
        return {}
    names = [name for name in records[0].point if all(name in r.point for r in records)]
    columns = {name: [r.point[name] for r in records] for name in names}
    return {name: column for name, column in columns.items() if len(set(column)) > 1}


def _by_rank(
    columns: Mapping[str, Sequence[float]], scores: Sequence[float]
) -> dict[str, float]:
    return {name: spearman(column, scores) ** 2 for name, column in columns.items()}


def _ped_anova(
    columns: Mapping[str, Sequence[float]], scores: Sequence[float]
) -> dict[str, float]:
    """Optuna's evaluator over an in-memory study of these trials."""
    from lib_merge.autombw.search import import_optuna, quiet_optuna

    optuna = import_optuna()
    limits = {
        name: optuna.distributions.FloatDistribution(min(column), max(column))
        for name, column in columns.items()
    }
    with quiet_optuna(optuna):
        study = optuna.create_study(direction="maximize")
        for i, score in enumerate(scores):
            params = {name: column[i] for name, column in columns.items()}
            study.add_trial(
                optuna.trial.create_trial(
                    value=score, params=params, distributions=limits
                )
            )
        found = _evaluator(optuna).evaluate(study)
    return {name: float(found.get(name, 0.0)) for name in columns}


def _evaluator(optuna: Any) -> Any:
    kind = optuna.importance.PedAnovaImportanceEvaluator
    try:
        return kind(target_quantile=TOP_SHARE)
    except TypeError:
        # The name that older versions have for it.
        return kind(baseline_quantile=TOP_SHARE)


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Rank correlation; ties share their mean rank, constants correlate with 0."""
    if len(set(one)) < 2 or len(set(other)) < 2:
        return 0.0
    return statistics.correlation(_ranks(one), _ranks(other))


def _ranks(values: Sequence[float]) -> list[float]:
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values)):
        places.setdefault(value, []).append(place)
    return [statistics.fmean(places[value]) for value in values]
