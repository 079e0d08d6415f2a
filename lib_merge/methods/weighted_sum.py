"""Weighted sum: the straight line from A to B."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.spaces import Weight


@merge_method(
    label="Weighted sum",
    formula="A + alpha * (B - A)",
    source="AUTOMATIC1111 checkpoint merger; Utans, Weight averaging, 1996",
)
def weighted_sum(
    a: Weight,
    b: Weight,
    *,
    alpha: Annotated[
        float,
        Param(-1.0, 2.0, 0.01, help="0 gives A, 1 gives B; beyond, it extrapolates"),
    ] = 0.5,
) -> Weight:
    """Blend two models.

    Formula: A + alpha * (B - A) for alpha below 0.5, else B - (1 - alpha) * (B - A);
    the same line, written from the nearer end, so that alpha 0 gives A and alpha 1
    gives B exactly.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        a: Values of model A.
        b: Values of model B.
        alpha: Position between them. At 0 the result is A, at 1 it is B; below 0 and
            above 1 it lies outside the two.

    Degenerate inputs: equal tensors come back unchanged for every alpha; zero,
    opposite, constant and one-element tensors are nothing special; empty stays empty.

    Source: the field's "weighted sum" (AUTOMATIC1111 checkpoint merger). We differ in
    the arithmetic only: float32 or wider, and exact at both ends.
    """
    return a.lerp(b, alpha)
