"""The keys that a whole checkpoint of an architecture has, with shape and dtype."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lib_merge.core.blocks import TensorInfo
from lib_merge.core.dtypes import DType

_FOLDER = Path(__file__).parent / "layouts"


@dataclass(frozen=True)
class ExpectedKey:
    """One key of a whole checkpoint.

    Attributes:
        info: Its shape, and its dtype in the original release.
        is_required: Whether a whole file must have it.
    """

    info: TensorInfo
    is_required: bool


Expected = Mapping[str, ExpectedKey]


@lru_cache(maxsize=32)
def expected_layout(arch_id: str) -> Expected | None:
    """Every key of an architecture's single-file layout but EMA shadow weights.

    Returns:
        Keys in the table's order, or None for an architecture without a table.

    The tables are written from the golden lists; `#` in a key stands for numbers that
    the last column gives, as in `1-2,4-5:1:0`.
    """
    file = _FOLDER / f"{arch_id}.tsv"
    if not file.is_file():
        return None
    found: dict[str, ExpectedKey] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        template, shape, code, need, numbers = line.split("\t")
        sides = tuple(int(side) for side in shape.split(",") if side)
        info = TensorInfo(DType.from_code(code), sides)
        expected = ExpectedKey(info, need == "required")
        found.update((key, expected) for key in _keys(template, numbers))
    return found


def _keys(template: str, numbers: str) -> Iterator[str]:
    pieces = template.split("#")
    if len(pieces) == 1:
        yield template
        return
    for product in numbers.split(" "):
        sides = [list(_numbers(side)) for side in product.split(":")]
        for chosen in itertools.product(*sides):
            texts = [str(number) for number in chosen]
            pairs = itertools.zip_longest(pieces, texts, fillvalue="")
            yield "".join(part for pair in pairs for part in pair)


def _numbers(ranges: str) -> Iterator[int]:
    for span in ranges.split(","):
        first, _, last = span.partition("-")
        yield from range(int(first), int(last or first) + 1)
