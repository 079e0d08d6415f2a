"""Intervals: how far a mean, a tally or a difference may be off by the luck of seeds.

Means have Student's t interval; tallies that are no plain mean have a bootstrap one,
resampled picture by picture with a fixed seed. Differences are paired by picture: the
same prompt and seed in both, so that what is hard for every merge cancels.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lib_merge.autombw.records import ImageScore
from lib_merge.autombw.tally import tally

LEVEL = 0.95
"""How often an interval holds the true value, if pictures are independent draws."""

N_RESAMPLES = 1000

ARITHMETIC = "arithmetic"


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds that likely hold the true value.

    Attributes:
        estimate: What was measured.
        low: Lower bound, or None when a single picture tells nothing of it.
        high: Upper bound, or None.
    """

    estimate: float
    low: float | None = None
    high: float | None = None

    @property
    def is_clear(self) -> bool:
        """Whether 0 lies outside."""
        return (
            self.low is not None
            and self.high is not None
            and (self.low > 0 or self.high < 0)
        )


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Student's interval of a mean.

    Args:
        values: At least one.
        level: Its coverage.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean)
    error = statistics.stdev(values) / math.sqrt(len(values))
    half = t_quantile((1 + level) / 2, len(values) - 1) * error
    return Interval(mean, mean - half, mean + half)


def score_interval(scores: Sequence[float], tally_id: str = ARITHMETIC) -> Interval:
    """The interval of a trial's tally over its pictures."""
    if tally_id == ARITHMETIC or len(scores) < 2:
        found = mean_interval(scores)
        return Interval(tally(tally_id, scores), found.low, found.high)
    draws = [tally(tally_id, [scores[i] for i in picks]) for picks in _picks(scores)]
    return _between(tally(tally_id, scores), draws)


def paired_interval(
    mine: Sequence[float], theirs: Sequence[float], tally_id: str = ARITHMETIC
) -> Interval:
    """The interval of mine minus theirs, over the same pictures in the same order."""
    if tally_id == ARITHMETIC:
        return mean_interval([a - b for a, b in zip(mine, theirs, strict=True)])
    estimate = tally(tally_id, mine) - tally(tally_id, theirs)
    if len(mine) < 2:
        return Interval(estimate)
    draws = [
        tally(tally_id, [mine[i] for i in picks])
        - tally(tally_id, [theirs[i] for i in picks])
        for picks in _picks(mine)
    ]
    return _between(estimate, draws)


def _picks(values: Sequence[float]) -> list[list[int]]:
    """Resampled places, the same for every call of one length."""
    places = range(len(values))
    draw = random.Random(len(values))
    return [draw.choices(places, k=len(values)) for _ in range(N_RESAMPLES)]


def _between(estimate: float, draws: Sequence[float]) -> Interval:
    ordered = sorted(draws)
    cut = round((1 - LEVEL) / 2 * len(ordered))
    return Interval(estimate, ordered[cut], ordered[-cut - 1])


def paired_scores(
    mine: Sequence[ImageScore], theirs: Sequence[ImageScore]
) -> tuple[list[float], list[float]]:
    """Scores of the pictures that both have, in one order, matched by their files."""
    others = {image.file: image.score for image in theirs}
    shared = [image for image in mine if image.file in others]
    return [i.score for i in shared], [others[i.file] for i in shared]


def t_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution, by halving; exact to 1e-9.

    Args:
        probability: Above 0.5 and below 1.
        freedom: Degrees of freedom, at least 1.
    """
    low, high = 0.0, 1.0
    while _t_cdf(high, freedom) < probability:
        low, high = high, high * 2
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        is_above = _t_cdf(middle, freedom) >= probability
        low, high = (low, middle) if is_above else (middle, high)
    return high


def _t_cdf(t: float, freedom: int) -> float:
    """Of a t that is at least 0.

    Source: M. Abramowitz, I. A. Stegun, Handbook of Mathematical Functions, 26.7.3 and
    26.7.4 (finite sums for whole degrees of freedom).
    """
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = freedom % 2 == 1
    term = cosine if is_odd else 1.0
    total = 0.0
    for step in range(2 + is_odd, freedom + 1, 2):
        total += term
        term *= cosine * cosine * (step - 1) / step
    inside = sine * total
    if is_odd:
        inside = 2 / math.pi * (angle + inside)
    return (1 + inside) / 2
