"""Tallies: the twelve ways to turn the scores of many pictures into one number.

Source: names and formulas as in AutoMBW (Xerxemi/auto-MBW-rt, scripts/main/merger.py),
so that scores of old runs stay comparable.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from lib_merge.errors import InputError, UnknownIdError

Numbers = Sequence[float]


def _power_mean(scores: Numbers, power: int) -> float:
    return math.fsum(score**power for score in scores) / len(scores)


def _quadratic(scores: Numbers) -> float:
    return math.sqrt(_power_mean(scores, 2))


def _cubic(scores: Numbers) -> float:
    mean = _power_mean(scores, 3)
    return math.copysign(abs(mean) ** (1 / 3), mean)


def _mid_range(scores: Numbers) -> float:
    return (min(scores) + max(scores)) / 2


def _a_over_g(scores: Numbers) -> float:
    mean = statistics.fmean(scores)
    return mean / statistics.geometric_mean(scores) * mean


def _g_over_h(scores: Numbers) -> float:
    spread = statistics.geometric_mean(scores) / statistics.harmonic_mean(scores)
    return spread * statistics.fmean(scores)


def _a_over_h(scores: Numbers) -> float:
    mean = statistics.fmean(scores)
    return mean / statistics.harmonic_mean(scores) * mean


TALLIES: Mapping[str, Callable[[Numbers], float]] = MappingProxyType(
    {
        "arithmetic": statistics.fmean,
        "geometric": statistics.geometric_mean,
        "harmonic": statistics.harmonic_mean,
        "quadratic": _quadratic,
        "cubic": _cubic,
        "a_g": _a_over_g,
        "g_h": _g_over_h,
        "a_h": _a_over_h,
        "median": statistics.median,
        "min": min,
        "max": max,
        "mid_range": _mid_range,
    }
)
"""Tally by id. a_g, g_h and a_h multiply the mean by a ratio of two means, which is
1 when all scores are equal and grows with their spread."""


def check_tally(tally_id: str) -> None:
    """Raise unless there is a tally of this id.

    Raises:
        UnknownIdError: There is none; the message lists them.
    """
    if tally_id not in TALLIES:
        raise UnknownIdError(
            f"Unknown tally '{tally_id}'; use one of: {', '.join(TALLIES)}."
        )


def tally(tally_id: str, scores: Numbers) -> float:
    """One number for a trial.

    Args:
        tally_id: A key of `TALLIES`.
        scores: At least one score, each above 0 and at most 1 (after `sigmoid`).

    Raises:
        UnknownIdError: No such tally.
        InputError: No scores at all.
    """
    check_tally(tally_id)
    if not scores:
        raise InputError("A trial without pictures has no score; give it a payload.")
    return float(TALLIES[tally_id](scores))


def sigmoid(raw: float) -> float:
    """A raw score as AutoMBW counts it: 1 / (1 + exp(-raw)), without overflow.

    Never exactly 0, so that geometric and harmonic means exist for every score.
    """
    if raw >= 0:
        return 1 / (1 + math.exp(-raw))
    grown = math.exp(max(raw, -700.0))
    return grown / (1 + grown)
