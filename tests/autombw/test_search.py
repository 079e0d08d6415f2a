"""The samplers: functions of what was decided alone, in any mode of a host."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from lib_merge.autombw.journal import STUDY_NAME
from lib_merge.autombw.runner import StudyRunner
from lib_merge.autombw.search import N_STARTUP, SAMPLERS, Search, Slot
from lib_merge.autombw.space import BlockRange
from lib_merge.autombw.study import Study
from lib_merge.core.blocks import BlockId
from lib_merge.errors import StudyError

RANGES = (
    BlockRange(BlockId("IN00")),
    BlockRange(BlockId("M00"), 0.25, 0.75),
    BlockRange(BlockId("OUT"), 0.5, 0.5),
)


def slots(n: int) -> list[Slot]:
    """Decided slots of a smooth score; two start points, one that failed."""
    draw = random.Random(5)
    found = []
    for i in range(n):
        point = {"IN00": draw.random(), "M00": draw.uniform(0.25, 0.75), "OUT": 0.5}
        score = 1 - (point["IN00"] - 0.7) ** 2 - (point["M00"] - 0.3) ** 2
        found.append(Slot(point, None if i == 4 else score, is_start=i < 2))
    return found


@pytest.mark.parametrize("sampler", ["gp", "tpe", "random"])
def test_suggestion_depends_on_the_slots_alone(sampler: str) -> None:
    """One search that grew and one that was told everything at once agree."""
    grown, told = Search(RANGES, sampler, 7), Search(RANGES, sampler, 7)
    for slot in slots(13):
        if not slot.is_start:
            grown.suggest()
        grown.tell(slot)
    told.replay(slots(13))
    assert grown.suggest() == told.suggest()
    assert told.suggest() == told.suggest()
    assert grown.suggest() != Search(RANGES, sampler, 8).suggest()


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_suggestions_stay_in_their_ranges_and_differ(sampler: str) -> None:
    """Fixed blocks are not searched; a failed slot is not suggested again."""
    search = Search(RANGES, sampler, 1)
    search.replay(slots(2))
    seen = []
    for i in range(N_STARTUP + 4):
        point = search.suggest()
        assert point.keys() == {"IN00", "M00"}
        assert 0 <= point["IN00"] <= 1
        assert 0.25 <= point["M00"] <= 0.75
        seen.append(tuple(point.values()))
        score = None if i % 5 == 0 else -((point["IN00"] - 0.7) ** 2)
        search.tell(Slot({**point, "OUT": 0.5}, score, is_start=False))
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("mode", ["inference_mode", "no_grad"])
def test_gaussian_process_suggests_inside_a_hosts_mode(mode: str) -> None:
    """WebUIs call us inside inference_mode, where Optuna's sampler alone fails."""
    torch = pytest.importorskip("torch")
    outside = Search(RANGES, "gp", 3)
    outside.replay(slots(N_STARTUP + 2))
    expected = outside.suggest()
    with getattr(torch, mode)():
        inside = Search(RANGES, "gp", 3)
        inside.replay(slots(N_STARTUP + 2))
        assert inside.suggest() == expected


def test_gaussian_process_finds_the_top_of_a_smooth_score() -> None:
    """It is a search, not a draw."""
    found = best_of(Search(RANGES, "gp", 0), 26)
    assert found > -0.001
    assert found > best_of(Search(RANGES, "random", 0), 26)


def best_of(search: Search, n: int) -> float:
    """The best of n suggestions, for a score whose top lies at 0.7 and 0.3."""
    scores = []
    for _ in range(n):
        point = search.suggest()
        scores.append(-((point["IN00"] - 0.7) ** 2) - (point["M00"] - 0.3) ** 2)
        search.tell(Slot({**point, "OUT": 0.5}, scores[-1], is_start=False))
    return max(scores)


def test_cmaes_warns_and_goes_on_when_it_would_suggest_otherwise(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Points of another library version are kept, and said to be others."""
    search = Search(RANGES, "cmaes", 0)
    search.replay(slots(8))
    assert "another point for slot 2" in caplog.text
    assert search.n_slots == 8
    assert search.suggest().keys() == {"IN00", "M00"}


def test_search_without_a_free_block_is_refused() -> None:
    """There is nothing to search."""
    with pytest.raises(StudyError, match="Every block is fixed"):
        Search(RANGES[2:], "gp", 0)


def test_journal_is_an_ordinary_optuna_study(
    make_study: Callable[..., Study], run: Callable[[Study], StudyRunner]
) -> None:
    """Optuna's own tools open it and see points, scores and pictures' scores."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    study = make_study(n_trials=6)
    run(study)
    storage = optuna.storages.JournalStorage(
        JournalFileBackend(str(study.journal_path))
    )
    loaded = optuna.load_study(study_name=STUDY_NAME, storage=storage)
    for trial, record in zip(loaded.trials, study.records(), strict=True):
        assert trial.params == record.point
        assert trial.value == record.score
        assert trial.user_attrs["image_scores"] == [i.score for i in record.images]
        assert trial.user_attrs["label"] == record.label
    assert loaded.best_value == max(r.score or 0 for r in study.records())
