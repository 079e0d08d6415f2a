"""The axes that a grid of pictures offers for merges, and what their values mean."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lib_merge.autombw.warm_start import SHAPES
from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.grid import Edit, GridAxis
from lib_merge.core.recipe import Recipe
from lib_merge.errors import InputError, RecipeError
from lib_merge.formats.block_text import Scope, read_blocks
from lib_merge.formats.recipe_edit import (
    method_of,
    with_blocks,
    with_method,
    with_value,
)
from lib_merge.formats.value_text import read_values
from lib_merge.methods import methods

if TYPE_CHECKING:
    from lib_merge.core.blocks import Architecture
    from lib_merge.ui.recipe_desk import RecipeDesk

LEAD = "[MergeLab] "
"""What our axes' labels begin with, so that they stand together in the host's list."""

ArchOf = Callable[[Recipe], "Architecture"]

MAX_VALUES = 200
"""Values that one range may stand for."""

_RECIPE, _METHOD, _PRESET, _VALUES = range(1, 5)
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_SERIES = re.compile(r"(?P<place>[A-Za-z_@][\w@ -]*):(?P<values>[-+\d.,;()\[\]\s]+)")
_COUNTED = re.compile(rf"({_NUMBER})\s*-\s*({_NUMBER})\s*\[\s*(\d+)\s*\]")
_STEPPED = re.compile(rf"({_NUMBER})\s*-\s*({_NUMBER})\s*\(\s*\+?({_NUMBER})\s*\)")


def grid_axes(desk: RecipeDesk, arch_of: ArchOf) -> tuple[GridAxis, ...]:
    """Every axis.

    Args:
        desk: Gives the saved recipes.
        arch_of: The architecture of a recipe's models.
    """

    def names() -> list[str]:
        return [item.name for item in desk.items() if item.what == "recipe"]

    def recipe(value: Any) -> Edit:
        found = _recipe_named(desk, str(value))
        return lambda before: found

    labels = {method.label: method for method in methods()}

    def method(value: Any) -> Edit:
        wanted = labels.get(str(value)) or methods().get(str(value))
        return lambda before: with_method(_loaded(before), wanted)

    fixed = (
        GridAxis(f"{LEAD}Recipe", False, _RECIPE, recipe, choices=names),
        GridAxis(f"{LEAD}Method", False, _METHOD, method, choices=lambda: [*labels]),
        GridAxis(
            f"{LEAD}Preset",
            False,
            _PRESET,
            lambda value: _preset(str(value), arch_of),
            choices=lambda: [*SHAPES],
        ),
        GridAxis(
            f"{LEAD}Block weights",
            False,
            _VALUES,
            lambda value: _blocks(str(value), arch_of),
            prepare=split_series,
        ),
        GridAxis(f"{LEAD}Settings", False, _VALUES, lambda v: _settings(str(v))),
    )
    return (*fixed, *map(_number_axis, number_names()))


def number_names() -> list[str]:
    """Parameters that are one number in some method."""
    specs = [spec for method in methods() for spec in method.params]
    names = {s.name for s in specs if not s.param.choices and not s.param.per_model}
    # The field's two best known ones first.
    return sorted(names, key=lambda name: (name != "alpha", name != "beta", name))


def split_series(text: str) -> list[str]:
    """Values of an axis of block weights.

    "IN04: 0-1 [5]" stands for five values of one block, as the host's number axes have
    it; "IN04-IN07: 0, 0.5, 1" for three; other text is split at its commas.
    """
    match = _SERIES.fullmatch(text.strip())
    if match is None:
        rows = csv.reader([text], skipinitialspace=True)
        return [value.strip() for row in rows for value in row if value.strip()]
    name, at, place = match["place"].strip().rpartition("@")
    lead = f"{name}: " if at else ""
    return [f"{lead}{place}={number:g}" for number in _numbers(match["values"])]


def _numbers(text: str) -> list[float]:
    found: list[float] = []
    for part in filter(None, (part.strip() for part in re.split(r"[,;]", text))):
        counted, stepped = _COUNTED.fullmatch(part), _STEPPED.fullmatch(part)
        if counted:
            low, high, n = float(counted[1]), float(counted[2]), int(counted[3])
            _check_count(n, part)
            step = (high - low) / max(n - 1, 1)
            found += [round(low + i * step, 9) for i in range(n)]
        elif stepped:
            low, high, step = (float(stepped[i]) for i in (1, 2, 3))
            n = math.floor((high - low) / step + 1e-9) + 1 if step > 0 else 0
            _check_count(n, part)
            found += [round(low + i * step, 9) for i in range(n)]
        else:
            found.append(_number(part))
    return found


def _check_count(n: int, part: str) -> None:
    if not 1 <= n <= MAX_VALUES:
        raise InputError(
            f"'{part}' stands for {n} values; give 1 to {MAX_VALUES}, like 0-1 [5]."
        )


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        raise InputError(f"'{text}' is no number; write e.g. 0.5.") from None


def _loaded(recipe: Recipe | None) -> Recipe:
    if recipe is None:
        raise InputError(
            "No merge is loaded, so this axis has nothing to change; press 'Merge and "
            "load' in the MergeLab tab first, or add the axis Recipe."
        )
    return recipe


def _recipe_named(desk: RecipeDesk, name: str) -> Recipe:
    for item in desk.items():
        if name in (item.name, item.digest):
            return desk.recipe(item.key)
    raise InputError(
        f"There is no recipe '{name}'; keep one on the Recipes page, or write the hash "
        "of a merge that was done."
    )


def _number_axis(name: str) -> GridAxis:
    def edit(value: Any) -> Edit:
        number = round(_number(value), 9)
        return lambda before: with_value(_loaded(before), name, number)

    return GridAxis(f"{LEAD}{name}", True, _VALUES, edit)


def _settings(text: str) -> Edit:
    """Main values as text: "density=0.3; elect=count"."""

    def edit(before: Recipe | None) -> Recipe:
        recipe = _loaded(before)
        problems: list[str] = []
        found = read_values([text], method_of(recipe), "Settings", problems)
        if problems:
            raise RecipeError(problems)
        for name, value in found.items():
            recipe = with_value(recipe, name, value)
        return recipe

    return edit


def _blocks(text: str, arch_of: ArchOf) -> Edit:
    """Block weights as text: "IN04=0.7; beta: M00=0.1"."""

    def edit(before: Recipe | None) -> Recipe:
        recipe = _loaded(before)
        problems: list[str] = []
        scope = Scope(method_of(recipe), arch_of(recipe))
        found = read_blocks([text], scope, "Block weights", problems)
        if problems:
            raise RecipeError(problems)
        for one in found:
            recipe = with_blocks(recipe, one.name, {one.block: one.value})
        return recipe

    return edit


def _preset(name: str, arch_of: ArchOf) -> Edit:
    """One of the usual curves over the blocks of the method's main parameter."""
    if name not in SHAPES:
        raise InputError(f"There is no preset '{name}'; known: {', '.join(SHAPES)}.")
    curve = SHAPES[name][1]

    def edit(before: Recipe | None) -> Recipe:
        recipe = _loaded(before)
        spec = method_of(recipe).block_param
        if spec is None:
            raise InputError(
                f"{method_of(recipe).label} has no main parameter that may differ per "
                "block; choose another method."
            )
        arch = arch_of(recipe)
        parts = arch.weighted_blocks()
        along = [block.id for block in parts if block.component is Component.UNET]
        low, high, last = spec.param.low, spec.param.high, max(1, len(along) - 1)
        values: dict[BlockId, float] = {
            block: min(max(curve(i / last), low), high) for i, block in enumerate(along)
        }
        return with_blocks(recipe, spec.name, values, is_whole=True)

    return edit
