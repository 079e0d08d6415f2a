"""Writes the package's layout tables from the golden lists; a test compares them.

    python -m tests.support.compact_layouts sd1 sd2 sdxl

A line is: template, shape, dtype, required or optional, numbers. Every number between
dots of a key is a `#` in its template; the last column says which numbers occur there,
a position each with colons between, as in `0-11` or `1-2,4-5:1:0`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.support.checkpoints import golden_rows

TABLES = Path(__file__).parents[2] / "lib_merge" / "analysis" / "health" / "layouts"

OPTIONAL = re.compile(
    # SDXL reads the text encoders' last layer but one, so files may lack the last.
    r"conditioner\.embedders\.0\.transformer\.text_model\.final_layer_norm\."
    r"|conditioner\.embedders\.0\.transformer\.text_model\.encoder\.layers\.11\."
    r"|conditioner\.embedders\.0\.transformer\.text_model\.embeddings\.position_ids"
    r"|cond_stage_model\.transformer\.text_model\.embeddings\.position_ids"
    r"|.*\.logit_scale$"
)
"""Keys that whole files may lack, besides what a merge only copies."""

Numbers = tuple[int, ...]


def table_of(arch_id: str) -> str:
    """The table of one architecture, from its golden list."""
    groups: dict[tuple[str, str, str, str], set[Numbers]] = {}
    for row in golden_rows(arch_id):
        if row["treatment"] == "ema":
            continue
        is_optional = row["treatment"] == "copy" or OPTIONAL.match(row["key"])
        template, numbers = split_numbers(row["key"])
        entry = (
            template,
            row["shape"],
            row["dtype"],
            "optional" if is_optional else "required",
        )
        groups.setdefault(entry, set()).add(numbers)
    lines = ["\t".join((*entry, _text(found))) for entry, found in groups.items()]
    return "\n".join(sorted(lines)) + "\n"


def split_numbers(key: str) -> tuple[str, Numbers]:
    """A key's template and its numbers."""
    parts = key.split(".")
    numbers = tuple(int(part) for part in parts if part.isdigit())
    template = ".".join("#" if part.isdigit() else part for part in parts)
    return template, numbers


def _text(found: Iterable[Numbers]) -> str:
    return " ".join(":".join(sides) for sides in _products(set(found)))


def _products(found: set[Numbers]) -> list[tuple[str, ...]]:
    """Products of ranges that together are the given numbers, none twice."""
    if found == {()}:
        return [()]
    rests: dict[int, set[Numbers]] = {}
    for first, *rest in found:
        rests.setdefault(first, set()).add(tuple(rest))
    by_rest: dict[frozenset[Numbers], list[int]] = {}
    for first, rest_of in sorted(rests.items()):
        by_rest.setdefault(frozenset(rest_of), []).append(first)
    return [
        (_ranges(firsts), *sides)
        for rest_of, firsts in by_rest.items()
        for sides in _products(set(rest_of))
    ]


def _ranges(numbers: list[int]) -> str:
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        (TABLES / f"{name}.tsv").write_text(table_of(name), encoding="utf-8")
