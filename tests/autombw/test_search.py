"""The samplers: functions of what was decided alone, in any mode of a host."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from lib_merge.autombw.search import (
    N_STARTUP,
    SAMPLERS,
    Search,
    Slot,
    study_distributions,
)
from lib_merge.autombw.space import Axis, BlockRange
from lib_merge.core.blocks import BlockId
from lib_merge.errors import StudyError, UnknownIdError
from tests.support.fake_study_host import fake_settings

AXES = (
    BlockRange(BlockId("IN00")),
    BlockRange(BlockId("M00"), 0.25, 0.75),
    BlockRange(BlockId("OUT"), 0.5, 0.5),
)
MIXED = (
    *AXES,
    Axis("method", 0, 2, "method", choices=("sum", "slerp", "mean")),
    Axis("rank", 1, 8, "rank", is_integer=True),
)


def worth(point: dict[str, float]) -> float:
    """Tops at 0.7 and 0.3; with MIXED also at the second method and rank 6."""
    value = 1 - (point["IN00"] - 0.7) ** 2 - (point["M00"] - 0.3) ** 2
    if "method" in point:
        value -= 0.1 * (point["method"] != 1) + 0.01 * abs(point["rank"] - 6)
    return value


def slots(n: int, *, is_mixed: bool = False) -> list[Slot]:
    """Decided slots of a smooth score; two start points, one that failed."""
    draw = random.Random(5)
    found = []
    for i in range(n):
        point = {"IN00": draw.random(), "M00": draw.uniform(0.25, 0.75), "OUT": 0.5}
        if is_mixed:
            choices = (draw.randint(0, 2), draw.randint(1, 8))
            point |= dict(zip(("method", "rank"), map(float, choices), strict=True))
        score = None if i == 4 else worth(point)
        found.append(Slot(point, score, is_start=i < 2))
    return found


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_suggestion_depends_on_the_slots_alone(sampler: str) -> None:
    """One search that grew, and one that was resumed, go on alike."""
    grown, resumed = Search(AXES, sampler, 7), Search(AXES, sampler, 7)
    for slot in slots(2):
        grown.tell(slot)
    for i in range(12):
        point = {**grown.suggest(), "OUT": 0.5}
        score = None if i == 3 else worth(point)
        grown.tell(Slot(point, score, is_start=False))
    resumed.replay(grown.slots)
    assert grown.suggest() == resumed.suggest()
    assert resumed.suggest() == resumed.suggest()
    other = Search(AXES, sampler, 8)
    other.replay(grown.slots)
    assert grown.suggest() != other.suggest()


def test_gaussian_process_resumed_anywhere_goes_on_as_it_would_have() -> None:
    """Also between two fits, with trials given up early and luck that is learnt."""
    draw = random.Random(11)
    grown = Search(AXES, "gp", 7)
    suggested = []
    for i in range(40):
        suggested.append(grown.suggest())
        point = {**suggested[-1], "OUT": 0.5}
        n_images = 3 if i % 3 == 2 else 8
        scores = {f"p{k}": worth(point) + draw.gauss(0, 0.1) for k in range(n_images)}
        mean = sum(scores.values()) / n_images
        is_pruned = n_images < 8
        grown.tell(Slot(point, mean, False, is_pruned=is_pruned, images=scores))
    for n in range(16, 40):
        resumed = Search(AXES, "gp", 7)
        resumed.replay(grown.slots[:n])
        assert resumed.suggest() == suggested[n], n


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("axes", [AXES, MIXED], ids=["blocks", "mixed"])
def test_suggestions_stay_in_their_limits_and_differ(
    sampler: str, axes: tuple[BlockRange | Axis, ...]
) -> None:
    """Fixed axes are not searched; a failed slot is not suggested again."""
    search = Search(axes, sampler, 1)
    search.replay(slots(2, is_mixed=axes is MIXED))
    seen = []
    for i in range(N_STARTUP + 4):
        point = search.suggest()
        assert point.keys() == {a.name for a in axes if not a.is_fixed}
        for axis in axes:
            value = point.get(axis.name, axis.low)
            assert axis.low <= value <= axis.high
            assert value == axis.clamp(value)
        seen.append(tuple(point.values()))
        score = None if i % 5 == 0 else worth(point)
        search.tell(Slot({**point, "OUT": 0.5}, score, is_start=False))
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_workers_that_ask_at_once_get_points_of_their_own(sampler: str) -> None:
    search = Search(AXES, sampler, 1)
    search.replay(slots(N_STARTUP + 2))
    alone = search.suggest()
    second = search.suggest([{**alone, "OUT": 0.5}])
    third = search.suggest([{**alone, "OUT": 0.5}, {**second, "OUT": 0.5}])
    found = [tuple(point.values()) for point in (alone, second, third)]
    assert len(set(found)) == 3
    assert search.suggest() == alone


@pytest.mark.parametrize("mode", ["inference_mode", "no_grad"])
@pytest.mark.parametrize("sampler", ["gp", "gp_optuna"])
def test_gaussian_process_suggests_inside_a_hosts_mode(mode: str, sampler: str) -> None:
    """WebUIs call us inside inference_mode, where Optuna's sampler alone fails."""
    torch = pytest.importorskip("torch")
    outside = Search(AXES, sampler, 3)
    outside.replay(slots(N_STARTUP + 2))
    expected = outside.suggest()
    with getattr(torch, mode)():
        inside = Search(AXES, sampler, 3)
        inside.replay(slots(N_STARTUP + 2))
        assert inside.suggest() == expected


def best_of(search: Search, n: int) -> float:
    """The best of n suggestions."""
    scores = []
    for _ in range(n):
        point = search.suggest()
        scores.append(worth(point))
        search.tell(Slot({**point, "OUT": 0.5}, scores[-1], is_start=False))
    return max(scores)


@pytest.mark.parametrize(
    ("sampler", "n", "miss"),
    [("gp", 18, 0.001), ("cmaes", 60, 0.01)],
)
def test_sampler_finds_the_top_of_a_smooth_score(
    sampler: str, n: int, miss: float
) -> None:
    """It is a search, not a draw."""
    found = best_of(Search(AXES, sampler, 0), n)
    assert found > 1 - miss
    assert found > best_of(Search(AXES, "random", 0), n)


def test_gaussian_process_finds_a_choice_and_a_whole_number() -> None:
    assert best_of(Search(MIXED, "gp", 0), 40) > 0.97


def test_gaussian_process_trusts_whole_trials_more_than_estimates() -> None:
    """A high estimate from one picture moves the belief less than twelve would."""
    base = [
        replace(s, images={f"p{k}": (s.score or 0) + d for k, d in enumerate(luck)})
        for s in slots(14)
        if s.score is not None
        for luck in [[0.2, -0.2, 0.1, -0.1, 0.3, -0.3]]
    ]
    point = {"IN00": 0.1, "M00": 0.7, "OUT": 0.5}
    believed = []
    for changes in (
        {"images": dict.fromkeys([f"p{k}" for k in range(6)], 1.4)},
        {"images": {"p0": 1.4}, "is_pruned": True},
    ):
        search = Search(AXES, "gp", 0)
        high = Slot(point, 1.4, is_start=False)
        search.replay([*base, replace(high, **changes)])  # type: ignore[arg-type]
        near = Slot({**point, "IN00": 0.1001}, 0.5, is_start=False)
        search.tell(near)
        believed.append(search.beliefs()[len(base) + 1][0])
    assert believed[0] > believed[1]


def test_ranking_is_by_belief_and_holds_measured_slots_only() -> None:
    """A score that no neighbour confirms is not the first finalist."""
    draw = random.Random(2)
    found = []
    for _ in range(40):
        point = {"IN00": draw.random(), "M00": draw.uniform(0.25, 0.75), "OUT": 0.5}
        found.append(Slot(point, worth(point) + draw.gauss(0, 0.05), is_start=False))
    lucky = Slot({"IN00": 0.3, "M00": 0.6, "OUT": 0.5}, 1.15, is_start=False)
    pruned = replace(lucky, score=2.0, is_pruned=True)
    search = Search(AXES, "random", 0)
    search.replay([*found, lucky, pruned])
    order = search.ranking()
    assert sorted(order) == list(range(41))
    assert order[0] != 40
    assert max(s.score or 0 for s in found) < 1.15
    few = Search(AXES, "random", 0)
    few.replay([*found[:3], lucky])
    assert few.ranking()[0] == 3


def test_constraint_is_kept_when_the_top_breaks_it() -> None:
    """Beyond IN00 = 0.5 merges are inadmissible; the top lies at 0.7."""
    search = Search(AXES, "gp", 0)
    last = []
    for i in range(30):
        point = {**search.suggest(), "OUT": 0.5}
        miss = point["IN00"] - 0.5
        search.tell(Slot(point, worth(point), is_start=False, constraint=miss))
        last += [point["IN00"]] if i >= 20 else []
    assert sum(value <= 0.55 for value in last) >= 7
    best = search.slots[search.ranking()[0]]
    assert best.is_admissible
    assert best.point["IN00"] > 0.45


@pytest.mark.parametrize("sampler", ["gp", "tpe", "nsga2"])
def test_two_objectives_are_both_followed(sampler: str) -> None:
    """Score rises with IN00, diversity falls: points from end to end are suggested."""
    search = Search(AXES, sampler, 0, n_objectives=2)
    for _ in range(24):
        point = {**search.suggest(), "OUT": 0.5}
        score, other = point["IN00"], 1 - point["IN00"]
        search.tell(Slot(point, score, is_start=False, values=(other,)))
    found = [slot.point["IN00"] for slot in search.slots]
    assert min(found) < 0.3
    assert max(found) > 0.7


def test_search_is_refused_when_it_cannot_be_done() -> None:
    with pytest.raises(StudyError, match="Every block is fixed"):
        Search(AXES[2:], "gp", 0)
    with pytest.raises(StudyError, match="follows one objective"):
        Search(AXES, "cmaes", 0, n_objectives=2)
    with pytest.raises(UnknownIdError, match="use one of: gp"):
        Search(AXES, "grid", 0)
    with pytest.raises(StudyError, match="at least two free axes"):
        Search(AXES[:1], "cmaes", 0).suggest()


def test_optuna_is_told_of_every_free_axis() -> None:
    """So its own tools show a study as it is."""
    axes = (Axis("method", 0, 1, "method", choices=("weighted_sum", "slerp")),)
    settings = fake_settings(axes=axes, methods=("weighted_sum", "slerp"))
    described = study_distributions(settings)
    assert described.keys() == {a.name for a in settings.space.axes}
    assert described["method"].choices == (0, 1)
