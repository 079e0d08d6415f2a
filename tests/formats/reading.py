"""What tests of formats ask of a recipe that was read."""

from __future__ import annotations

from pathlib import Path

from lib_merge.core.recipe import MergeNode, Recipe, Setting
from lib_merge.formats.files import read
from lib_merge.formats.flatten import flatten
from lib_merge.formats.imported import Imported, Options
from lib_merge.formats.source import Source
from tests.formats import samples

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def sample(name: str, **options: object) -> Imported:
    text = samples.SAMPLES[name]
    return read(Source(name, text.encode()), Options(**options))  # type: ignore[arg-type]


def of_text(text: str, name: str = "r.mecha", **options: object) -> Imported:
    return read(Source(name, text.encode()), Options(**options))  # type: ignore[arg-type]


def recipe_of(imported: Imported) -> Recipe:
    recipe = imported.entries[0].recipe
    assert recipe is not None
    return recipe


def alpha_of(recipe: Recipe, index: int = -1) -> Setting:
    node = recipe.nodes[index]
    assert isinstance(node, MergeNode)
    return dict(node.params)["alpha"]


def by_block(setting: Setting) -> dict[str, float]:
    return {str(block): value for block, value in setting.blocks}


def leaves(recipe: Recipe, block: str = "IN04") -> dict[str, float]:
    flat = flatten(recipe)
    place = next(
        i
        for i, cell in enumerate(flat.cells)
        if cell.block == block and not cell.pattern
    )
    return {leaf.name: leaf.weights[place] for leaf in flat.leaves}


def numbers(count: int) -> str:
    return ",".join(str(round((i + 1) / 64, 4)) for i in range(count))
