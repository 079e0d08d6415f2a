"""Triple sum: three models with shares that add up to 1."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.spaces import Weight


@merge_method(
    label="Triple sum",
    formula="(1 - alpha - beta) * A + alpha * B + beta * C",
    source="hako-mikan, SuperMerger, 2023, "
    "https://github.com/hako-mikan/sd-webui-supermerger",
)
def triple_sum(
    a: Weight,
    b: Weight,
    c: Weight,
    *,
    alpha: Annotated[
        float,
        Param(-1.0, 2.0, 0.01, help="share of B: 0 leaves it out, 1 (beta 0) gives B"),
    ] = 0.5,
    beta: Annotated[
        float,
        Param(-1.0, 2.0, 0.01, help="share of C: 0 leaves it out, 1 (alpha 0) gives C"),
    ] = 0.25,
) -> Weight:
    """Blend three models; A has what the other two leave.

    Formula: (1 - alpha - beta) * A + alpha * B + beta * C; written from the model with
    the largest share (that model plus the others' differences from it, times their
    shares), so that it is exact wherever one share is 1 and for equal models.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        a: Values of model A.
        b: Values of model B.
        c: Values of model C.
        alpha: Share of B. At 0 it has no part; at 1 with beta 0 the result is B.
        beta: Share of C. At 0 it has no part; at 1 with alpha 0 the result is C. With
            both 0 the result is A; shares may be negative or exceed 1.

    Degenerate inputs: three equal tensors come back unchanged for every alpha and
    beta; zero, opposite, constant and one-element tensors are nothing special; empty
    stays empty.

    Source: hako-mikan, SuperMerger ("Triple sum"), 2023,
    https://github.com/hako-mikan/sd-webui-supermerger. Same formula; SuperMerger's
    variant with two interpolations divides by alpha + beta, which we avoid.
    """
    shares = ((1.0 - alpha - beta, a), (alpha, b), (beta, c))
    first, *others = sorted(shares, key=lambda pair: -pair[0])
    merged = first[1]
    for share, theta in others:
        merged = merged.add(theta - first[1], alpha=share)
    return merged
