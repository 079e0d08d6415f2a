"""The twelve tallies, against values worked out by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_merge.autombw.tally import TALLIES, check_tally, sigmoid, tally
from lib_merge.errors import InputError, UnknownIdError

SCORES = [0.2, 0.4, 0.8]
MEAN = 1.4 / 3
GEOMETRIC = 0.4
"""The cube root of 0.2 * 0.4 * 0.8 = 0.064."""
HARMONIC = 3 / (5 + 2.5 + 1.25)

GOLDEN = {
    "arithmetic": MEAN,
    "geometric": GEOMETRIC,
    "harmonic": HARMONIC,
    "quadratic": math.sqrt((0.04 + 0.16 + 0.64) / 3),
    "cubic": ((0.008 + 0.064 + 0.512) / 3) ** (1 / 3),
    "a_g": MEAN * MEAN / GEOMETRIC,
    "g_h": GEOMETRIC / HARMONIC * MEAN,
    "a_h": MEAN * MEAN / HARMONIC,
    "median": 0.4,
    "min": 0.2,
    "max": 0.8,
    "mid_range": 0.5,
}


@pytest.mark.parametrize("tally_id", sorted(TALLIES))
def test_tally_equals_the_value_worked_out_by_hand(tally_id: str) -> None:
    """Twelve of them, all in the table."""
    assert tally(tally_id, SCORES) == pytest.approx(GOLDEN[tally_id], rel=1e-12)
    assert set(GOLDEN) == set(TALLIES)
    assert len(TALLIES) == 12


@given(
    score=st.floats(1e-6, 1.0),
    n=st.integers(1, 9),
    tally_id=st.sampled_from(sorted(TALLIES)),
)
def test_tally_of_equal_scores_is_that_score(
    score: float, n: int, tally_id: str
) -> None:
    """Whatever the kind."""
    assert tally(tally_id, [score] * n) == pytest.approx(score, rel=1e-9)


@given(st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=12))
def test_means_are_ordered(scores: list[float]) -> None:
    """min <= H <= G <= A <= Q <= cubic <= max."""
    kinds = ["min", "harmonic", "geometric", "arithmetic", "quadratic", "cubic", "max"]
    values = [tally(kind, scores) for kind in kinds]
    assert all(a <= b + 1e-9 for a, b in pairwise(values))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(-2, 0.1192), (-1, 0.2689), (0, 0.5), (1, 0.7311), (2, 0.8808)],
)
def test_sigmoid_equals_the_published_scale(raw: float, expected: float) -> None:
    """AutoMBW's score scale."""
    assert sigmoid(raw) == pytest.approx(expected, abs=5e-5)


@given(st.floats(allow_nan=False))
def test_sigmoid_stays_inside_for_any_number(raw: float) -> None:
    """No overflow, never 0: geometric and harmonic means exist."""
    assert 0 < sigmoid(raw) <= 1


def test_unknown_tally_and_no_scores_are_refused() -> None:
    """One clear error each."""
    with pytest.raises(UnknownIdError, match="Unknown tally 'mode'; use one of: arith"):
        check_tally("mode")
    with pytest.raises(InputError, match="without pictures"):
        tally("arithmetic", [])
