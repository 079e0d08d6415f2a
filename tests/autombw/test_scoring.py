"""Several scorers in one score: weights, scales frozen with the study, rescoring."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lib_merge.autombw.records import (
    COMPLETE,
    FAILED,
    PRUNED,
    UNNAMED,
    ImageScore,
    TrialRecord,
    save_record,
)
from lib_merge.autombw.rescoring import (
    SCALES,
    ScoreKeeper,
    rescore,
    rescore_study,
    study_scoring,
)
from lib_merge.autombw.scoring import (
    Judge,
    Scale,
    Scoring,
    ScoringSettings,
    scales_from_json,
)
from lib_merge.autombw.settings import StudySettings
from lib_merge.autombw.study import Study, create_study, open_study
from lib_merge.autombw.tally import sigmoid
from lib_merge.errors import ScorerError, StudyError, UnknownIdError
from tests.support.fake_study_host import fake_settings

RANGES = {"one": (-2.0, 2.0), "two": (0.0, 40.0)}
TWO = (Judge("one"), Judge("two", weight=3.0))


def test_one_scorer_counts_as_autombw_counts_it() -> None:
    """Sigmoid of the raw value, or of its negative where low is wanted."""
    scoring = Scoring({"one": 2.0})
    assert scoring.score({"one": 0.7}) == sigmoid(0.7)
    assert scoring.score({"one": 0.7}, is_reversed=True) == sigmoid(-0.7)
    assert scoring.score({UNNAMED: 0.7}) == sigmoid(0.7)


def test_sigmoids_are_weighed() -> None:
    """Weight 0 records a scorer only."""
    raws = {"one": 1.0, "two": -1.0, "three": 99.0}
    scoring = Scoring({"one": 1.0, "two": 3.0, "three": 0.0})
    assert scoring.score(raws) == pytest.approx((sigmoid(1) + 3 * sigmoid(-1)) / 4)


def test_z_scores_are_weighed_by_their_frozen_scale() -> None:
    """Mean and sample deviation of the pictures it is frozen on."""
    scoring = Scoring({"one": 1.0, "two": 3.0}, "z", RANGES)
    assert not scoring.is_settled
    guess = scoring.score({"one": 0.5, "two": 30.0})
    assert guess == pytest.approx(sigmoid((0.5 / 1.0 + 3 * (30 - 20) / 10) / 4))
    pairs = [(0.0, 20.0), (1.0, 26.0), (5.0, 23.0)]
    images = [ImageScore("f", "p", 0, "x", {"one": a, "two": b}, 0) for a, b in pairs]
    frozen = scoring.frozen(images)
    assert frozen.is_settled
    z_one = (0.5 - 2.0) / statistics.stdev([0.0, 1.0, 5.0])
    z_two = (30.0 - 23.0) / 3.0
    score = frozen.score({"one": 0.5, "two": 30.0})
    assert score == pytest.approx(sigmoid((z_one + 3 * z_two) / 4), rel=1e-12)


def test_scorer_that_does_not_vary_keeps_its_declared_scale() -> None:
    """No division by zero, and no weight blown up by rounding."""
    images = [ImageScore("f", "p", 0, "x", {"two": 7.0}, 0)] * 3
    frozen = Scoring({"two": 1.0}, "z", RANGES).frozen(images)
    assert frozen.scales == {"two": Scale(20.0, 10.0)}


def test_scorer_that_did_not_judge_cannot_count() -> None:
    """Its values cannot be made up."""
    with pytest.raises(ScorerError, match=r"raw value of the scorer two .it has: on"):
        Scoring({"one": 1, "two": 1}).score({"one": 0.0})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"normalise": "rank"}, "Normalisation 'rank': use sigmoid, z"),
        ({"memory": "never"}, "Scorer memory 'never': use auto, keep, unload"),
        ({"n_calibration": 0}, "n_calibration is 0"),
        ({"judges": (Judge("x", -1.0),)}, "Scorer x has the weight -1; use 0 or more"),
        ({"judges": (Judge("x", 0.0),)}, "Every scorer has the weight 0"),
        ({"judges": (Judge("x"), Judge("x"))}, "Scorer x is named twice"),
    ],
    ids=["normalise", "memory", "calibration", "negative", "all zero", "twice"],
)
def test_scoring_that_cannot_be_is_refused(
    values: dict[str, object], message: str
) -> None:
    """One clear sentence."""
    with pytest.raises(StudyError, match=message):
        ScoringSettings(**values)  # type: ignore[arg-type]


def test_settings_with_scorers_round_trip_and_old_ones_have_one() -> None:
    """The study's `scorer` field goes on meaning what it meant."""
    judges = (Judge("a", 2.0, "w.pt", (("label", "good"),)), Judge("b"))
    scoring = ScoringSettings(judges, "z", 2, "unload")
    chosen = fake_settings(scoring=scoring)
    text = json.dumps(chosen.to_json())
    assert StudySettings.from_json(json.loads(text)) == chosen
    assert chosen.judges == judges
    old = fake_settings().to_json()
    del old["scoring"], old["held_out_payloads"]
    read = StudySettings.from_json(old)
    assert read == fake_settings()
    assert read.judges == (Judge("fake"),)


def test_damaged_scales_are_named() -> None:
    """And what to do about them."""
    for data in ({"one": {"mean": 0.0}}, [1], {"one": {"mean": 0.0, "sd": 0.0}}):
        with pytest.raises(StudyError, match=r"scales.json is damaged; delete it"):
            scales_from_json(data, "scales.json")


def record(number: int, *pairs: tuple[float, float], state: str = COMPLETE) -> object:
    """A trial whose pictures have these raw values; its score is provisional."""
    images = tuple(
        ImageScore(f"s{i}", "cat", i, "x", {"one": one, "two": two}, 0.5)
        for i, (one, two) in enumerate(pairs)
    )
    score = None if state == FAILED else 0.5
    return TrialRecord(number, number, 0, "", {"M00": 0.1}, state, score, images)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study of two scorers, z over its first two whole trials."""
    scoring = ScoringSettings(TWO, "z", n_calibration=2)
    return create_study(tmp_path, fake_settings(scoring=scoring))


def store(study: Study, *records: object) -> None:
    """Save trials."""
    for one in records:
        assert isinstance(one, TrialRecord)
        save_record(study.trial_dir(one.number), one)


def test_scales_freeze_on_the_first_whole_trials_once(study: Study) -> None:
    """Failed ones do not count; what was told before is corrected; it survives."""
    keeper = ScoreKeeper(study, RANGES)
    store(study, record(0, (0.0, 10.0), (2.0, 30.0)), record(1, state=FAILED))
    assert not keeper.settle()
    store(study, record(2, (1.0, 20.0), (5.0, 24.0)))
    assert keeper.settle()
    assert not keeper.settle()
    scales = keeper.scoring.scales
    assert scales is not None
    assert scales["one"] == Scale(2.0, statistics.stdev([0, 2, 1, 5]))
    assert scales["two"].mean == 21.0
    store(study, record(3, (9.0, 99.0), (9.0, 99.0)))
    again = ScoreKeeper(open_study(study.folder), RANGES)
    assert again.scoring == keeper.scoring
    assert not again.settle()
    for one in study.records():
        if one.number in (0, 2):
            expected = [keeper.score(image.raws, "cat") for image in one.images]
            assert [image.score for image in one.images] == expected
            assert one.score == pytest.approx(statistics.fmean(expected))


def test_other_worker_takes_over_scales_that_one_froze(study: Study) -> None:
    """It learns of it when it settles its own trial, and is told to read again."""
    mine, other = ScoreKeeper(study, RANGES), ScoreKeeper(study, RANGES)
    store(study, record(0, (0.0, 10.0)), record(1, (2.0, 30.0)))
    assert other.settle()
    before = mine.score({"one": 3.0, "two": 20.0}, "cat")
    assert mine.settle()
    assert mine.scoring == other.scoring
    assert mine.score({"one": 3.0, "two": 20.0}, "cat") != before


def test_few_trials_freeze_on_what_there_will_be(tmp_path: Path) -> None:
    """A study of one trial does not wait for three."""
    scoring = ScoringSettings(TWO, "z")
    small = create_study(tmp_path, fake_settings(scoring=scoring, n_trials=1))
    store(small, record(0, (0.0, 10.0), (2.0, 30.0)))
    assert ScoreKeeper(small, RANGES).settle()


def test_rescoring_equals_scoring_with_the_other_weights() -> None:
    """From raw values alone; trials without scores stay as they are."""
    old = (record(0, (0.0, 3.0), (2.0, -1.0)), record(1, state=FAILED))
    scoring = Scoring({"one": 1.0, "two": 1.0})
    new = rescore(old, scoring, tally_id="min", reversed_names={"cat"})  # type: ignore[arg-type]
    pictures = [(sigmoid(0) + sigmoid(-3)) / 2, (sigmoid(-2) + sigmoid(1)) / 2]
    assert [i.score for i in new[0].images] == pytest.approx(pictures)
    assert new[0].score == pytest.approx(min(pictures))
    assert new[1] == old[1]


def test_pruned_trial_is_estimated_again_over_all_shots() -> None:
    """Its first shot is the easy one: the mean of what it rendered would flatter it."""
    scoring = Scoring({"one": 1.0, "two": 0.0})
    whole = record(0, (2.0, 0), (-2.0, 0))
    pruned = record(1, (2.0, 0), state=PRUNED)
    new = rescore((whole, pruned), scoring, tally_id="arithmetic")  # type: ignore[arg-type]
    assert new[1].images[0].score == sigmoid(2.0)
    assert new[1].score == pytest.approx((sigmoid(2) + sigmoid(-2)) / 2)


def test_study_gets_other_weights_and_can_be_resumed(
    study: Study, make_result: Callable[[Study], Path]
) -> None:
    """Settings and scores change together; the scales and the raw values stay."""
    store(study, record(0, (0.0, 10.0), (2.0, 30.0)), record(1, (1.0, 20.0)))
    keeper = ScoreKeeper(study, RANGES)
    keeper.settle()
    scales = (study.folder / SCALES).read_text()
    result = make_result(study)
    changed = rescore_study(open_study(study.folder), {"two": 0.0})
    assert [judge.weight for judge in changed.settings.judges] == [1.0, 0.0]
    assert open_study(study.folder).settings == changed.settings
    assert (study.folder / SCALES).read_text() == scales
    assert not result.exists()
    scoring = study_scoring(changed, RANGES)
    for one in changed.records():
        assert [i.score for i in one.images] == [
            scoring.score({"one": i.raws["one"], "two": 1e9}) for i in one.images
        ]
    with pytest.raises(UnknownIdError, match=r"three did not judge .* are: one, two"):
        rescore_study(changed, {"three": 1.0})
    with pytest.raises(StudyError, match="Every scorer has the weight 0"):
        rescore_study(changed, {"one": 0.0})


@pytest.fixture
def make_result() -> Callable[[Study], Path]:
    """Stands in for the result of a finished study."""

    def make(study: Study) -> Path:
        study.result_path.write_text("{}")
        return study.result_path

    return make


def test_held_out_payloads_are_rendered_at_the_end_only() -> None:
    """Beside the others, on unseen seeds; a payload cannot be both."""
    from lib_merge.autombw.settings import shots

    first, second = fake_settings().payloads
    chosen = fake_settings(payloads=(first,), held_out_payloads=(second,))
    assert {s.payload.name for s in shots(chosen)} == {"cat"}
    assert len(shots(chosen, is_held_out=True)) == chosen.n_held_out_images == 6
    assert {s.payload.name for s in shots(chosen, is_held_out=True)} == {"cat", "dog"}
    assert StudySettings.from_json(chosen.to_json()) == chosen
    twin = replace(second, name="cat")
    with pytest.raises(StudyError, match="'cat' is both searched with and held out"):
        fake_settings(payloads=(first,), held_out_payloads=(twin,))
