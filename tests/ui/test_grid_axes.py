"""What a grid's values mean: series of block weights, presets, settings."""

from __future__ import annotations

from typing import Any

import pytest

from lib_merge.arch import architectures
from lib_merge.core.blocks import BlockId
from lib_merge.core.recipe import MergeNode, Recipe, Rule, Setting, simple_recipe
from lib_merge.errors import InputError, MergeError
from lib_merge.formats.recipe_edit import (
    main_merge,
    with_blocks,
    with_method,
    with_value,
)
from lib_merge.methods import methods
from lib_merge.ui.grid_axes import LEAD, grid_axes, number_names, split_series
from lib_merge.ui.workspace import Workspace
from tests.ui.fakes import FakeHost


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("IN04: 0-1 [5]", ["IN04=0", "IN04=0.25", "IN04=0.5", "IN04=0.75", "IN04=1"]),
        ("IN04: 0-0.3 (+0.1)", ["IN04=0", "IN04=0.1", "IN04=0.2", "IN04=0.3"]),
        ("IN00-IN05: 0.2, .7", ["IN00-IN05=0.2", "IN00-IN05=0.7"]),
        ("beta@M00: 0, 1", ["beta: M00=0", "beta: M00=1"]),
        ("IN04=0.7; M00=0.1, IN04=1", ["IN04=0.7; M00=0.1", "IN04=1"]),
        ('"IN04=0.7, M00=0.1", IN04=1', ["IN04=0.7, M00=0.1", "IN04=1"]),
    ],
)
def test_series_of_block_weights(text: str, values: list[str]) -> None:
    assert split_series(text) == values


@pytest.mark.parametrize("text", ["IN04: 0-1 [0]", "IN04: 0-1 [9999]", "IN04: 1-0 (1)"])
def test_series_of_none_or_thousands_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"0-1 \[5\]"):
        split_series(text)


def _recipe(**params: Setting) -> Recipe:
    return simple_recipe("weighted_sum", ("a", "b"), params)


@pytest.fixture
def axes(host: FakeHost) -> dict[str, Any]:
    workspace = Workspace(host)
    workspace.save_recipe(_recipe(alpha=Setting(0.1)), "kept")
    sd1 = architectures().get("sd1")
    found = grid_axes(workspace.recipes, lambda recipe: sd1)
    return {axis.label.removeprefix(LEAD): axis for axis in found}


def _main(recipe: Recipe) -> MergeNode:
    return main_merge(recipe)[1]


def test_axes_cover_method_parameters_blocks_presets_and_recipes(
    axes: dict[str, Any],
) -> None:
    names = {"Recipe", "Method", "Preset", "Block weights", "Settings"}
    assert set(axes) == names | set(number_names())
    assert axes["Recipe"].choices() == ["kept"]
    assert list(axes)[5:7] == ["alpha", "beta"]


def test_preset_sets_every_unet_block_of_the_main_parameter(
    axes: dict[str, Any],
) -> None:
    rule = Rule(0.3, (), "attn")
    before = _recipe(alpha=Setting(0.5, ((BlockId("CLIP_L"), 0.1),), (rule,)))
    setting = dict(_main(axes["Preset"].edit("rising")(before)).params)["alpha"]
    blocks = {str(block): value for block, value in setting.blocks}
    assert blocks["IN00"] < blocks["M00"] < blocks["OUT11"]
    assert "CLIP_L" not in blocks
    assert (setting.value, setting.rules) == (0.5, (rule,))


def test_blocks_and_settings_change_what_they_name_alone(axes: dict[str, Any]) -> None:
    before = _recipe(alpha=Setting(0.5, ((BlockId("IN04"), 0.1),)))
    after = axes["Block weights"].edit("M00=0.9")(before)
    setting = dict(_main(after).params)["alpha"]
    assert setting == Setting(0.5, ((BlockId("IN04"), 0.1), (BlockId("M00"), 0.9)))
    after = axes["Settings"].edit("alpha=0.7")(before)
    assert dict(_main(after).params)["alpha"].value == 0.7
    assert axes["Recipe"].edit("kept")(None) == _recipe(alpha=Setting(0.1))


def test_sums_of_steps_that_miss_the_limit_by_a_hair_are_taken(
    axes: dict[str, Any],
) -> None:
    after = axes["alpha"].edit(1.0000000000000002)(_recipe())
    assert dict(_main(after).params)["alpha"].value == 1.0


def test_another_method_keeps_what_both_have() -> None:
    setting = Setting(0.3, ((BlockId("IN04"), 0.1),))
    after = with_method(_recipe(alpha=setting), methods().get("slerp"))
    node = _main(after)
    assert node.method == "slerp"
    assert dict(node.params)["alpha"] == setting
    pool = simple_recipe("ties", ("a", "b", "c"), {"weight@2": Setting(0.1)})
    assert _main(with_method(pool, methods().get("uniform_soup"))).params == ()


def test_main_merge_of_a_longer_recipe_is_the_one_over_the_models() -> None:
    first = MergeNode("weighted_sum", (0, 1), (("alpha", Setting(0.2)),))
    nodes = (*_recipe().nodes[:2], first, MergeNode("slerp", (0, 2)))
    recipe = Recipe(nodes)
    assert main_merge(recipe) == (2, first)
    changed = with_value(recipe, "alpha", 0.9)
    assert dict(changed.nodes[2].params)["alpha"].value == 0.9  # type: ignore[union-attr]
    assert changed.nodes[3] == nodes[3]


@pytest.mark.parametrize(
    "edit",
    [
        lambda: with_value(_recipe(), "gamma", 0.5),
        lambda: with_value(_recipe(), "alpha", 3.0),
        lambda: with_blocks(_recipe(), "alpha", {BlockId("M00"): float("nan")}),
        lambda: with_method(_recipe(), methods().get("sum_twice")),
        lambda: main_merge(Recipe(_recipe().nodes[:1])),
    ],
)
def test_changes_that_cannot_be_are_refused(edit: Any) -> None:
    with pytest.raises(MergeError):
        edit()
