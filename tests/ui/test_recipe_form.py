"""Recipes as forms of the Merge page: what goes in comes out, or is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.dtypes import DType
from lib_merge.core.nodes import LoraNode
from lib_merge.core.recipe import (
    MergeNode,
    ModelNode,
    NonFinite,
    Recipe,
    Rule,
    Setting,
    simple_recipe,
)
from lib_merge.errors import RecipeError
from lib_merge.methods import methods
from lib_merge.ui.form import KEEP, MergeForm, recipe_of
from lib_merge.ui.recipe_form import form_of, meaning
from tests.ui.fakes import FakeHost

TITLES = ("a.safetensors", "b.safetensors", "c.safetensors")


def _path(host: FakeHost, name: str) -> str:
    return str(host.catalog.folder / f"{name}.safetensors")


FORMS = {
    "plain": MergeForm("weighted_sum", TITLES[:2], (("alpha", 1 / 3),)),
    "blocks": MergeForm(
        "weighted_sum",
        TITLES[:2],
        (("alpha", 0.5),),
        weights="IN00-IN05=0.25, M00=1.0, CLIP_L=0.123456789",
        rules="OUT03 OUT04 : attn : 0.4\n : attn2 : 0.1",
    ),
    "two_parameters": MergeForm(
        "triple_sum",
        TITLES,
        (("alpha", 0.2), ("beta", 0.3)),
        weights="IN01=0.5; beta: M00=0.1",
        rules="beta@OUT03 : attn : 0.4",
    ),
    "pool": MergeForm(
        "ties",
        TITLES,
        (("density", 0.3), ("lam", 0.9)),
        each=(("weight", "0.5, 0.25"),),
    ),
    "equal_pool": MergeForm(
        "ties", TITLES, (("density", 0.2), ("lam", 1.0)), each=(("weight", "0.5"),)
    ),
    "options": MergeForm(
        "weighted_sum",
        TITLES[:2],
        (("alpha", 0.5),),
        compute_dtype="float64",
        save_dtype=KEEP,
        parts=("UNet", "VAE"),
        keep_ema=True,
        is_missing_ok=True,
        non_finite="Keep them",
    ),
    "steps": MergeForm(
        "weighted_sum",
        TITLES[:2],
        (("alpha", 0.5),),
        steps="then : slerp : alpha=0.25\nCLIP_L : uniform_soup\n"
        "M00 : weighted_sum : alpha=0.3\nVAE = c.safetensors",
    ),
    "choices": MergeForm(
        "comparative_interpolation",
        TITLES[:2],
        tuple(
            (spec.name, spec.param.high if spec.param.choices else spec.default)
            for spec in methods().get("comparative_interpolation").params
        ),
    ),
}


@pytest.mark.parametrize("name", list(FORMS))
def test_form_of_its_own_recipe_means_the_same(host: FakeHost, name: str) -> None:
    recipe = recipe_of(FORMS[name], host.catalog)
    form = form_of(recipe, host.catalog)
    assert recipe_of(form, host.catalog).digest() == recipe.digest()


@pytest.mark.parametrize("method", [m.id for m in methods()])
def test_every_methods_recipe_comes_back(host: FakeHost, method: str) -> None:
    found = methods().get(method)
    models = tuple(_path(host, n) for n in "abc"[: max(found.min_models, 1)])
    recipe = simple_recipe(method, models, {})
    again = recipe_of(form_of(recipe, host.catalog), host.catalog)
    assert meaning(again) == meaning(recipe)


def test_models_are_found_by_their_bare_names(host: FakeHost) -> None:
    recipe = simple_recipe("weighted_sum", TITLES[:2], {"alpha": Setting(0.5)})
    assert form_of(recipe, host.catalog).models == TITLES[:2]


def test_model_that_is_not_there_is_named(host: FakeHost) -> None:
    recipe = simple_recipe("weighted_sum", ("a.safetensors", "gone.safetensors"), {})
    with pytest.raises(RecipeError, match="gone"):
        form_of(recipe, host.catalog)


def test_what_the_controls_cannot_say_is_refused_with_a_way_out(
    host: FakeHost,
) -> None:
    a, b = ModelNode(_path(host, "a")), ModelNode(_path(host, "b"))
    blend = MergeNode("weighted_sum", (0, 1), (("alpha", Setting(0.5)),))
    lora = LoraNode("l.safetensors", 2)
    one_encoder = replace(blend, components=(Component.UNET, Component.CLIP_L))
    rule = Rule(0.1, (), "a:b\nc")
    odd_rule = replace(blend, params=(("alpha", Setting(0.5, (), (rule,))),))
    for nodes in ((a, b, one_encoder), (a, b, odd_rule)):
        with pytest.raises(RecipeError, match="Recipes page"):
            form_of(Recipe(nodes), host.catalog)
    with pytest.raises(RecipeError, match=r"l\.safetensors|Recipes page"):
        form_of(Recipe((a, b, blend, lora)), host.catalog)


def test_meaning_sees_every_change() -> None:
    first = simple_recipe("weighted_sum", ("a", "b"), {"alpha": Setting(0.5)})
    others = [
        simple_recipe("weighted_sum", ("a", "c"), {"alpha": Setting(0.5)}),
        simple_recipe("weighted_sum", ("a", "b"), {"alpha": Setting(0.4)}),
        simple_recipe("slerp", ("a", "b"), {"alpha": Setting(0.5)}),
        simple_recipe(
            "weighted_sum", ("a", "b"), {"alpha": Setting(0.5, ((BlockId("M00"), 1),))}
        ),
        replace(first, save_dtype=DType.F32),
        replace(first, on_non_finite=NonFinite.KEEP),
        replace(first, keep_ema=True),
    ]
    assert len({meaning(one) for one in (first, *others)}) == len(others) + 1
