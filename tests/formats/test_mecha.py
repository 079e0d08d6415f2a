"""Recipes of sd-mecha as graphs: dialects, bases, dates and what is refused."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from lib_merge.core.recipe import (
    DEFAULT_COMPONENTS,
    MergeNode,
    SelectNode,
    Setting,
)
from lib_merge.errors import RecipeError
from lib_merge.formats.files import read, read_path, write
from lib_merge.formats.source import Source
from tests.formats import samples
from tests.formats.reading import SHARED, leaves, of_text, recipe_of, sample


def test_mecha_reports_dialect_models_and_base() -> None:
    imported = sample("c.mecha")
    assert "Dialect (c), of 2025 and later, version 0.1.0." in imported.notes
    assert "4 models." in imported.notes
    assert "Base: raw\\m000.safetensors." in imported.notes
    node = recipe_of(imported).nodes[-2]
    assert isinstance(node, MergeNode)
    assert node.inputs == (0, 0, 1, 2, 3)
    assert dict(node.params)["elect"] == Setting(2.0)


def test_mecha_vae_of_the_first_model_is_no_merge_of_the_vae() -> None:
    recipe = recipe_of(sample("c.mecha"))
    assert not any(isinstance(node, SelectNode) for node in recipe.nodes)
    assert recipe.nodes[-1].components == DEFAULT_COMPONENTS  # type: ignore[union-attr]


def test_mecha_ties_without_vote_or_date_asks() -> None:
    text = samples.MECHA_B.replace("ties_sum_with_dropout", "ties_sum")
    text = text.replace("probability=0.1 seed=114514 k=1.0 vote_sgn=1.0", "k=1.0")
    with pytest.raises(RecipeError, match="--as-of"):
        of_text(text)
    counted = recipe_of(of_text(text, as_of=date(2024, 4, 1)))
    voted = recipe_of(of_text(text, as_of=date(2024, 6, 1)))
    assert counted.nodes[3].method == "ties_soup"  # type: ignore[union-attr]
    assert voted.nodes[3].method == "ties"  # type: ignore[union-attr]


FAULTS = {
    "late": ('model "a"\ncall "subtract" &0 &5', "does not come before"),
    "unknown": ('model "a" "sd1" "base"\nmerge "magic" &0', "meaning of 'magic'"),
    "geometric": (
        'model "a" "sd1" "base"\nmodel "b" "sd1" "base"\nmerge "geometric_sum" &0 &1',
        "meaning of 'geometric_sum'",
    ),
    "delta": (
        'model "a" "sd1" "base"\nmodel "b" "sd1" "base"\nmerge "subtract" &0 &1',
        "no whole model",
    ),
    "bases": (
        'model "a"\nmodel "b"\ncall "subtract" &0 &1\ncall "subtract" &1 &0\n'
        'call "ties_sum" &2 &3 alpha=1.0',
        "several bases",
    ),
    "mixed": ('model "a"\ncall "subtract" &0 &0\nmerge "x" &0', "mixes the words"),
    "version": ('version 0.2.0\nmodel "a"', "version '0.2.0'"),
    "command": ('model "a"\nmodle "b"', "'modle' is no command"),
    "parameter": ('parameter "x" "BASE"', "is a template"),
    "stock": (
        "version 0.1.0\n"
        'model "a"\nmodel "b"\nmerge "subtract" &1 &0\n'
        'merge "ties_sum_extended" &2 &2 k=1.0\nmerge "add_difference" &0 &3 1.0',
        "Model Stock by rows is applied",
    ),
    "dict": (
        'model "a"\nmodel "b"\ndict sdxl_unet_block_moon=1.0 l14_txt_class_x=1.0\n'
        'call "weighted_sum" &0 &1 alpha=&2',
        "is no name of a block or layer",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_mecha_fault_is_named(name: str) -> None:
    text, message = FAULTS[name]
    with pytest.raises(RecipeError, match=re.escape(message)):
        of_text(text)


MECHAS = sorted((SHARED / "recipes").glob("*.mecha"))
KNOWN = {"x72a": 73, "x101a": 102, "x43": 48, "x3a": 4, "amp": 2}


@pytest.mark.skipif(not MECHAS, reason="no recipes here")
@pytest.mark.parametrize("path", MECHAS, ids=lambda path: path.stem[-30:])
def test_published_mecha_has_its_models_and_goes_through_every_form(path: Path) -> None:
    imported = read_path(path)
    recipe = recipe_of(imported)
    assert len(recipe.models()) == KNOWN[path.name.split("-")[0]]
    again = read(Source("r.json", write(recipe, "mergelab").encode()))
    assert again.entries[0].recipe == recipe


@pytest.mark.skipif(not MECHAS, reason="no recipes here")
def test_published_e2e_merge_has_the_models_of_each_component() -> None:
    path = next(path for path in MECHAS if path.name.startswith("x43"))
    recipe = recipe_of(read_path(path))
    used = {
        block: [w for w in leaves(recipe, block).values() if w]
        for block in ("IN04", "CLIP_L", "CLIP_G")
    }
    assert [len(used[b]) for b in ("IN04", "CLIP_L", "CLIP_G")] == [44, 31, 22]
    for weights in used.values():
        assert weights == pytest.approx([1 / len(weights)] * len(weights))
