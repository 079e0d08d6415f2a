"""Train difference: add what A has not learned yet."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.spaces import Weight

_STRENGTH = 1.8
"""The author's factor: it makes alpha 1 about as strong as add difference's alpha 1."""


@merge_method(
    label="Train difference",
    formula="A + 1.8 * alpha * (B - C) * |B - A| / (|B - A| + |B - C|)",
    source="SwiftIllusion, SuperMerger, 2023, "
    "https://github.com/hako-mikan/sd-webui-supermerger/issues/33",
)
def train_difference(
    a: Weight,
    b: Weight,
    c: Weight,
    *,
    alpha: Annotated[
        float,
        Param(-1.0, 2.0, 0.01, help="0 gives A; 1 trains the whole difference B - C"),
    ] = 1.0,
) -> Weight:
    """Add the difference of two models where A is not there already.

    Formula: A + 1.8 * alpha * (B - C) * |B - A| / (|B - A| + |B - C|); 0/0 counts as 0.
    A value that A shares with B is left alone; far from B the difference comes in
    almost 1.8 times.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        a: Values of the model that receives the difference.
        b: Values of the trained model.
        c: Values of the model that B was trained from.
        alpha: Factor of the difference. At 0 the result is A; at 1 it is the author's
            strength; negative values take it away.

    Degenerate inputs: B equal to C, or B equal to A, gives A exactly; zero, opposite,
    constant and one-element tensors are nothing special; empty stays empty.

    Source: SwiftIllusion, SuperMerger ("trainDifference"), 2023,
    https://github.com/hako-mikan/sd-webui-supermerger/issues/33. Same formula; the
    originals compare whole tensors of B and C first, which gives the same values.
    """
    from lib_merge.methods._ops.shares import share_of

    learned = b - c
    change = share_of(b - a, learned.clone()).mul_(learned)
    return a.add(change, alpha=_STRENGTH * alpha)
