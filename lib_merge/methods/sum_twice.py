"""Sum twice: A and B blended, and C blended into that."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.spaces import Weight


@merge_method(
    label="Sum twice",
    formula="(1 - beta) * ((1 - alpha) * A + alpha * B) + beta * C",
    source="hako-mikan, SuperMerger, 2023, "
    "https://github.com/hako-mikan/sd-webui-supermerger",
)
def sum_twice(
    a: Weight,
    b: Weight,
    c: Weight,
    *,
    alpha: Annotated[
        float, Param(-1.0, 2.0, 0.01, help="first blend: 0 gives A, 1 gives B")
    ] = 0.5,
    beta: Annotated[
        float,
        Param(-1.0, 2.0, 0.01, help="second blend: 0 gives the first one, 1 gives C"),
    ] = 0.25,
) -> Weight:
    """Blend A and B, then the result and C: two weighted sums in one.

    Formula: (1 - beta) * ((1 - alpha) * A + alpha * B) + beta * C.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        a: Values of model A.
        b: Values of model B.
        c: Values of model C.
        alpha: Position between A and B. At 0 the first blend is A, at 1 it is B.
        beta: Position between the first blend and C. At 0 the result is the first
            blend, at 1 it is C. Below 0 and above 1 both extrapolate.

    Degenerate inputs: three equal tensors come back unchanged for every alpha and
    beta; zero, opposite, constant and one-element tensors are nothing special; empty
    stays empty.

    Source: hako-mikan, SuperMerger ("sum Twice"), 2023,
    https://github.com/hako-mikan/sd-webui-supermerger. Same formula there; both ends
    of either blend are exact here, and nothing is rounded between the two.
    """
    return a.lerp(b, alpha).lerp(c, beta)
