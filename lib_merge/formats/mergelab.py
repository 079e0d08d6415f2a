"""MergeLab's own recipes: JSON, versioned, described by `recipe.schema.json`.

Every version that was ever written stays readable; `core.recipe.READERS` has a reader
for each. A merged checkpoint holds its recipe as `mergelab_recipe`.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from lib_merge.checkpoint.metadata import RECIPE
from lib_merge.core.recipe import FORMAT, Recipe
from lib_merge.errors import RecipeError
from lib_merge.formats.imported import Entry, Imported, Options
from lib_merge.formats.source import Source

ID = "mergelab"
TITLE = "MergeLab recipe"

_SCHEMA = Path(__file__).with_name("recipe.schema.json")


def sniff(source: Source) -> bool:
    """Whether it says that it is one, or metadata holds one."""
    return _data(source) is not None


def _data(source: Source) -> dict[str, Any] | None:
    if isinstance(source.json, dict) and source.json.get("format") == FORMAT:
        return source.json
    return source.tag(RECIPE)


def read(source: Source, options: Options) -> Imported:
    """The recipe.

    Raises:
        RecipeError: A newer version, or a field that cannot be read.
    """
    data = _data(source)
    if data is None:
        raise RecipeError([f"{source.name} is no MergeLab recipe."])
    recipe = Recipe.from_json(data)
    facts = (("version", str(data.get("version"))),)
    return Imported(ID, TITLE, (Entry(source.name, recipe, facts=facts),))


def write(recipe: Recipe) -> str:
    """The recipe as text; nothing is lost."""
    return json.dumps(recipe.to_json(), indent=2) + "\n"


@lru_cache(maxsize=1)
def schema() -> dict[str, Any]:
    """The published JSON schema of the newest version."""
    found: dict[str, Any] = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    return found
