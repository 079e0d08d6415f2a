"""The orders in which AutoMBW's files write down the same 27 block weights.

Nothing in those files names the blocks, and each has an order of its own, so a vector
is of use only together with the order that it was written in.

Source: the writers of 6DammK9/auto-MBW-rt and 6DammK9/sd-webui-runtime-block-merge,
and Xerxemi/auto-MBW-rt for the older page; confirmed by published runs, whose best row
of the CSV equals their recipe.txt block by block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from lib_merge.core.blocks import BlockId

_IN = tuple(BlockId(f"IN{i:02d}") for i in range(12))
_OUT = tuple(BlockId(f"OUT{i:02d}") for i in range(12))
_M, _LAST, _TIME = BlockId("M00"), BlockId("OUT"), BlockId("TIME_EMBED")

CSV_ORDER = (*_IN, _M, _LAST, *_OUT, _TIME)
"""Columns 0 to 26 of the trial table, the console and "Weight Values (_nat)"."""

RECIPE_TXT_ORDER = (*_IN, _M, *_OUT, _LAST, _TIME)
"""The line of recipe.txt, and mbwrt_weights in a checkpoint's metadata."""

OLD_PAGE_ORDER = (*_IN, _M, *_OUT, _TIME, _LAST)
"""The page of the first AutoMBW: its last two are swapped against recipe.txt."""

ORDERS: Mapping[str, tuple[BlockId, ...]] = MappingProxyType(
    {
        "csv": CSV_ORDER,
        "recipe_txt": RECIPE_TXT_ORDER,
        "old_page": OLD_PAGE_ORDER,
    }
)
"""AutoMBW's orders by id."""


def by_block(weights: Sequence[float], order: Sequence[BlockId]) -> dict[str, float]:
    """A vector as values by block, in the order's own sequence.

    Raises:
        ValueError: There are more or fewer weights than blocks.
    """
    return {str(b): float(w) for b, w in zip(order, weights, strict=True)}


def in_order(
    values: Mapping[str, float], order: Sequence[BlockId], *, missing: float = 0.0
) -> tuple[float, ...]:
    """Values by block as a vector; blocks that `values` lacks are `missing`."""
    return tuple(float(values.get(block, missing)) for block in order)
