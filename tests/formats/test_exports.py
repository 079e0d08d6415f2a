"""The way back: what is written is read again as an equal recipe, or is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lib_merge.core.recipe import (
    LoraNode,
    MergeNode,
    ModelNode,
    Recipe,
    Setting,
)
from lib_merge.errors import RecipeError
from lib_merge.formats.files import WRITERS, write
from lib_merge.formats.orders import WHOLE
from tests.formats import samples
from tests.formats.reading import leaves, numbers, of_text, recipe_of, sample

PLAIN = Recipe(
    (
        ModelNode("a.safetensors", samples.A),
        ModelNode("b.safetensors", samples.B),
        MergeNode("weighted_sum", (0, 1), (("alpha", Setting(0.25)),), WHOLE),
        ModelNode("c.safetensors", samples.C),
        MergeNode("add_difference", (2, 3, 0), (("alpha", Setting(0.5)),), WHOLE),
    )
)
BAKED = Recipe((ModelNode("a"), LoraNode("style", 0, Setting(0.5))))


def without_hashes(recipe: Recipe) -> Recipe:
    return recipe.with_models(
        {i: replace(model, sha256=None) for i, model in recipe.files()}
    )


EXPORTS = {
    "webui": PLAIN,
    "mecha": without_hashes(PLAIN),
    "mergelab": samples.OWN,
    "mergekit": Recipe(
        (
            ModelNode("a.safetensors"),
            ModelNode("b.safetensors"),
            MergeNode(
                "weighted_mean",
                (0, 1),
                (("weight@1", Setting(2.0)), ("weight@2", Setting(1.5))),
                WHOLE,
            ),
        )
    ),
    "autombw": recipe_of(sample("out.recipe.txt")),
    "preset": of_text(f"preset\t{numbers(26)}", "p.tsv")
    .entry()
    .with_models(["a.safetensors", "b.safetensors"]),
}


def test_every_writer_is_tried() -> None:
    assert set(EXPORTS) == set(WRITERS)


@pytest.mark.parametrize("format_id", EXPORTS)
def test_exported_recipe_is_equal_when_read_again(format_id: str) -> None:
    recipe = EXPORTS[format_id]
    entry = of_text(write(recipe, format_id), f"x.{format_id}").entries[0]
    models = [] if entry.recipe else [m.path for _, m in recipe.models()]
    assert entry.with_models(models) == recipe


@pytest.mark.parametrize("name", [n for n in samples.SAMPLES if n != "presets.tsv"])
@pytest.mark.parametrize("format_id", WRITERS)
def test_what_a_format_can_say_it_says_right(name: str, format_id: str) -> None:
    entry = sample(name).entries[0]
    recipe = entry.with_models([] if entry.recipe else ["a.st", "b.st"])
    try:
        text = write(recipe, format_id)
    except RecipeError:
        return
    found = of_text(text, "x.txt").entries[0]
    names = [model.path for _, model in recipe.models()]
    again = found.with_models([] if found.recipe else names)
    if format_id == "mergelab":
        assert again == recipe
    else:
        assert leaves(without_hashes(again)) == pytest.approx(
            leaves(without_hashes(recipe))
        )


REFUSED = {
    "webui": (samples.OWN, "weighted sums and added differences only"),
    "mergekit": (PLAIN, "several steps"),
    "autombw": (PLAIN, "two files"),
    "preset": (EXPORTS["autombw"], "cannot say this recipe"),
    "mecha": (BAKED, "nothing of the meaning of a LoRA"),
}


@pytest.mark.parametrize("format_id", REFUSED)
def test_writer_refuses_what_its_format_cannot_say(format_id: str) -> None:
    recipe, message = REFUSED[format_id]
    with pytest.raises(RecipeError, match=message):
        write(recipe, format_id)
