"""Tensor sum: a slice of every tensor from B, the rest from A."""

from __future__ import annotations

import math
from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param, choice
from lib_merge.core.runs import Place
from lib_merge.core.spaces import Weight


@merge_method(
    label="Tensor sum",
    formula="B in the slice [beta, beta + alpha) of rows or columns, A elsewhere",
    source="hako-mikan, SuperMerger, 2023, "
    "https://github.com/hako-mikan/sd-webui-supermerger",
)
def tensor_sum(
    a: Weight,
    b: Weight,
    *,
    alpha: Annotated[
        float, Param(0.0, 1.0, 0.01, help="share of B: 0 gives A, 1 gives B")
    ] = 0.5,
    beta: Annotated[
        float,
        Param(
            0.0,
            1.0,
            0.01,
            help="where the slice begins: 0 at the first row; a slice over the end "
            "goes on at the first row",
        ),
    ] = 0.0,
    axis: Annotated[
        float, choice("rows", "columns", help="slice the first axis, or the second")
    ] = 0.0,
    place: Place,
) -> Weight:
    """Put a slice of B's rows or columns into A, without blending any value.

    Formula: with n rows, rows floor(n * beta) up to, not including,
    floor(n * (alpha + beta)) are B's, the others A's. Where alpha + beta is above 1 the
    slice goes on at the first row, up to floor(n * (alpha + beta - 1)).

    Shapes: any, equal; rows are entries of the first axis, columns those of the second.
    Works in and returns the inputs' dtype (float32 or float64).

    Args:
        a: Values of model A.
        b: Values of model B.
        alpha: Width of the slice, as a share of the rows. At 0 the result is A, at 1
            it is B.
        beta: Begin of the slice. At 0 and at 1 it begins with the first row.
        axis: Rows, or columns; tensors with one axis have rows only.
        place: Where the run lies.

    Degenerate inputs: equal tensors come back unchanged; a tensor of one row (0-D ones
    included) is B where the slice reaches the row's end (alpha + beta at least 1, beta
    below 1), else A; zero, opposite and constant tensors are nothing special; empty
    stays empty.

    Source: hako-mikan, SuperMerger ("tensor", "tensor2"), 2023,
    https://github.com/hako-mikan/sd-webui-supermerger; meh's tensor_sum has rows only.
    Whole rows are counted down as there, but a product that misses a whole number by a
    float64 rounding counts as that number. SuperMerger's tensor2 counts in rows where
    there are 100 columns or fewer and then slices columns by that, and it leaves 0-D
    tensors at A for every alpha; we count what is sliced. sd-mecha rounds to the
    nearest row.
    """
    from lib_merge.methods._ops.columns import copy_columns

    n_slices, width = _slices(place.shape, axis)
    merged = a.clone()
    for first, last in _ranges(n_slices, alpha, beta):
        copy_columns(
            merged,
            b,
            place.start,
            width=width,
            first=first * (width // n_slices),
            last=last * (width // n_slices),
        )
    return merged


def _slices(shape: tuple[int, ...], axis: float) -> tuple[int, int]:
    """How many rows or columns there are, and after how many values they repeat."""
    cut = 1 if axis and len(shape) > 1 else 0
    width = max(1, math.prod(shape[cut:]))
    n_slices = shape[cut] if shape else 1
    return max(1, n_slices), width


def _ranges(n: int, alpha: float, beta: float) -> list[tuple[int, int]]:
    """Which of n slices are B's."""
    if alpha >= 1.0:
        return [(0, n)]
    end = alpha + beta
    if end <= 1.0:
        return [(_whole(n * beta), _whole(n * end))]
    return [(_whole(n * beta), n), (0, _whole(n * (end - 1.0)))]


def _whole(value: float) -> int:
    return math.floor(value + 1e-9)
