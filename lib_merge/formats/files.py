"""Every format of recipes: which one a file is in, reading it, and writing others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from types import ModuleType

from lib_merge.core.nodes import LoraNode, MergeNode
from lib_merge.core.recipe import Recipe, Setting
from lib_merge.errors import InputError, RecipeError
from lib_merge.formats import (
    autombw,
    mbw_preset,
    mecha,
    mergekit,
    mergelab,
    supermerger_history,
    webui,
)
from lib_merge.formats.imported import Imported, Options
from lib_merge.formats.source import Source, open_source

FORMATS: tuple[ModuleType, ...] = (
    mergelab,
    autombw,
    mecha,
    webui,
    supermerger_history,
    mergekit,
    mbw_preset,
)
"""In the order in which they are asked; each has ID, TITLE, sniff and read."""

WRITERS: dict[str, ModuleType] = {
    module.ID: module for module in FORMATS if hasattr(module, "write")
}
"""Those that also have `write`."""


def read_path(
    path: Path, options: Options | None = None, *, format_id: str | None = None
) -> Imported:
    """Read a recipe's file, or a checkpoint's metadata.

    Args:
        path: The file.
        options: What the file does not say.
        format_id: The format; None looks.

    Raises:
        InputError: It cannot be read, holds no recipe, or leaves something open.
    """
    return read(open_source(path), options, format_id=format_id)


def read(
    source: Source, options: Options | None = None, *, format_id: str | None = None
) -> Imported:
    """As `read_path`, of a file that was opened."""
    module = _format(source, format_id)
    found: Imported = module.read(source, options or Options())
    for entry in found.entries:
        if entry.recipe is not None:
            _check(entry.recipe)
    if source.is_lossy:
        lost = (
            "The file is no UTF-8 text; names with other signs than ASCII are damaged."
        )
        return replace(found, unknown=(*found.unknown, lost))
    return found


def _format(source: Source, format_id: str | None) -> ModuleType:
    known = ", ".join(module.ID for module in FORMATS)
    if format_id is not None:
        for module in FORMATS:
            if format_id == module.ID:
                return module
        raise InputError(f"There is no format '{format_id:.40}'; known: {known}.")
    for module in FORMATS:
        if module.sniff(source):
            return module
    if source.header is not None:
        raise InputError(
            f"{source.name} has no recipe in its metadata that MergeLab knows "
            f"({known}); it was not merged, or its metadata was stripped."
        )
    raise InputError(
        f"{source.name} is in no format of recipes that MergeLab knows ({known}); if "
        "it is, name the format with --from."
    )


def write(recipe: Recipe, format_id: str) -> str:
    """The recipe in another program's words.

    Args:
        recipe: Any recipe.
        format_id: One of `WRITERS`.

    Raises:
        InputError: No such format.
        RecipeError: The format cannot say the recipe.
    """
    if format_id not in WRITERS:
        raise InputError(
            f"There is no format '{format_id:.40}' to write; known: "
            f"{', '.join(WRITERS)}."
        )
    text: str = WRITERS[format_id].write(recipe)
    return text


def _check(recipe: Recipe) -> None:
    """Refuse what no file system and no method could work with.

    Raises:
        RecipeError: A path that is none, or a number that is not finite.
    """
    for index, model in recipe.files():
        name = PurePath(model.path.replace("\\", "/")).name
        if "\0" in model.path or name in ("", ".", "..") or len(model.path) > 4096:
            raise RecipeError([f"Node {index}: {model.path!r:.60} is no file's name."])
    for index, node in enumerate(recipe.nodes):
        for name, setting in _settings(node):
            values = [setting.value, *(v for _, v in setting.blocks)]
            values += [rule.value for rule in setting.rules]
            if not all(map(math.isfinite, values)):
                raise RecipeError(
                    [f"Node {index}: {name} comes out as no finite number."]
                )


def _settings(node: object) -> Iterator[tuple[str, Setting]]:
    if isinstance(node, MergeNode):
        yield from node.params
    elif isinstance(node, LoraNode):
        yield "strength", node.strength
