"""Recipes in one line, in pictures, and beside each other."""

from __future__ import annotations

import pytest

from lib_merge.core.blocks import BlockId
from lib_merge.core.nodes import LoraNode, Pick, SelectNode
from lib_merge.core.recipe import (
    MergeNode,
    ModelNode,
    Recipe,
    Rule,
    Setting,
    simple_recipe,
)
from lib_merge.formats.difference import differences, facts_of
from lib_merge.formats.short_form import (
    LIMIT,
    picture_fields,
    recipe_hash_in,
    short_form,
)

PAIR = ("/models/a.safetensors", r"C:\models\b.ckpt")


def _blend(alpha: Setting, **options: object) -> Recipe:
    return simple_recipe("weighted_sum", PAIR, {"alpha": alpha}, **options)


def test_usual_merge_is_said_with_names_and_values() -> None:
    blocks = tuple((BlockId(f"IN0{i}"), i / 10) for i in range(5))
    setting = Setting(0.5, blocks, (Rule(0.1, (), "attn"),))
    assert short_form(_blend(Setting(0.5))) == "weighted_sum(a, b; alpha=0.5)"
    assert short_form(_blend(setting)) == (
        "weighted_sum(a, b; alpha=0.5 IN00=0 IN01=0.1 IN02=0.2 +2 blocks 1 rules)"
    )


def test_defaults_go_unsaid_and_pools_are_counted() -> None:
    models = tuple(f"m{i}.safetensors" for i in range(9))
    recipe = simple_recipe("ties", models, {"lam": Setting(1.0)})
    assert short_form(recipe) == "ties(m0, m1, m2, m3, +5 models)"


def test_loras_picks_and_unknown_methods_are_said() -> None:
    nodes = (
        ModelNode("a.safetensors"),
        LoraNode("l.safetensors", 0, Setting(0.7)),
        ModelNode("v.safetensors"),
        MergeNode("of_tomorrow", (1, 2)),
        SelectNode((3, 2), (Pick(1, (BlockId("VAE"),)),)),
    )
    text = short_form(Recipe(nodes))
    assert text == "of_tomorrow(a + lora l x 0.7, v), but VAE of v"


def test_long_lines_end_in_dots() -> None:
    recipe = simple_recipe("weighted_sum", ("x" * 300, "b"), {})
    assert len(short_form(recipe)) == LIMIT
    assert short_form(recipe).endswith("...")


def test_hash_is_found_in_a_pictures_data() -> None:
    recipe = _blend(Setting(0.5))
    fields = picture_fields(recipe)
    text = "a cat\nSteps: 20, " + ", ".join(f'{k}: "{v}"' for k, v in fields.items())
    assert recipe_hash_in(text) == recipe.digest()
    plain = f"a cat\nSteps: 1, MergeLab recipe: {recipe.digest()}, Version: v1"
    assert recipe_hash_in(plain) == recipe.digest()


def test_a_prompt_that_quotes_a_hash_does_not_win() -> None:
    text = f"MergeLab recipe: {'0' * 16}\nSteps: 1, MergeLab recipe: {'1' * 16}"
    assert recipe_hash_in(text) == "1" * 16


@pytest.mark.parametrize(
    "text", ["", "a cat", "MergeLab recipe: xyz", "MergeLab recipe: 12ab"]
)
def test_other_pictures_have_none(text: str) -> None:
    assert recipe_hash_in(text) is None


def test_recipe_against_itself_and_its_spelt_out_twin_differs_nowhere() -> None:
    models = ("base", "x", "y")
    short = simple_recipe("ties", models, {})
    long = simple_recipe("ties", models, {"density": Setting(0.2), "lam": Setting(1.0)})
    assert facts_of(short)["density"] == facts_of(long)["density"]
    assert differences(short, short) == ()
    assert differences(short, long) == ()


def test_every_difference_is_named_with_both_sides() -> None:
    first = _blend(Setting(0.5, ((BlockId("M00"), 0.1),)))
    second = _blend(Setting(0.3), save_dtype=None)
    found = {one.place: one for one in differences(first, second)}
    assert list(found) == ["alpha", "alpha in M00", "Stores as"]
    assert found["alpha"].sentence() == "alpha: 0.5 in the first, 0.3 in the second."
    assert found["alpha in M00"].sentence() == ("alpha in M00: only the first has 0.1.")
    assert found["Stores as"].second == "each tensor's own"


def test_a_part_that_is_used_twice_is_described_once() -> None:
    nodes = (
        ModelNode("a"),
        ModelNode("b"),
        MergeNode("weighted_sum", (0, 1), (("alpha", Setting(0.5)),)),
        MergeNode("weighted_sum", (2, 2), (("alpha", Setting(0.1)),)),
    )
    facts = facts_of(Recipe(nodes))
    assert facts["Model A: Method"] == "Weighted sum"
    assert facts["Model B"] == "the same as Model A"
