"""Curve, ranks, lines, maps, front and importances against hand-computed cases."""

from __future__ import annotations

import random

import pytest

from lib_merge.autombw.importances import (
    PED_ANOVA,
    RANK_CORRELATION,
    importances,
    spearman,
)
from lib_merge.autombw.leaderboard import (
    leaders,
    learning_curve,
    parallel_lines,
    pareto_front,
    rung_scores,
    weight_map,
)
from lib_merge.autombw.records import (
    COMPLETE,
    FAILED,
    KILLED,
    PRUNED,
    ImageScore,
    TrialRecord,
)


def trial(number: int, score: float | None, **changes: object) -> TrialRecord:
    """A trial whose two pictures lie 0.1 above and below its score."""
    images: tuple[ImageScore, ...] = ()
    if score is not None:
        images = tuple(
            ImageScore(f"{i}.png", "p", i, "x", {"s": 0.0}, score + shift)
            for i, shift in enumerate((-0.1, 0.1))
        )
    values: dict[str, object] = {
        "slot": number,
        "attempt": 0,
        "label": "",
        "point": {"IN00": number / 10, "M00": 0.5, "OUT00": 1 - number / 10},
        "state": COMPLETE if score is not None else FAILED,
        "score": score,
        "images": images,
    }
    return TrialRecord(number=number, **{**values, **changes})  # type: ignore[arg-type]


def test_curve_counts_whole_trials_only() -> None:
    """A pruned trial with a high estimate is a dot, never the best."""
    records = [
        trial(0, 0.5),
        trial(1, 0.9, state=PRUNED),
        trial(2, None),
        trial(3, 0.8, rung="draft"),
        trial(4, 0.6),
        trial(5, 0.4),
    ]
    curve = learning_curve(records)
    assert [p.score for p in curve] == [0.5, 0.9, None, 0.8, 0.6, 0.4]
    assert [p.is_estimate for p in curve] == [0, 1, 0, 1, 0, 0]
    best = [p.best.estimate for p in curve if p.best]
    assert best == [0.5, 0.5, 0.5, 0.5, 0.6, 0.6]
    last = curve[-1].best
    assert last is not None
    # Two pictures, 0.1 to each side: standard error 0.1, t of one degree 12.706.
    assert (last.low, last.high) == pytest.approx((0.6 - 1.27062, 0.6 + 1.27062))


def test_curve_shows_a_slot_s_last_attempt_once() -> None:
    records = [
        trial(0, 0.5),
        trial(1, None, slot=1, state=KILLED),
        trial(2, 0.7, slot=1, attempt=1),
        trial(3, None, slot=2, state=KILLED),
    ]
    assert [(p.number, p.score) for p in learning_curve(records)] == [
        (0, 0.5),
        (2, 0.7),
    ]


def test_leaders_are_held_against_the_parents_picture_by_picture() -> None:
    records = [
        trial(0, 0.5, label="A"),
        trial(1, 0.7),
        trial(2, 0.7, point=trial(1, 0.7).point),
        trial(3, 0.99, state=PRUNED),
    ]
    found = leaders(records)
    assert [(one.rank, one.record.number) for one in found] == [(1, 1), (2, 0)]
    label, ahead = found[0].ahead[0]
    assert label == "A"
    assert ahead.estimate == pytest.approx(0.2)
    assert ahead.is_clear
    assert found[1].ahead == ()


def test_lines_hold_only_axes_that_vary_and_end_with_the_best() -> None:
    lines = parallel_lines([trial(0, 0.5), trial(1, 0.9), trial(2, 0.7)])
    assert lines is not None
    assert lines.axes == ("IN00", "OUT00")
    assert lines.numbers == (0, 2, 1)
    assert (lines.lows, lines.highs) == ((0.0, 0.8), (0.2, 1.0))
    assert lines.values[-1] == (0.1, 0.9)
    assert parallel_lines([trial(0, 0.5)]) is None


def test_many_lines_are_thinned_to_the_best_and_the_latest() -> None:
    records = [trial(i, 1 - i / 100) for i in range(30)]
    lines = parallel_lines(records, n_most=4)
    assert lines is not None
    assert sorted(lines.numbers) == [0, 1, 28, 29]


def test_weight_map_scales_all_axes_alike() -> None:
    records = [trial(0, 0.5), trial(1, 0.4), trial(2, 0.9), trial(3, None)]
    found = weight_map(records)
    assert found is not None
    assert found.numbers == (0, 1, 2)
    assert (found.low, found.high) == (0.0, 1.0)
    assert found.rows[0] == pytest.approx((0.0, 0.1, 0.2))
    best = weight_map(records, is_best_only=True)
    assert best is not None
    assert best.numbers == (0, 2)
    thin = weight_map([trial(i, 0.5) for i in range(9)], n_most=4)
    assert thin is not None
    assert thin.numbers == (0, 3, 6)


def test_pareto_front_by_hand() -> None:
    points = [(0.9, 0.1), (0.8, 0.3), (0.7, 0.2), (0.6, 0.5), (0.9, 0.05)]
    records = [trial(i, s, diversity=d) for i, (s, d) in enumerate(points)]
    records.append(trial(9, 0.95, diversity=0.9, state=PRUNED))
    assert pareto_front(records) == (3, 1, 0)
    assert pareto_front([trial(0, 0.5)]) == ()


def test_rungs_are_held_against_whole_scores() -> None:
    """Cheap 1 2 3 4 against whole 1 3 2 4; a screened trial has no whole score."""
    fulls = (0.1, 0.3, 0.2, 0.4)
    records = [trial(i, full, rungs={"draft": i / 10}) for i, full in enumerate(fulls)]
    records.append(trial(4, 0.9, rung="draft", rungs={"draft": 0.9}))
    (found,) = rung_scores(records)
    assert (found.rung, found.n_screened, len(found.pairs)) == ("draft", 1, 4)
    assert found.correlation == pytest.approx(0.8)
    (few,) = rung_scores(records[:3])
    assert few.correlation is None


def test_spearman_by_hand() -> None:
    """1 2 3 4 against 1 3 2 4: 1 - 6 * 2 / (4 * 15) = 0.8; ties share a rank."""
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert spearman([1, 1, 2], [5, 5, 9]) == pytest.approx(1.0)
    assert spearman([1, 1, 1], [1, 2, 3]) == 0.0


def planted(n_trials: int) -> list[TrialRecord]:
    """Six axes, of which IN00 decides (best at 0.8) and the rest is luck."""
    draw = random.Random(2)
    records = []
    for number in range(n_trials):
        point = {f"IN{i:02d}": draw.random() for i in range(6)} | {"M00": 0.5}
        score = 0.6 - (point["IN00"] - 0.8) ** 2 + draw.gauss(0, 0.02)
        records.append(trial(number, score, point=point))
    return records


@pytest.mark.parametrize(
    ("n_trials", "method"),
    [(120, PED_ANOVA), (20, RANK_CORRELATION)],
    ids=["many", "few"],
)
def test_importances_find_the_axis_that_decides(n_trials: int, method: str) -> None:
    found = importances(planted(n_trials), n_shuffles=11)
    assert found is not None
    assert (found.method, found.n_trials) == (method, n_trials)
    assert found.axes[0].axis == "IN00"
    assert found.axes[0].trend > 0.5
    assert sum(one.share for one in found.axes) == pytest.approx(1.0)
    assert len(found.axes) == 6
    assert found.luck is not None
    assert found.axes[0].share > found.luck


def test_importances_say_nothing_of_few_or_equal_trials() -> None:
    assert importances(planted(4)) is None
    assert importances([trial(i, 0.5) for i in range(10)]) is None
    pruned = [trial(i, i / 10, state=PRUNED) for i in range(10)]
    assert importances(pruned) is None
