"""Intervals against tables and hand-computed cases."""

from __future__ import annotations

import random

import pytest

from lib_merge.autombw.intervals import (
    mean_interval,
    paired_interval,
    paired_scores,
    score_interval,
    t_quantile,
)
from lib_merge.autombw.records import ImageScore


@pytest.mark.parametrize(
    ("freedom", "value"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (10, 2.2281), (23, 2.0687), (200, 1.9719)],
    ids=str,
)
def test_t_quantile_is_the_table_s(freedom: int, value: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(value, abs=5e-5)


def test_mean_interval_by_hand() -> None:
    """1, 2, 3: mean 2, standard error 1/sqrt(3), t 4.3027."""
    found = mean_interval([1.0, 2.0, 3.0])
    assert found.estimate == 2
    assert (found.low, found.high) == pytest.approx((-0.48414, 4.48414), abs=1e-4)
    assert not found.is_clear
    assert mean_interval([1.0, 1.1, 1.2]).is_clear


def test_a_single_picture_has_no_interval() -> None:
    found = score_interval([0.4], "median")
    assert (found.estimate, found.low, found.high) == (0.4, None, None)
    assert not found.is_clear
    assert paired_interval([0.4], [0.1], "median").low is None


def test_paired_interval_drops_what_is_hard_for_both() -> None:
    """Levels 0.1 and 0.9 differ far more than the merges do."""
    mine, theirs = [0.12, 0.91, 0.52], [0.10, 0.90, 0.50]
    assert paired_interval(mine, theirs).is_clear
    assert not mean_interval(mine).is_clear


def test_bootstrap_holds_the_true_median_as_often_as_it_says() -> None:
    """300 samples of 15 uniform draws: 95 % of the intervals hold 0.5, about."""
    draw = random.Random(3)
    n_held = 0
    for _ in range(300):
        found = score_interval([draw.random() for _ in range(15)], "median")
        assert found.low is not None
        assert found.high is not None
        n_held += found.low <= 0.5 <= found.high
    assert 0.90 <= n_held / 300 <= 0.99


def test_intervals_are_the_same_at_every_call() -> None:
    scores = [0.3, 0.5, 0.9, 0.2]
    assert score_interval(scores, "min") == score_interval(scores, "min")


def test_pictures_are_paired_by_their_files_in_any_order() -> None:
    def image(file: str, score: float) -> ImageScore:
        return ImageScore(file, "p", 0, "x", {"s": score}, score)

    mine = [image("a", 0.1), image("b", 0.2), image("c", 0.3)]
    theirs = [image("c", 0.7), image("a", 0.5)]
    assert paired_scores(mine, theirs) == ([0.1, 0.3], [0.5, 0.7])
