"""Policies of a study: pruning, stopping, rungs, diversity; functions of slots."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib_merge.autombw import diversity, fidelity, pruning, stopping
from lib_merge.autombw.diversity import DiversitySettings
from lib_merge.autombw.fidelity import DRAFT, NO_HIRES, FidelitySettings, Rung
from lib_merge.autombw.history import (
    CONTROL_EVERY,
    N_WHOLE,
    Slot,
    best_slot,
    is_control,
    shot_effects,
)
from lib_merge.autombw.payloads import Payload
from lib_merge.autombw.pruning import PruningSettings
from lib_merge.autombw.stopping import StoppingSettings
from lib_merge.errors import StudyError

ON = PruningSettings(p_threshold=0.1, n_first=4)


def slot(scores: Sequence[float], **changes: object) -> Slot:
    """A measured slot with these pictures."""
    images = {f"p{i}.png": score for i, score in enumerate(scores)}
    mean = sum(scores) / len(scores)
    base = Slot(point={}, score=mean, is_start=False, images=images)
    return replace(base, **changes)  # type: ignore[arg-type]


# Pruning


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.integers(-9, 9).map(lambda i: i / 8) | st.floats(-1, 1),
        min_size=1,
        max_size=14,
    )
)
def test_p_value_is_scipys_when_nothing_is_tied(deltas: list[float]) -> None:
    """The exact distribution; with ties and zeros, a share of all sign patterns."""
    scipy = pytest.importorskip("scipy.stats")
    p = pruning.p_worse(deltas)
    assert 0 < p <= 1
    sizes = [abs(d) for d in deltas]
    if len(set(sizes)) == len(sizes) and all(sizes):
        wanted = scipy.wilcoxon(deltas, alternative="less", method="exact").pvalue
        assert p == pytest.approx(wanted, abs=1e-12)


def test_p_value_is_scipys_approximation_when_the_sample_is_large() -> None:
    """Above MAX_EXACT pairs, with ties and zeros."""
    scipy = pytest.importorskip("scipy.stats")
    draw = random.Random(1)
    deltas = [draw.randint(-5, 4) / 4 for _ in range(pruning.MAX_EXACT + 20)]
    wanted = scipy.wilcoxon(
        deltas, alternative="less", zero_method="zsplit", method="approx"
    ).pvalue
    assert pruning.p_worse(deltas) == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize(
    ("mine", "is_stopped"),
    [
        ([0.1, 0.2, 0.1], False),
        ([0.1, 0.2, 0.1, 0.3], True),
        ([0.9, 0.2, 0.1, 0.3], False),
        ([0.9, 0.9, 0.9, 0.9], False),
        ([0.1, 0.2, 0.1, 0.3, 0.2, 0.1], False),
    ],
    ids=["too few", "all worse", "one better", "better", "all are rendered"],
)
def test_trial_is_given_up_when_its_pictures_are_surely_worse(
    mine: list[float], is_stopped: bool
) -> None:
    incumbent = [0.5, 0.6, 0.4, 0.5, 0.5, 0.5]
    assert pruning.should_stop(ON, mine, incumbent) is is_stopped
    assert not pruning.should_stop(replace(ON, is_on=False), mine, incumbent)
    assert not pruning.should_stop(ON, mine, [])


def test_equal_trial_is_seldom_given_up() -> None:
    """One look at a time adds up, but stays the exception."""
    draw = random.Random(3)
    stopped = 0
    for _ in range(300):
        incumbent = [draw.gauss(0, 1) for _ in range(12)]
        mine = [i + draw.gauss(0, 1) for i in incumbent]
        looks = (pruning.should_stop(ON, mine[:n], incumbent) for n in range(4, 12))
        stopped += any(looks)
    assert stopped < 90


def test_order_of_shots_starts_with_what_tells_the_most() -> None:
    """Shot 2 follows the whole trial; shot 0 is luck, and comes last."""
    draw = random.Random(0)
    slots = []
    for _ in range(12):
        level = draw.gauss(0, 1)
        shots = [draw.gauss(0, 4), level + draw.gauss(0, 0.5), level]
        slots.append(slot([*shots, level - shots[0] / 3]))
    names = list(slots[0].images)
    order = pruning.shot_order(names, slots)
    assert sorted(order) == [0, 1, 2, 3]
    assert order[0] == 2
    assert order[-1] in (0, 3)
    assert order == pruning.shot_order(names, [*slots, slot([1.0], is_pruned=True)])


@pytest.mark.parametrize("n", [1, 2, 5, 12, 17])
def test_order_of_shots_alternates_when_nothing_is_known(n: int) -> None:
    order = pruning.shot_order([f"p{i}" for i in range(n)], [])
    assert sorted(order) == list(range(n))
    assert n < 4 or abs(order[0] - order[1]) > 1


def test_incumbent_is_the_best_whole_trial_in_the_order_of_rendering() -> None:
    """An estimate never is held against others."""
    slots = [
        slot([0.1, 0.2]),
        slot([0.5, 0.7]),
        slot([0.9, 0.9], is_pruned=True),
        slot([0.9, 0.9], rung="draft"),
    ]
    assert pruning.incumbent_scores(["p1.png", "p0.png"], slots) == (0.7, 0.5)
    assert pruning.incumbent_scores(["p9.png"], slots) == ()
    assert pruning.incumbent_scores(["p0.png"], []) == ()


def test_pruned_trial_is_filled_with_what_its_pictures_let_expect() -> None:
    """Easy shots stay easy; the level is the trial's own."""
    effects = shot_effects([slot([0.1, 0.5, 0.9]), slot([0.3, 0.7, 1.1])])
    assert effects.luck == pytest.approx(0.0, abs=1e-9)
    assert effects.fill({"p0.png": 0.0}) == pytest.approx(
        {"p0.png": 0.0, "p1.png": 0.4, "p2.png": 0.8}
    )
    assert effects.fill({"other.png": 0.5}) == {"other.png": 0.5}


def test_shots_are_learnt_from_controls_alone() -> None:
    """Survivors were lucky in their first pictures: that is no news of the shots."""
    fair = [slot([0.5, 0.5, 0.5])] * N_WHOLE
    lucky = [slot([0.9, 0.5, 0.5])] * (CONTROL_EVERY - 1)
    assert [is_control(n) for n in (0, 9, 10, 11, 20)] == [
        True,
        True,
        True,
        False,
        True,
    ]
    effects = shot_effects([*fair, fair[0], *lucky])
    assert effects.effects["p0.png"] == pytest.approx(0.0)
    assert effects.level({"p0.png": 0.4}) == pytest.approx(0.4)


# Stopping


def reason(slots: Sequence[Slot], seconds: float = 0.0, **limits: object) -> str | None:
    """Why a search of 50 trials ends."""
    told = StoppingSettings(**limits)  # type: ignore[arg-type]
    return stopping.reason(told, slots, seconds, n_trials=50)


def test_search_ends_at_whatever_limit_comes_first() -> None:
    slots = [slot([0.5, 0.5])]
    assert reason(slots) is None
    assert "50 trials are done" in str(reason(slots * 50))
    assert "time budget of 2 hours" in str(reason(slots, 7201, time_budget_s=7200))
    assert reason(slots, 7199, time_budget_s=7200) is None
    assert "target score 0.5 is reached" in str(reason(slots, target_score=0.5))
    pruned = [replace(slots[0], is_pruned=True)]
    assert reason(pruned, target_score=0.5) is None


def test_search_ends_without_gain_but_not_while_it_gains() -> None:
    """Twenty-seven by default; 0 goes on for ever."""
    first = slot([0.5, 0.5], is_start=True)
    dull = [first, *[slot([0.4, 0.4])] * 27]
    assert reason(dull[:-1]) is None
    assert "last 27 trials" in str(reason(dull))
    assert reason(dull, n_without_gain=0) is None
    assert reason([*dull[:20], slot([0.6, 0.6]), *dull[1:20]]) is None


def test_gain_is_none_when_it_is_within_noise() -> None:
    """The same mean gain counts when it is even, and not when it is luck."""
    old = slot([0.5, 0.5, 0.5, 0.5])
    even, luck = [0.51] * 4, [0.9, 0.1, 0.9, 0.14]
    assert sum(even) == pytest.approx(sum(luck), abs=0.01)
    assert stopping.is_gain(slot(even), old, luck=0.001)
    assert not stopping.is_gain(slot(luck), old, luck=0.001)
    assert not stopping.is_gain(slot(even), old, luck=0.2)
    assert not stopping.is_gain(slot(even, is_pruned=True), old, luck=None)
    assert stopping.is_gain(replace(old, score=0.51, images={}), old, luck=0.2)


def test_search_for_two_objectives_goes_on_while_its_front_widens() -> None:
    """A trial that is worse in both is no gain, one that is unlike is."""
    first = slot([0.5], values=(0.5,))
    wider = [first, slot([0.4], values=(0.6,)), slot([0.3], values=(0.3,))]
    assert stopping.n_since_wider(wider) == 1
    told = StoppingSettings(n_without_gain=2)
    options = {"n_trials": 50, "n_objectives": 2}
    assert stopping.reason(told, wider, 0.0, **options) is None
    assert stopping.reason(told, [*wider, wider[-1]], 0.0, **options)


@pytest.mark.parametrize(
    "limits",
    [{"n_without_gain": -1}, {"time_budget_s": 0.0}, {"target_score": math.nan}],
    ids=lambda limits: str(*limits),
)
def test_stopping_is_refused_when_a_limit_is_none(limits: dict[str, float]) -> None:
    with pytest.raises(StudyError, match="is"):
        StoppingSettings(**limits)  # type: ignore[arg-type]


# Fidelity

WITH_RUNG = FidelitySettings(rungs=(DRAFT,), n_calibration=6)


def both(n: int, *, noise: float, seed: int = 0) -> list[Slot]:
    """Trials with a cheap and a full score."""
    draw = random.Random(seed)
    found = []
    for _ in range(n):
        level = draw.random()
        cheap = 0.5 * level + draw.gauss(0, noise)
        found.append(slot([level], rungs={"draft": cheap}))
    return found


def test_rung_shrinks_what_costs_and_keeps_what_is_drawn() -> None:
    payload = Payload("p", "a cat", width=1344, height=768, steps=48, enable_hr=True)
    draft = fidelity.cheaper(payload, DRAFT)
    assert (draft.width, draft.height, draft.steps) == (640, 384, 24)
    assert not draft.enable_hr
    assert draft.prompt == "a cat"
    no_hires = fidelity.cheaper(payload, NO_HIRES)
    assert no_hires == replace(payload, enable_hr=False)
    request = payload.requests()[0]
    assert fidelity.cost(request) > 3.5 * fidelity.cost(no_hires.requests()[0])


@pytest.mark.parametrize(
    ("side", "wanted"), [(64, 32), (512, 256), (320, 160), (8, 8), (768, 384)]
)
def test_rung_keeps_sides_that_a_model_can_draw(side: int, wanted: int) -> None:
    payload = Payload("p", "a cat", width=side, height=side)
    tiny = fidelity.cheaper(payload, Rung("tiny", size_scale=0.5))
    assert (tiny.width, tiny.height) == (wanted, wanted)
    least = fidelity.cheaper(payload, Rung("least", size_scale=0.01))
    assert least.width >= min(side, 8)


def test_rung_screens_once_it_was_calibrated() -> None:
    slots = both(8, noise=0.01)
    assert fidelity.decide(FidelitySettings(), slots).rungs == ()
    assert fidelity.decide(WITH_RUNG, slots[:5]).is_whole
    plan = fidelity.decide(WITH_RUNG, slots)
    assert plan.rungs == (DRAFT,)
    assert not plan.is_whole
    control = fidelity.decide(WITH_RUNG, [*slots, *slots[:2]])
    assert control.is_whole
    assert "control" in control.reason


def test_rung_is_dropped_when_it_ranks_otherwise() -> None:
    slots = both(8, noise=5.0)
    assert fidelity.rank_correlation(slots, "draft") < 0.6  # type: ignore[operator]
    plan = fidelity.decide(WITH_RUNG, slots)
    assert plan.rungs == ()
    assert "no rung ranks" in plan.reason
    assert fidelity.rank_correlation(slots[:3], "draft") is None


def test_correlation_is_scipys() -> None:
    scipy = pytest.importorskip("scipy.stats")
    slots = both(20, noise=0.2)
    slots[3] = replace(slots[4])
    cheap = [s.rungs["draft"] for s in slots]
    full = [s.score or 0.0 for s in slots]
    wanted = scipy.spearmanr(cheap, full).statistic
    assert fidelity.rank_correlation(slots, "draft") == pytest.approx(wanted)


def test_screened_trial_goes_on_when_it_is_among_the_best() -> None:
    slots = both(9, noise=0.01)
    cheap = sorted(s.rungs["draft"] for s in slots)
    assert fidelity.goes_on(WITH_RUNG, slots, DRAFT, cheap[-1] + 0.01)
    assert fidelity.goes_on(WITH_RUNG, slots, DRAFT, cheap[-3] + 1e-6)
    assert not fidelity.goes_on(WITH_RUNG, slots, DRAFT, cheap[0])


def test_screened_trial_enters_with_the_full_score_it_lets_expect() -> None:
    """full = 2 x cheap here; with a useless rung it is the mean."""
    slots = both(30, noise=0.0)
    assert fidelity.full_score(slots, "draft", 0.3) == pytest.approx(0.6)
    assert fidelity.full_score_error(slots, "draft") == pytest.approx(0, abs=1e-9)
    flat = [replace(s, rungs={"draft": 0.5}) for s in slots]
    mean = sum(s.score or 0 for s in slots) / 30
    assert fidelity.full_score(flat, "draft", 0.9) == pytest.approx(mean)
    assert fidelity.full_score(slots[:3], "draft", 0.3) is None


def test_fidelity_settings_round_trip_through_json() -> None:
    told = FidelitySettings(rungs=(DRAFT, NO_HIRES), keep=0.5)
    assert FidelitySettings.from_json(told.to_json()) == told


# Diversity


def test_diversity_is_0_for_copies_and_1_for_strangers() -> None:
    one, other = [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]
    assert diversity.of([[one, one, one]]) == pytest.approx(0.0)
    assert diversity.of([[one, other]]) == 1.0
    mixed = diversity.of([[one, one], [one, other], [one]])
    assert mixed == pytest.approx(0.5)
    assert diversity.of([[one], []]) is None


def test_diversity_of_pictures_falls_when_seeds_draw_the_same() -> None:
    flat = Image.new("RGB", (32, 32), "red")
    gradient = Image.linear_gradient("L").convert("RGB")
    turned = gradient.rotate(90)
    features = [diversity.pixel_features(p) for p in (gradient, turned, gradient)]
    assert diversity.of([features[:2]]) > 0.9  # type: ignore[operator]
    assert 0.5 < diversity.of([features]) < 0.8  # type: ignore[operator]
    alike = [diversity.pixel_features(flat.copy()) for _ in range(2)]
    assert diversity.of([alike]) == pytest.approx(0.0)


def test_constraint_holds_merges_against_their_parents() -> None:
    parents = [
        slot([0.5], is_start=True, values=(0.4,)),
        slot([0.5], is_start=True, values=(0.6,)),
    ]
    told = DiversitySettings("constraint", keep=0.8)
    assert diversity.constraint(told, 0.5, parents) == pytest.approx(-0.1)
    assert diversity.constraint(told, 0.3, parents) == pytest.approx(0.1)
    assert diversity.constraint(told, None, parents) is None
    assert diversity.constraint(DiversitySettings(), 0.3, parents) is None


def test_inadmissible_trial_is_not_the_best_while_another_is() -> None:
    good, dull = slot([0.9], constraint=0.1), slot([0.5], constraint=-0.1)
    assert best_slot([good, dull]) is dull
    assert best_slot([good]) is good
    assert best_slot([]) is None


def test_pareto_front_holds_what_nothing_beats() -> None:
    slots = [
        slot([0.5], values=(0.5,)),
        slot([0.6], values=(0.4,)),
        slot([0.4], values=(0.4,)),
        slot([0.9], values=(0.9,), is_pruned=True),
        slot([0.6], values=(0.4,)),
    ]
    assert diversity.pareto_front(slots) == (0, 1, 4)
