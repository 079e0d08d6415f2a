"""Gap and overfit against hand-computed cases."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from lib_merge.autombw.gaps import gaps, overfit, prompt_scores
from lib_merge.autombw.records import COMPLETE, ImageScore, TrialRecord
from lib_merge.autombw.results import Candidate, StudyResult, difference

Scores = Mapping[str, list[float]]


def pictures(scores: Scores) -> tuple[ImageScore, ...]:
    """Payload -> scores as pictures."""
    return tuple(
        ImageScore(f"{name}_{i}.png", name, i, f"a {name}", {"s": score}, score)
        for name, found in scores.items()
        for i, score in enumerate(found)
    )


def trial(number: int, label: str, scores: Scores) -> TrialRecord:
    """A whole trial."""
    images = pictures(scores)
    mean = sum(i.score for i in images) / len(images)
    point = {"M00": float(number)}
    return TrialRecord(number, number, 0, label, point, COMPLETE, mean, images)


def candidate(record: TrialRecord, label: str, scores: Scores) -> Candidate:
    """It on held-out seeds."""
    number = None if label in ("A", "B", "uniform") else record.number
    images = pictures(scores)
    mean = sum(i.score for i in images) / len(images)
    return Candidate(label, number, record.point, record.score, mean, images)


@pytest.fixture
def records() -> tuple[TrialRecord, ...]:
    """A parent and the winner in the search: gains 0.3 (cat) and 0.1 (dog)."""
    return (
        trial(0, "A", {"cat": [0.4, 0.4], "dog": [0.2]}),
        trial(1, "", {"cat": [0.6, 0.8], "dog": [0.3]}),
    )


@pytest.fixture
def result(records: tuple[TrialRecord, ...]) -> StudyResult:
    """On held-out seeds: gains 0.1 (cat), 0.1 (dog), and 0.05 with a new payload."""
    parent, best = records
    unseen = {"cat": [0.5, 0.3], "dog": [0.3], "owl": [0.4]}
    mine = {"cat": [0.6, 0.4], "dog": [0.4], "owl": [0.45]}
    winner = candidate(best, "trial 1", mine)
    rival = candidate(parent, "A", unseen)
    return StudyResult((winner, rival), "trial 1", (difference(winner, rival),), 1.0)


def test_overfit_by_hand(result: StudyResult, records: tuple[TrialRecord, ...]) -> None:
    found = overfit(result, "A", records)
    assert found is not None
    assert found.search == pytest.approx(0.2)
    assert found.held_out == pytest.approx(0.1)
    assert found.kept == pytest.approx(0.5)
    assert found.lost.estimate == pytest.approx(0.1)
    assert found.unseen is not None
    assert found.unseen.estimate == pytest.approx(0.05)
    gains = {p.payload: (p.search, p.held_out) for p in found.prompts}
    assert gains["cat"] == pytest.approx((0.3, 0.1))
    assert gains["owl"][0] is None


def test_overfit_is_unknown_without_the_parent_in_the_search(
    result: StudyResult, records: tuple[TrialRecord, ...]
) -> None:
    assert overfit(result, "A", records[1:]) is None
    assert overfit(result, "trial 1", records) is None


def test_gap_by_hand(result: StudyResult, records: tuple[TrialRecord, ...]) -> None:
    """Winner: cat 0.7 to 0.5, dog 0.3 to 0.4; the new payload does not count."""
    first, second = gaps(result, records)
    assert (first.label, second.label) == ("trial 1", "A")
    assert first.search == pytest.approx(0.5)
    assert first.held_out == pytest.approx(0.45)
    assert first.lost.estimate == pytest.approx(0.05)
    assert first.lost.low == pytest.approx(0.05 - 12.7062 * 0.15, abs=1e-3)


def test_prompt_scores_by_hand() -> None:
    found = prompt_scores(pictures({"dog": [0.5], "cat": [0.2, 0.4]}))
    assert [p.payload for p in found] == ["cat", "dog"]
    assert found[0].score.estimate == pytest.approx(0.3)
    assert (found[0].n_images, found[1].score.low) == (2, None)
