"""Add difference: what training made of C, carried over to A."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.spaces import Weight


@merge_method(
    label="Add difference",
    formula="A + alpha * (B - C)",
    source="Ilharco et al., Editing Models with Task Arithmetic, 2023, "
    "https://arxiv.org/abs/2212.04089",
)
def add_difference(
    a: Weight,
    b: Weight,
    c: Weight,
    *,
    alpha: Annotated[
        float,
        Param(-2.0, 2.0, 0.01, help="0 gives A; 1 adds the whole difference B - C"),
    ] = 1.0,
) -> Weight:
    """Add the difference of two models to a third.

    Formula: A + alpha * (B - C).

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        a: Values of the model that receives the difference.
        b: Values of the trained model.
        c: Values of the model that B was trained from.
        alpha: Factor of the difference. At 0 the result is A; at 1 the whole
            difference is added; negative values take it away. With A = C and alpha 2
            it is the amplified difference 2B - A.

    Degenerate inputs: B equal to C gives A exactly; opposite, zero, constant and
    one-element tensors are nothing special; empty stays empty.

    Source: Ilharco et al., Editing Models with Task Arithmetic, 2023,
    https://arxiv.org/abs/2212.04089 (one task vector); the WebUI's "Add difference".
    """
    return a.add(b - c, alpha=alpha)
