"""Similarity add difference: add a difference where models differ, blend elsewhere."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.spaces import Weight


@merge_method(
    label="Similarity add difference",
    formula="(1 - s) * (A + alpha * (B - C)) + s * (A + alpha / 2 * (B - A)), "
    "s = beta * (1 + A * B / max(|A|, |B|)^2) / 2",
    source="ljleb, meh, 2023, https://github.com/s1dlx/meh/pull/12",
)
def similarity_add_difference(
    a: Weight,
    b: Weight,
    c: Weight,
    *,
    alpha: Annotated[
        float,
        Param(
            -1.0,
            2.0,
            0.01,
            help="0 gives A; 1 adds the whole difference B - C where A and B differ "
            "and takes their mean where they agree",
        ),
    ] = 1.0,
    beta: Annotated[
        float,
        Param(
            0.0,
            1.0,
            0.01,
            help="0 is add difference everywhere; 1 is the mean of A and B where they "
            "agree",
        ),
    ] = 1.0,
) -> Weight:
    """Add a difference, but blend where A and B agree already.

    Formula: s = beta * (1 + A * B / max(|A|, |B|)^2) / 2, the similarity of two values:
    beta where they are equal (both 0 included), beta / 2 where one is 0, and 0 where
    they are opposite. The result is
    (1 - s) * (A + alpha * (B - C)) + s * (A + alpha / 2 * (B - A)).

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        a: Values of the model that receives the difference.
        b: Values of the trained model.
        c: Values of the model that B was trained from.
        alpha: Factor of the difference and, halved, position between A and B. At 0 the
            result is A; at 1 it is between A + B - C and the mean of A and B.
        beta: How much similarity counts. At 0 the result is add difference; at 1 equal
            values are blended only, which protects them from being added twice.

    Degenerate inputs: three equal tensors come back unchanged; A equal to B gives A at
    beta 1; where A and B are both 0 they count as equal; opposite, constant and
    one-element tensors are nothing special; empty stays empty.

    Source: ljleb, meh, 2023, https://github.com/s1dlx/meh/pull/12. Same formula,
    without the squares, which underflow there: values below about 1e-23 count as equal
    in it.
    """
    from lib_merge.methods._ops.shares import opposition

    similarity = opposition(a, b).neg_().add_(1.0).mul_(beta)
    added, blended = b - c, (b - a).mul_(0.5)
    return a.add(added.lerp(blended, similarity), alpha=alpha)
