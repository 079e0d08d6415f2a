"""Recipes: the saved ones, and those of other programs as text."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from lib_merge.api._call import Answer, Call, Endpoint, Json, Refusal
from lib_merge.api._fields import Field, Kind
from lib_merge.api._merge_form import (
    FIELDS,
    read_error,
    recipe_files,
    recipe_in,
    saved_recipe,
)
from lib_merge.api._paths import input_roots, is_inside
from lib_merge.core.recipe import MergeNode, Recipe
from lib_merge.errors import MergeError, OutputError


def _list(call: Call) -> Answer:
    return Json([_line(call, name, file) for name, file in recipe_files(call).items()])


def _line(call: Call, name: str, path: Path) -> dict[str, Any]:
    digest = None
    try:
        recipe = saved_recipe(call, name)
        digest, words = recipe.digest(), _sentence(recipe)
    except MergeError as fault:
        words = read_error(fault)
    return {
        "name": name,
        "recipe": digest,
        "sentence": words,
        "modified": path.stat().st_mtime,
    }


def _sentence(recipe: Recipe) -> str:
    used = [node.method for node in recipe.nodes if isinstance(node, MergeNode)]
    files = [Path(node.path).name for _, node in recipe.files()]
    return f"{', then '.join(used) or 'a copy'} of {', '.join(files)}"


def _show(call: Call) -> Answer:
    name = call.path["name"]
    return Json(_whole(call, name, saved_recipe(call, name)))


def _whole(
    call: Call,
    name: str,
    recipe: Recipe,
    notes: tuple[str, ...] = (),
    unknown: tuple[str, ...] = (),
) -> dict[str, Any]:
    return {
        "name": name,
        "recipe": recipe.digest(),
        "recipe_json": recipe.to_json(),
        "models": _models(call, recipe),
        "notes": list(notes),
        "unknown": list(unknown),
    }


def _models(call: Call, recipe: Recipe) -> list[dict[str, Any]]:
    """Where a recipe's files are; a path elsewhere is looked for by its name only."""
    from lib_merge.formats.lookup import find_models

    roots = input_roots(call)
    shown = []
    for (_, node), found in zip(
        recipe.files(), find_models(_bare(recipe, roots), roots), strict=True
    ):
        path = found.path if found.path and is_inside(Path(found.path), roots) else None
        reason = "" if path else found.reason or "It is in no model folder of the host."
        shown.append({"path": node.path, "found": path, "reason": reason})
    return shown


def _bare(recipe: Recipe, roots: tuple[Path, ...]) -> Recipe:
    from dataclasses import replace

    outside = {
        index: replace(node, path=node.path.replace("\\", "/").rpartition("/")[2])
        for index, node in recipe.files()
        if not is_inside(Path(node.path), roots)
    }
    return recipe.with_models(outside)


def _save(call: Call) -> Answer:
    recipe = recipe_in(call)
    try:
        path = call.workspace.save_recipe(recipe, call.values["name"])
    except OutputError as fault:
        is_there = "exists" in str(fault)
        raise Refusal(409 if is_there else 403, str(fault)) from fault
    return Json({"path": str(path)}, status=201)


def _read(call: Call) -> Answer:
    from lib_merge.formats.files import read
    from lib_merge.formats.imported import Options
    from lib_merge.formats.lookup import arch_of, with_full_hashes
    from lib_merge.formats.source import Source

    values = call.values
    source = Source(values["name"], values["text"].encode("utf-8"))
    options = Options(values["order"], values["arch"], _day(values["as_of"]))
    found = read(source, options, format_id=values["format"])
    roots = input_roots(call)
    if options.arch is None and found.entries[0].recipe is not None:
        arch = arch_of(_bare(found.entries[0].recipe, roots), roots)
        if arch is not None:
            options = Options(options.order, arch, options.as_of)
            found = read(source, options, format_id=values["format"])
    recipe = found.entry(values["entry"]).with_models(values["inputs"] or [])
    recipe = _placed(with_full_hashes(recipe, roots), call)
    notes = (f"Read as {found.title}.", *found.notes)
    return Json(_whole(call, values["name"], recipe, notes, found.unknown))


def _placed(recipe: Recipe, call: Call) -> Recipe:
    """The recipe with the files that were found in the host's folders."""
    from dataclasses import replace

    files = dict(recipe.files())
    places = zip(files, _models(call, recipe), strict=True)
    return recipe.with_models(
        {
            index: replace(files[index], path=place["found"])
            for index, place in places
            if place["found"]
        }
    )


def _day(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as fault:
        raise Refusal(
            400, f"'as_of' is {text!r:.40}; write a date like 2024-04-21."
        ) from fault


ENDPOINTS = (
    Endpoint(
        "GET",
        "/recipes",
        "list_recipes",
        "Every saved recipe",
        _list,
        answer="RecipeFile",
        is_list=True,
    ),
    Endpoint(
        "POST",
        "/recipes",
        "save_recipe",
        "Save a recipe, or a merge as one, under a name",
        _save,
        answer="Kept",
        body=(*FIELDS, Field("name", Kind.TEXT, "its name", is_required=True)),
        status=201,
        errors=(404, 409),
    ),
    Endpoint(
        "POST",
        "/recipes/read",
        "read_recipe",
        "Read a recipe of this or another program from its text; nothing is saved",
        _read,
        answer="Recipe",
        body=(
            Field("text", Kind.TEXT, "the file's text", is_required=True),
            Field("name", Kind.TEXT, "the file's name", default="recipe"),
            Field("format", Kind.TEXT, "the format; looked for unless given"),
            Field("order", Kind.TEXT, "the order of weights without names"),
            Field("arch", Kind.TEXT, "the models' architecture"),
            Field("as_of", Kind.TEXT, "when it was made, like 2024-04-21"),
            Field("entry", Kind.TEXT, "which one of several recipes"),
            Field("inputs", Kind.TEXTS, "the two models of bare block weights"),
        ),
    ),
    Endpoint(
        "GET",
        "/recipes/{name}",
        "show_recipe",
        "One saved recipe, and where its models are",
        _show,
        answer="Recipe",
    ),
)
