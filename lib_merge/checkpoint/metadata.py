"""What a merged file says of itself: its recipe, as strings, so that it repeats."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import lib_merge
from lib_merge.checkpoint.header import Header, read_header
from lib_merge.core.plan import Plan
from lib_merge.core.recipe import Recipe
from lib_merge.errors import CheckpointError

RECIPE = "mergelab_recipe"
VERSION = "mergelab_version"
WEBUI_RECIPE = "sd_merge_recipe"
WEBUI_MODELS = "sd_merge_models"
PARENT_LIMIT = 1_000_000
"""A parent's own merge history is carried over up to this many characters."""


def portable_recipe(recipe: Recipe, hashes: Mapping[int, str]) -> Recipe:
    """The recipe with bare file names and the hash of every input.

    Args:
        recipe: With the paths of this machine.
        hashes: SHA-256 by model node index.
    """
    models = {
        index: replace(
            model,
            path=PurePath(model.path.replace("\\", "/")).name,
            sha256=hashes.get(index, model.sha256),
        )
        for index, model in recipe.files()
    }
    return recipe.with_models(models)


def recipe_metadata(plan: Plan, hashes: Mapping[int, str]) -> dict[str, str]:
    """The metadata of the file that a plan produces.

    Args:
        plan: Its recipe's paths must be readable.
        hashes: SHA-256 by model node index, 64 hex digits each; equal lengths give
            metadata of equal length.

    Returns:
        Strings only. `sd_merge_recipe` and `sd_merge_models` are in the form of the
        WebUI, which shows them and follows the hashes.
    """
    recipe = portable_recipe(plan.recipe, hashes).to_json()
    return {
        "format": "pt",
        RECIPE: json.dumps(recipe),
        VERSION: lib_merge.__version__,
        WEBUI_RECIPE: json.dumps({"type": "mergelab", "recipe": recipe}),
        WEBUI_MODELS: json.dumps(_webui_models(plan.recipe, hashes)),
    }


def _webui_models(recipe: Recipe, hashes: Mapping[int, str]) -> dict[str, Any]:
    models: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for index, model in recipe.models():
        metadata = read_header(model.path).metadata
        models.update(_parsed(metadata, WEBUI_MODELS) or {})
        own[hashes[index]] = {
            "name": Path(model.path).name,
            "legacy_hash": None,
            "sd_merge_recipe": _parsed(metadata, WEBUI_RECIPE),
        }
    return {**models, **own}


def _parsed(metadata: Mapping[str, str], name: str) -> dict[str, Any] | None:
    text = metadata.get(name, "")
    if not text or len(text) > PARENT_LIMIT:
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def read_recipe(path: str | os.PathLike[str]) -> Recipe | None:
    """The recipe in a merged file's metadata, or None where there is none.

    Raises:
        CheckpointError: No readable checkpoint, or the recipe text is damaged.
        RecipeError: The recipe is of a newer version or not valid.
    """
    return header_recipe(read_header(path))


def header_recipe(header: Header) -> Recipe | None:
    """As `read_recipe`, of a header that was read already."""
    text = header.metadata.get(RECIPE)
    if text is None:
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise CheckpointError(
            f"{header.path}: its metadata '{RECIPE}' is no JSON; "
            "the recipe cannot be repeated from this file."
        ) from fault
    return Recipe.from_json(data)
