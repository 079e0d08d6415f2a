"""Recipes are values: they round-trip, refuse what is wrong, have stable digests."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.dtypes import SAVE_DTYPES, DType
from lib_merge.core.recipe import (
    MergeNode,
    ModelNode,
    Recipe,
    Rule,
    Setting,
    simple_recipe,
)
from lib_merge.errors import RecipeError

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
block_ids = st.sampled_from([BlockId(f"IN{i:02d}") for i in range(12)])
rules = st.builds(
    Rule,
    value=finite,
    blocks=st.lists(block_ids, max_size=3).map(tuple),
    pattern=st.sampled_from(["", "attn", r"\.bias$", "to_[qkv]"]),
)
setting_values = st.builds(
    Setting,
    value=finite,
    blocks=st.dictionaries(block_ids, finite, max_size=4).map(
        lambda d: tuple(d.items())
    ),
    rules=st.lists(rules, max_size=3).map(tuple),
)
recipes = st.builds(
    lambda alpha, save, keep, missing: simple_recipe(
        "weighted_sum",
        ("a.safetensors", "b.safetensors"),
        {"alpha": alpha},
        save_dtype=save,
        compute_dtype=DType.F64,
        keep_ema=keep,
        is_missing_ok=missing,
    ),
    setting_values,
    st.sampled_from([None, *SAVE_DTYPES]),
    st.booleans(),
    st.booleans(),
)


def two_models(alpha: Setting | None = None) -> Recipe:
    return simple_recipe(
        "weighted_sum", ("a.st", "b.st"), {"alpha": alpha or Setting(0.5)}
    )


@given(recipes)
def test_recipe_survives_a_round_trip_through_json_text(recipe: Recipe) -> None:
    again = Recipe.from_json(json.loads(json.dumps(recipe.to_json())))
    assert again == recipe
    assert again.digest() == recipe.digest()


def test_digest_differs_when_a_single_block_differs() -> None:
    one = two_models(Setting(0.5, blocks=((BlockId("IN04"), 0.7),)))
    other = two_models(Setting(0.5, blocks=((BlockId("IN04"), 0.71),)))
    assert one.digest() != other.digest()


def test_value_follows_default_then_block_then_last_rule() -> None:
    setting = Setting(
        0.1,
        blocks=((BlockId("IN04"), 0.2),),
        rules=(
            Rule(0.3, (BlockId("IN04"),), "attn"),
            Rule(0.4, (), r"attn2\.to_k"),
        ),
    )
    key = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0."
    assert setting.value_for(key + "norm1.weight", BlockId("IN05")) == 0.1
    assert setting.value_for(key + "norm1.weight", BlockId("IN04")) == 0.2
    assert setting.value_for(key + "attn1.to_q.weight", BlockId("IN04")) == 0.3
    assert setting.value_for(key + "attn2.to_k.weight", BlockId("IN04")) == 0.4
    assert setting.value_for(key + "attn2.to_k.weight", BlockId("OUT04")) == 0.4


def test_first_model_is_the_first_input_all_the_way() -> None:
    recipe = Recipe(
        nodes=(
            ModelNode("x"),
            ModelNode("y"),
            ModelNode("z"),
            MergeNode("weighted_sum", (1, 0)),
            MergeNode("weighted_sum", (3, 2)),
        )
    )
    assert recipe.first_model() == 1
    assert [index for index, _ in recipe.models()] == [0, 1, 2]


def test_vae_is_left_out_unless_asked() -> None:
    node = two_models().nodes[-1]
    assert isinstance(node, MergeNode)
    assert Component.VAE not in node.components


def test_every_structural_problem_is_listed_at_once() -> None:
    with pytest.raises(RecipeError, match="too narrow") as caught:
        Recipe(
            nodes=(ModelNode("x"), MergeNode("m", (0, 5)), MergeNode("n", ())),
            compute_dtype=DType.F16,
            save_dtype=DType.I64,
        )
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "no MergeLab recipe"),
        ({"version": 99}, "update MergeLab"),
        ({"nodes": [{"method": "m"}]}, "damaged"),
        ({"nodes": 3}, "damaged"),
        ({"compute_dtype": "int3"}, "Unknown precision|damaged"),
        ({"nodes": []}, "no nodes"),
    ],
    ids=["format", "version", "node", "nodes", "dtype", "empty"],
)
def test_damaged_recipe_is_refused_with_what_is_wrong(
    change: dict[str, object], message: str
) -> None:
    data = {**two_models().to_json(), **change}
    with pytest.raises(Exception, match=message):
        Recipe.from_json(data)


@pytest.mark.parametrize("value", [True, "0.5", None, [1]], ids=str)
def test_setting_that_is_no_number_is_refused(value: object) -> None:
    data = two_models().to_json()
    data["nodes"][-1]["params"]["alpha"]["value"] = value
    with pytest.raises(RecipeError, match="must be a number"):
        Recipe.from_json(data)


def test_broken_rule_pattern_is_refused_with_the_reason() -> None:
    data = two_models(Setting(0.5, rules=(Rule(1.0, (), "x"),))).to_json()
    data["nodes"][-1]["params"]["alpha"]["rules"][0]["pattern"] = "attn("
    with pytest.raises(RecipeError, match=r"'attn\('.*no regular expression"):
        Recipe.from_json(data)
