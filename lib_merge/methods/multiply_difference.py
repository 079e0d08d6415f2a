"""Multiply difference: the geometric mean of two models' differences."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.spaces import Weight


@merge_method(
    label="Multiply difference",
    formula="C + sign(s) * |A - C|^(1 - alpha) * |B - C|^alpha, "
    "s = (1 - beta) * (A - C) + beta * (B - C)",
    source="s1dlx and ljleb, meh, 2023, https://github.com/s1dlx/meh",
)
def multiply_difference(
    a: Weight,
    b: Weight,
    c: Weight,
    *,
    alpha: Annotated[
        float,
        Param(0.0, 1.0, 0.01, help="size of the difference: 0 as A's, 1 as B's"),
    ] = 0.5,
    beta: Annotated[
        float,
        Param(0.0, 1.0, 0.01, help="sign of the difference: 0 as A's, 1 as B's"),
    ] = 0.5,
) -> Weight:
    """Give C a difference as large as the geometric mean of A's and B's.

    Formula: C + sign(s) * |A - C|^(1 - alpha) * |B - C|^alpha with
    s = (1 - beta) * (A - C) + beta * (B - C); 0^0 is 1, and the sign of 0 is 0.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        a: Values of model A.
        b: Values of model B.
        c: Values of the model that both were trained from.
        alpha: Whose size counts. At 0 it is A's difference alone, at 1 B's; between,
            a value that either model left alone stays C's.
        beta: Whose sign counts. At 0 it is A's, at 1 B's; between, that of the
            weighted sum of the differences. With alpha and beta 0 the result is A,
            with both 1 it is B, each to within a rounding.

    Degenerate inputs: three equal tensors come back unchanged; a value of A or B that
    equals C's gives C for alpha between 0 and 1; opposite differences have no sign at
    beta 0.5 and give C; constant and one-element tensors are nothing special; empty
    stays empty.

    Source: s1dlx and ljleb, meh, 2023, https://github.com/s1dlx/meh. There a sum of
    exactly 0 takes the positive side; here it takes neither, so that the method treats
    both directions alike.
    """
    from lib_merge.methods._ops.powers import geometric_mean

    delta_a, delta_b = a - c, b - c
    sign = delta_a.lerp(delta_b, beta).sign_()
    size = geometric_mean(delta_a.abs_(), delta_b.abs_(), alpha)
    return size.mul_(sign).add_(c)
