"""Weighted subtraction: a weighted sum undone."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.spaces import Weight


@merge_method(
    label="Weighted subtraction",
    formula="(A - alpha * beta * B) / (1 - alpha * beta)",
    source="bmaltais, sd-webui-bayesian-merger, 2023, "
    "https://github.com/s1dlx/sd-webui-bayesian-merger/pull/64",
)
def weighted_subtraction(
    a: Weight,
    b: Weight,
    *,
    alpha: Annotated[
        float,
        Param(0.0, 1.0, 0.01, help="0 gives A; with beta 1 the share of B taken out"),
    ] = 0.5,
    beta: Annotated[
        float,
        Param(0.0, 0.99, 0.01, help="0 gives A; alpha * beta is the share taken out"),
    ] = 0.5,
) -> Weight:
    """Take out of A the share of B that was once blended in.

    Formula: (A - alpha * beta * B) / (1 - alpha * beta), computed as
    A + s / (1 - s) * (A - B) with s = alpha * beta. It undoes a weighted sum: if A is
    (1 - s) * X + s * B, the result is X.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        a: Values of the model to take from.
        b: Values of the model to take out.
        alpha: One factor of the share s. At 0 the result is A; towards 1 the result
            moves ever further from B.
        beta: The other factor; 0 gives A. It ends at 0.99, where the difference A - B
            is multiplied by up to 99.

    Degenerate inputs: equal tensors come back unchanged; zero, opposite, constant and
    one-element tensors are nothing special; empty stays empty.

    Source: bmaltais, sd-webui-bayesian-merger, 2023,
    https://github.com/s1dlx/sd-webui-bayesian-merger/pull/64, later in meh. There a
    share of 1 is divided by 1e-10, which has no use; here beta ends at 0.99.
    """
    share = alpha * beta
    return a.add(a - b, alpha=share / (1.0 - share))
