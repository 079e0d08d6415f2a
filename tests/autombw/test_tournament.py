"""Tournaments: who meets whom, who waits, and going on after an accident."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lib_merge.autombw import tournaments as module
from lib_merge.autombw._files import write_json
from lib_merge.autombw.results import Candidate, StudyResult
from lib_merge.autombw.settings import StudySettings
from lib_merge.autombw.study import Study
from lib_merge.autombw.tournament import Tournament
from lib_merge.autombw.tournaments import (
    create_tournament,
    find_tournament,
    lines,
    list_tournaments,
)
from lib_merge.errors import InputError, StudyError
from tests.support.fake_study_host import fake_settings


@pytest.fixture(autouse=True)
def plain_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models need not be there."""

    def new(
        name: str, method: str, models: list[str], *, folders: object, **more: object
    ) -> StudySettings:
        return fake_settings(
            name=name, method=method, models=tuple(map(str, models)), **more
        )

    monkeypatch.setattr(module, "new_settings", new)


def made(folder: Path, n_models: int, **options: object) -> Tournament:
    """A tournament of some models."""
    models = [f"/models/m{i}.safetensors" for i in range(1, n_models + 1)]
    return create_tournament(folder, "cup", models, **options)  # type: ignore[arg-type]


def scoring(
    scores: dict[str, float], failing: tuple[str, ...] = ()
) -> Callable[[Study], StudyResult | None]:
    """Ends every study at once with a given score, and saves its winner."""

    def run(study: Study) -> StudyResult | None:
        settings = study.settings
        if settings.name in failing:
            raise StudyError("no luck")
        output = Path(settings.checkpoint or "")
        output.write_bytes(b"merged")
        score = scores.get(settings.name, 0.5)
        best = Candidate("trial 1", 1, {}, score, score, ())
        result = StudyResult((best,), "trial 1", (), 1.0, checkpoint=str(output))
        write_json(study.result_path, result.to_json())
        return result

    return run


def plan(tournament: Tournament) -> list[str]:
    """Its lines without scores."""
    return [line.partition("  ")[0] for line in lines(tournament)]


def test_four_models_meet_in_pairs_then_their_winners(tmp_path: Path) -> None:
    """Two rounds, three studies; the plan is known before anything ran."""
    cup = made(tmp_path, 4)
    assert plan(cup) == [
        "round 1: cup-1.1 = m1 + m2",
        "round 1: cup-1.2 = m3 + m4",
        "round 2: cup-2.1 = cup-1.1 + cup-1.2",
    ]
    result = cup.run(scoring({"cup-2.1": 0.9}))
    assert result is not None
    assert result.best.score == 0.9
    last = cup.study(cup.last())
    assert last is not None
    assert [Path(m).name for m in last.settings.models] == [
        "cup-1.1.safetensors",
        "cup-1.2.safetensors",
    ]


def test_best_scoring_of_an_odd_number_waits(tmp_path: Path) -> None:
    """Five winners: the best is held over a round, and plays in the next."""
    cup = made(tmp_path, 10)
    cup.run(scoring({"cup-1.3": 0.8, "cup-1.1": 0.7}))
    assert plan(cup)[5:] == [
        "round 2: cup-2.1 = cup-1.1 + cup-1.2",
        "round 2: cup-2.2 = cup-1.4 + cup-1.5",
        "round 2: cup-1.3 waits",
        "round 3: cup-3.1 = cup-2.2 + cup-1.3",
        "round 3: cup-2.1 waits",
        "round 4: cup-4.1 = cup-3.1 + cup-2.1",
    ]


def test_last_of_an_odd_number_of_given_models_waits_once(tmp_path: Path) -> None:
    """Nothing is scored in the first round; who waited then plays in the second."""
    cup = made(tmp_path, 5)
    cup.run(scoring({"cup-1.1": 0.6, "cup-1.2": 0.7}))
    assert plan(cup) == [
        "round 1: cup-1.1 = m1 + m2",
        "round 1: cup-1.2 = m3 + m4",
        "round 1: m5 waits",
        "round 2: cup-2.1 = cup-1.1 + m5",
        "round 2: cup-1.2 waits",
        "round 3: cup-3.1 = cup-2.1 + cup-1.2",
    ]


def test_pool_is_one_study_over_the_weights(tmp_path: Path) -> None:
    """Every model's weight is an axis."""
    cup = made(tmp_path, 3, kind="pool")
    (node,) = cup.rounds()[0].nodes
    settings = cup.settings(node)
    assert settings.method == "weighted_mean"
    assert [axis.name for axis in settings.space.free] == [
        "weight@1",
        "weight@2",
        "weight@3",
    ]
    labels = [start.label for start in settings.start_points()]
    assert labels == ["uniform", "only 1", "only 2", "only 3"]


def test_stopped_tournament_goes_on_where_it_was(tmp_path: Path) -> None:
    """Opened anew, done nodes are not run again."""
    cup = made(tmp_path, 4)
    done = scoring({})
    assert cup.run(lambda s: done(s) if s.settings.name == "cup-1.1" else None) is None
    ran = []

    def run(study: Study) -> StudyResult | None:
        ran.append(study.settings.name)
        return done(study)

    assert find_tournament(tmp_path, "cup").run(run) is not None
    assert ran == ["cup-1.2", "cup-2.1"]
    assert [t.name for t in list_tournaments(tmp_path)] == ["cup"]


def test_failing_node_does_not_hold_up_its_round(tmp_path: Path) -> None:
    """The other pair is merged; running again tries the failed one alone."""
    cup = made(tmp_path, 4)
    with pytest.raises(StudyError, match=r"1 nodes .*failed(.|\n)*cup-1.1: no luck"):
        cup.run(scoring({}, failing=("cup-1.1",)))
    assert cup.result(cup.rounds()[0].nodes[1]) is not None
    assert cup.run(scoring({})) is not None


def test_winner_that_was_not_saved_is_a_failure(tmp_path: Path) -> None:
    """The next round needs its file; the study's own note says why it is missing."""
    cup = made(tmp_path, 4)
    done = scoring({})

    def run(study: Study) -> StudyResult | None:
        result = done(study)
        assert result is not None
        result = replace(result, checkpoint=None, note="The disk was full.")
        write_json(study.result_path, result.to_json())
        return result

    with pytest.raises(StudyError, match=r"not saved as cup-1.1.*The disk was full"):
        cup.run(run)
    assert cup.run(done) is not None


@pytest.mark.parametrize(
    ("models", "message"),
    [(["a", "b"], "at least three models"), (["a", "b", "a"], "takes part twice")],
    ids=["two", "twice"],
)
def test_models_that_make_no_tournament_are_refused(
    models: list[str], message: str, tmp_path: Path
) -> None:
    """Before anything is written."""
    with pytest.raises(InputError, match=message):
        create_tournament(tmp_path, "cup", models)
    assert not (tmp_path / "tournaments").exists()


def test_tournament_of_the_same_name_is_refused(tmp_path: Path) -> None:
    """It is resumed instead."""
    made(tmp_path, 3)
    with pytest.raises(StudyError, match="resume it, or choose another name"):
        made(tmp_path, 3)
