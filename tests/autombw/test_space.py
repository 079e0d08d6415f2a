"""What is searched: axes and their text, points as merges, warm starts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lib_merge.arch import architectures
from lib_merge.autombw import warm_start
from lib_merge.autombw.axes import SearchedSpace, read_space
from lib_merge.autombw.history import Slot
from lib_merge.autombw.settings import StudySettings
from lib_merge.autombw.space import Axis, BlockRange, Space, StartPoint, default_ranges
from lib_merge.core.blocks import BlockId
from lib_merge.core.recipe import MergeNode, Setting
from lib_merge.errors import RecipeError, StudyError, UnknownIdError
from lib_merge.methods import methods
from tests.support.fake_study_host import fake_settings

ARCH = architectures().get("sd1")
RANGES = default_ranges(ARCH)


def read(text: str, method: str = "weighted_sum", n_models: int = 2) -> SearchedSpace:
    """A space over SD1's blocks."""
    found = methods().get(method)
    return read_space(
        text,
        method=found,
        arch=ARCH,
        n_models=n_models,
        ranges=() if found.is_pool else RANGES,
        known=methods().get,
    )


def names_of(searched: SearchedSpace) -> set[str]:
    """The names of the free axes."""
    space = Space(searched.ranges, searched.axes)
    return {axis.name for axis in space.free}


def params_of(settings: StudySettings, point: dict[str, float]) -> dict[str, Setting]:
    """The settings of a point's merge."""
    node = settings.recipe(point).nodes[-1]
    assert isinstance(node, MergeNode)
    return dict(node.params)


def test_text_bounds_fixes_and_ties_blocks() -> None:
    searched = read("IN00-IN05=0.2..0.8; M00=0.5, OUT00-OUT03=tied:late\nBASE=0")
    by_block = {r.block: r for r in searched.ranges}
    assert (by_block[BlockId("IN03")].low, by_block[BlockId("IN03")].high) == (0.2, 0.8)
    assert by_block[BlockId("M00")].is_fixed
    assert by_block[BlockId("CLIP_L")].high == 0
    free = names_of(searched)
    assert "late" in free
    assert not free & {"OUT00", "OUT03", "M00", "CLIP_L"}
    assert len(free) == len(RANGES) - 2 - 3


def test_tied_blocks_take_the_limits_that_one_of_them_is_given() -> None:
    searched = read("OUT00-OUT03=tied:late, OUT02=0.1..0.4")
    space = Space(searched.ranges)
    (late,) = [axis for axis in space.axes if axis.name == "late"]
    assert (late.low, late.high) == (0.1, 0.4)


@pytest.mark.parametrize(
    ("rule", "n_axes"), [("symmetric", len(RANGES) - 12), ("sides", len(RANGES) - 22)]
)
def test_blocks_are_tied_by_rule(rule: str, n_axes: int) -> None:
    searched = read(f"tied={rule}")
    assert len(names_of(searched)) == n_axes
    values = Space(searched.ranges).block_values(
        {axis.name: i / 99 for i, axis in enumerate(Space(searched.ranges).axes)}
    )
    assert len(values) == len(RANGES)
    assert (
        values[BlockId("IN00")]
        == values[BlockId("OUT11" if rule == "symmetric" else "IN11")]
    )


def test_point_means_a_merge_with_every_kind_of_axis() -> None:
    """Blocks, a tie, a pattern, a choice of methods: all in one recipe."""
    searched = read("IN00-IN01=tied:first; /attn/=0..1; IN04:/norm/=0..1; method=slerp")
    settings = fake_settings(
        ranges=searched.ranges, axes=searched.axes, methods=searched.methods
    )
    point = settings.space.whole(dict.fromkeys(names_of(searched), 0.25))
    point |= {"first": 0.75, "/attn/": 0.5, "IN04:/norm/": 0.1, "method": 1.0}
    alpha = params_of(settings, point)["alpha"]
    assert alpha.value_for("k", BlockId("IN01")) == 0.75
    assert alpha.value_for("k", BlockId("IN02")) == 0.25
    assert alpha.value_for("x.attn1.w", BlockId("IN02")) == 0.5
    assert alpha.value_for("x.norm.w", BlockId("IN04")) == 0.1
    assert alpha.value_for("x.norm.w", BlockId("IN05")) == 0.25
    assert settings.method_of(point) == "slerp"
    assert settings.recipe({**point, "method": 0.0}) != settings.recipe(point)


def test_further_parameters_are_searched_everywhere_or_by_block() -> None:
    searched = read("beta=0..1, beta:M00=0.2..0.3", "sum_twice", 3)
    settings = fake_settings(
        method="sum_twice",
        models=("a", "b", "c"),
        ranges=searched.ranges,
        axes=searched.axes,
    )
    point = {axis.name: axis.low for axis in settings.space.axes}
    beta = params_of(settings, {**point, "beta": 0.9, "beta:M00": 0.25})["beta"]
    assert beta.value_for("k", BlockId("IN00")) == 0.9
    assert beta.value_for("k", BlockId("M00")) == 0.25


def test_pool_is_searched_by_the_share_of_every_model() -> None:
    searched = read("weights=0..1, weight@2=0..2", "weighted_mean", 3)
    settings = fake_settings(
        method="weighted_mean",
        models=("a", "b", "c"),
        ranges=(),
        axes=searched.axes,
    )
    assert names_of(searched) == {"weight@1", "weight@2", "weight@3"}
    labels = [start.label for start in settings.start_points()]
    assert labels == ["uniform", "only 1", "only 2", "only 3"]
    params = params_of(settings, {"weight@1": 0.5, "weight@2": 2.0, "weight@3": 0.0})
    assert {name: s.value for name, s in params.items()} == {
        "weight@1": 0.5,
        "weight@2": 2.0,
        "weight@3": 0.0,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("IN00", "cannot be read"),
        ("IN00=3", "within -1 to 2"),
        ("IN00=0.5..0.2", "rising order"),
        ("gamma=0..1", "no further parameter"),
        ("weight@3=0..1", "no further parameter"),
        ("tied=all", "tied=symmetric"),
        ("/(/=0..1", "is no pattern"),
        ("method=uniform_soup", "cannot stand in"),
        ("method=weighted_sum", "second method"),
    ],
)
def test_text_is_refused_when_a_part_cannot_be_used(text: str, message: str) -> None:
    """All faults at once, each named."""
    with pytest.raises(RecipeError, match="IN99") as caught:
        read(f"{text}; IN99=0..1")
    assert message in str(caught.value)


def test_choices_are_searched_whole() -> None:
    """Their numbers are permanent, so that some of them only would mean others."""
    chosen = [
        (m.id, s)
        for m in methods()
        for s in m.params
        if s.param.choices and not m.is_pool and m.min_models == 2
    ]
    method, spec = chosen[0]
    axis = read(f"{spec.name}=*", method).axes[0]
    assert axis.choices == spec.param.choices
    with pytest.raises(RecipeError, match="must name all choices"):
        read(f"{spec.name}={spec.param.choices[0]}", method)


def test_settings_of_every_axis_round_trip_through_json() -> None:
    searched = read("tied=sides; /attn/=0..1; method=slerp")
    settings = fake_settings(
        ranges=searched.ranges, axes=searched.axes, methods=searched.methods
    )
    start = StartPoint("mine", settings.space.constant(0.3))
    settings = replace(settings, starts=(start,))
    text = json.dumps(settings.to_json())
    assert StudySettings.from_json(json.loads(text)) == settings
    assert settings.start_points()[-1].label == "mine"


def test_old_settings_read_as_before() -> None:
    """A file without any of the new fields means what it meant."""
    data = fake_settings().to_json()
    new = ("axes", "methods", "starts", "pruning", "stopping", "fidelity", "diversity")
    for name in new:
        del data[name]
    for r in data["ranges"]:
        r = {k: v for k, v in r.items() if k != "group"}
    settings = StudySettings.from_json(json.loads(json.dumps(data)))
    assert settings.ranges == fake_settings().ranges
    assert not settings.pruning.is_on
    assert settings.stopping.n_without_gain == 0
    assert [s.label for s in settings.start_points()] == ["A", "B", "uniform"]


def test_space_is_refused_when_names_or_limits_clash() -> None:
    in00, in01 = BlockRange(BlockId("IN00")), BlockRange(BlockId("IN01"), 0, 0.5, "x")
    with pytest.raises(StudyError, match="different limits"):
        Space([replace(in00, group="x"), in01])
    with pytest.raises(StudyError, match="has the name of a block"):
        Space([in00, replace(in01, group="IN00")])
    with pytest.raises(StudyError, match="Two axes are named IN00"):
        Space([in00], [Axis("IN00")])
    with pytest.raises(StudyError, match="of another space"):
        fake_settings(starts=(StartPoint("odd", {"IN00": 0.5}),))
    with pytest.raises(StudyError, match="not above"):
        Axis("beta", 1.0, 0.0)


# Warm start


def test_presets_are_start_points_of_any_architecture() -> None:
    space = Space(RANGES)
    rising, valley = warm_start.shape_starts(space, ARCH, ["rising", "valley"])
    assert rising.point["IN00"] < rising.point["M00"] < rising.point["OUT11"]
    assert valley.point["M00"] < 0.1
    assert valley.point["CLIP_L"] == 0.5
    with pytest.raises(UnknownIdError, match="no preset 'nope'"):
        warm_start.shape_starts(space, ARCH, ["nope"])


def test_vector_is_moved_to_the_ties_and_limits_of_the_study() -> None:
    """Tied blocks take the mean of their values."""
    searched = read("IN00-IN01=tied:x, M00=0.2..0.4")
    space = Space(searched.ranges)
    values = {"IN00": 0.2, "IN01": 0.6, "M00": 0.9, "OUT": 1.0}
    start = warm_start.vector_start(space, "old", values)
    assert start.point["x"] == pytest.approx(0.4)
    assert start.point["M00"] == 0.4
    assert start.point["OUT"] == 1.0
    assert start.point["IN02"] == 0.5
    with pytest.raises(StudyError, match="names no block"):
        warm_start.vector_start(space, "odd", {"NOPE": 1.0})


def test_setting_becomes_a_vector() -> None:
    setting = Setting(0.1, ((BlockId("BASE"), 0.7), (BlockId("IN00"), 0.3)))
    values = warm_start.setting_values(setting, ARCH)
    assert values["CLIP_L"] == 0.7
    assert values["IN00"] == 0.3
    assert values["M00"] == 0.1
    assert "VAE" not in values


def test_best_of_an_earlier_study_starts_a_new_one() -> None:
    """Translated block by block when it is tied otherwise; its best comes first."""
    earlier = fake_settings(name="before", ranges=RANGES)
    points = [earlier.space.constant(v) for v in (0.1, 0.8, 0.4)]
    slots = [
        Slot(p, score, is_start=False)
        for p, score in zip(points, (0.2, 0.9, 0.5), strict=True)
    ]
    space = Space(read("tied=sides").ranges)
    starts = warm_start.study_starts(space, earlier, slots, n_best=2)
    assert [start.label for start in starts] == ["before no. 1", "before no. 2"]
    assert starts[0].point["IN side"] == pytest.approx(0.8)
    assert starts[1].point.keys() == {axis.name for axis in space.axes}
    with pytest.raises(StudyError, match="no measured trial"):
        warm_start.study_starts(space, earlier, [])


def test_starts_are_cleaned_of_what_is_scored_anyway() -> None:
    space = Space(RANGES)
    starts = [
        StartPoint("uniform again", space.constant(0.5)),
        StartPoint("far", space.constant(3.0)),
        StartPoint("new", space.constant(0.3)),
        StartPoint("new again", space.constant(0.3)),
    ]
    assert [s.label for s in warm_start.clean(space, starts)] == ["new"]
