"""Presets of block weights, one a line: NAME, a tab or a colon, numbers; or numbers.

merge-block-weighted, supermerger, model-mixer and runtime-block-merge have such files,
of 25 numbers without a base or 26 (SDXL: 20) with it first. Numbers on a line of their
own say less of where they come from.
"""

from __future__ import annotations

import re
from collections import Counter

from lib_merge.core.recipe import Recipe
from lib_merge.errors import RecipeError
from lib_merge.formats.imported import Entry, Imported, Options
from lib_merge.formats.orders import ORDERS, find_order, split_weights
from lib_merge.formats.pairs import pair_of
from lib_merge.formats.source import Source

ID = "preset"
TITLE = "preset of block weights"

_LINE = re.compile(r"(?:(?P<name>[^\t:]*)[\t:])?(?P<numbers>[-+0-9.eE,;\s]+)")
_HEADS = ("preset_name", "name")
_USUAL = {25: "mbw25", 26: "supermerger", 20: "supermerger_sdxl"}
_LEAST = 17
_MAX_LINES = 5000


def sniff(source: Source) -> bool:
    """Whether the first line that counts holds at least 17 numbers."""
    for line in _lines(source.text[:20_000])[:1]:
        return _is_preset(line)
    return False


def _lines(text: str) -> list[str]:
    found = [line.strip() for line in text.splitlines()]
    return [
        line
        for line in found
        if line and not line.startswith(("#", "//")) and not line.startswith(_HEADS)
    ]


def _is_preset(line: str) -> bool:
    match = _LINE.fullmatch(line)
    return bool(match and len(re.split(r"[,;\s]+", match["numbers"].strip())) >= _LEAST)


def read(source: Source, options: Options) -> Imported:
    """Every preset of the file.

    Raises:
        RecipeError: A line that is none, or numbers whose order is open.
    """
    lines = _lines(source.text)
    if len(lines) > _MAX_LINES:
        raise RecipeError([f"{source.name} has {len(lines)} lines, too many."])
    entries: list[Entry] = []
    counts: Counter[str] = Counter()
    used: set[str] = set()
    for number, line in enumerate(lines, 1):
        where = f"{source.name}, preset {number}"
        match = _LINE.fullmatch(line)
        if match is None:
            raise RecipeError(
                [f"{where}: '{line[:60]}' is no preset; write NAME, a tab, numbers."]
            )
        numbers = split_weights(match["numbers"], where)
        name = (match["name"] or "").strip()
        usual = _USUAL.get(len(numbers)) if name else _bare_usual(len(numbers))
        order = find_order(len(numbers), options.order, where, usual=usual)
        used.add(order.id)
        is_sdxl = order.is_sdxl or options.arch == "sdxl"
        name = name or f"line {number}"
        counts[name] += 1
        entry = Entry(
            name if counts[name] == 1 else f"{name} ({counts[name]})",
            weights=order.setting(numbers, is_sdxl=is_sdxl),
            components=order.components,
            facts=(("order", order.id),),
        )
        entries.append(entry)
    notes = [f"{order.id}: {order.title}." for order in ORDERS if order.id in used]
    return Imported(ID, TITLE, tuple(entries), tuple(notes))


def _bare_usual(n_numbers: int) -> str | None:
    """Numbers without a name: 26 may have the base first or last."""
    return None if n_numbers == 26 else _USUAL.get(n_numbers)


def write(recipe: Recipe) -> str:
    """A line of 26 numbers with the base first, as supermerger has them.

    Raises:
        RecipeError: Not a weighted sum of two files whose blocks the order can say.
    """
    pair = pair_of(recipe, TITLE)
    order = next(o for o in ORDERS if o.id == "supermerger")

    def value(block: str) -> float:
        return {str(b): v for b, v in pair.blocks.items()}.get(block, pair.default)

    numbers = [value(label) for label in order.labels]
    again = order.setting(numbers, is_sdxl=False)
    known = {*order.labels, "TIME_EMBED", "OUT", "VAE"}
    given = dict(again.blocks)
    differing = [
        b
        for b in sorted(known)
        if given.get(b, 0.0) != value(b)  # type: ignore[call-overload]
    ]
    other = [b for b in pair.blocks if b not in known]
    if differing or other or set(pair.components) != set(order.components):
        raise RecipeError(
            [
                "A preset of 26 numbers cannot say this recipe: "
                f"{', '.join([*differing, *other]) or 'what it blends'} would change. "
                "time_embed follows IN00, out follows OUT11 and the VAE the base there."
            ]
        )
    return f"preset\t{','.join(map(repr, numbers))}\n"
