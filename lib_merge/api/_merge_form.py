"""What a merge request holds, and the recipe that it stands for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from lib_merge.api._call import Call, Refusal
from lib_merge.api._fields import Field, Kind
from lib_merge.api._paths import ADVICE, checked_recipe, input_roots, is_inside
from lib_merge.core.dtypes import COMPUTE_DTYPES, SAVE_DTYPES
from lib_merge.core.ports import CheckpointEntry
from lib_merge.core.recipe import NonFinite, Recipe
from lib_merge.errors import MergeError, RecipeError
from lib_merge.formats.value_text import read_value
from lib_merge.methods import methods
from lib_merge.ui.form import (
    DEFAULT_PARTS,
    KEEP,
    NON_FINITE,
    PARTS,
    MergeForm,
    recipe_of,
    titles_of,
)

COMPUTE = tuple(dtype.torch_name for dtype in COMPUTE_DTYPES)
SAVE = ("keep", *(dtype.torch_name for dtype in SAVE_DTYPES))
POLICIES = tuple(policy.value for policy in NonFinite)

FIELDS = (
    Field("recipe", Kind.TEXT, "a saved recipe by its name, in place of all else"),
    Field("recipe_json", Kind.OBJECT, "a whole recipe, in place of all else"),
    Field("method", Kind.TEXT, "a method's id"),
    Field("models", Kind.TEXTS, "titles or files of the list, in the method's order"),
    Field("values", Kind.VALUES, "a number, or a choice's name, by parameter"),
    Field("weights", Kind.TEXT, 'block weights, "IN04=0.7, M00=0.1"', default=""),
    Field("rules", Kind.TEXTS, 'values of layers, "OUT03-OUT06:attn:0.4" each'),
    Field("steps", Kind.TEXTS, "other methods and models for parts, as in the tab"),
    Field(
        "compute_dtype",
        Kind.TEXT,
        "what the arithmetic runs in",
        default="float32",
        choices=COMPUTE,
    ),
    Field(
        "save_dtype",
        Kind.TEXT,
        "what tensors are rounded to; keep leaves each its own",
        default="float16",
        choices=SAVE,
    ),
    Field(
        "parts",
        Kind.TEXTS,
        "what is blended; the rest is copied from the first model",
        default=list(DEFAULT_PARTS),
        choices=tuple(PARTS),
    ),
    Field("keep_ema", Kind.FLAG, "keep the first model's EMA weights", default=False),
    Field("is_missing_ok", Kind.FLAG, "models may lack keys", default=False),
    Field(
        "non_finite",
        Kind.TEXT,
        "where a model holds NaN or infinity",
        default="stop",
        choices=POLICIES,
    ),
)
"""What every merge request takes."""

_INSTEAD = ("recipe", "recipe_json", "method")


def recipe_in(call: Call) -> Recipe:
    """The recipe of a request; all its files lie in the host's folders.

    Raises:
        Refusal: A file lies elsewhere, or there is no such saved recipe.
        RecipeError: Every problem of the request at once.
    """
    values = call.values
    given = [name for name in _INSTEAD if values[name] is not None]
    if len(given) != 1:
        raise Refusal(
            400, f"Give one of {', '.join(_INSTEAD)}; this request gives {len(given)}."
        )
    if values["recipe"] is not None:
        recipe = saved_recipe(call, values["recipe"])
    elif values["recipe_json"] is not None:
        recipe = Recipe.from_json(values["recipe_json"])
    else:
        recipe = recipe_of(_form(call), call.workspace.host.catalog)
    return checked_recipe(recipe, call)


def saved_recipe(call: Call, name: str) -> Recipe:
    """A recipe that was saved, by its name.

    Raises:
        Refusal: There is none.
        RecipeError: It is damaged.
    """
    path = recipe_files(call).get(name.removesuffix(".json"))
    if path is None:
        raise Refusal(404, f"There is no saved recipe '{name:.80}'; see the list.")
    try:
        return Recipe.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as fault:
        raise RecipeError([f"{path.name} cannot be read: {fault!s:.200}."]) from fault


def recipe_files(call: Call) -> dict[str, Path]:
    """Saved recipes by name."""
    folder = call.workspace.recipe_dir()
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def model_titles(call: Call, names: list[str]) -> tuple[str, ...]:
    """Titles of models that are named by title, file or path.

    Raises:
        Refusal: A path outside the host's folders.
    """
    entries = titles_of(call.workspace.host.catalog.checkpoints())
    return tuple(_title(call, entries, name) for name in names)


def _title(call: Call, entries: Mapping[str, CheckpointEntry], name: str) -> str:
    if name in entries:
        return name
    for title, entry in entries.items():
        if name in (entry.title, entry.path.name, entry.path.stem, str(entry.path)):
            return title
    is_path = Path(name).is_absolute() or ".." in Path(name).parts
    if is_path and not is_inside(Path(name), input_roots(call)):
        raise Refusal(
            403, f"'{name}' is in none of the host's model folders; {ADVICE}."
        )
    # The form says that it is not in the list.
    return name


def _form(call: Call) -> MergeForm:
    values = call.values
    method = methods().get(values["method"])
    problems: list[str] = []
    numbers: list[tuple[str, float]] = []
    each: list[tuple[str, str]] = []
    for name, value in (values["values"] or {}).items():
        spec = method.param(name.partition("@")[0])
        if spec is None:
            known = ", ".join(p.name for p in method.params) or "none"
            problems.append(f"{method.id} has no '{name:.60}'; it has: {known}.")
        elif spec.param.per_model and "@" not in name:
            each.append((name, str(value)))
        else:
            number = read_value(str(value), spec, name, problems)
            numbers += [] if number is None else [(name, number)]
    if problems:
        raise RecipeError(problems)
    words = {policy.value: label for label, policy in NON_FINITE.items()}
    save = values["save_dtype"]
    return MergeForm(
        method=method.id,
        models=model_titles(call, values["models"] or []),
        values=tuple(numbers),
        each=tuple(each),
        weights=values["weights"],
        rules="\n".join(values["rules"] or ()),
        steps="\n".join(values["steps"] or ()),
        compute_dtype=values["compute_dtype"],
        save_dtype=KEEP if save == "keep" else save,
        parts=tuple(values["parts"]),
        keep_ema=values["keep_ema"],
        is_missing_ok=values["is_missing_ok"],
        non_finite=words[values["non_finite"]],
    )


def read_error(fault: MergeError) -> str:
    """An error in one line."""
    return " ".join(str(fault).split())
