"""Add strict opposite: add a difference only where another one opposes it."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.spaces import Weight


@merge_method(
    label="Add strict opposite",
    formula="A + 2 * alpha * (B - C) * max(0, -(A - C) * (B - C) / t^2), "
    "t = max(|A - C|, |B - C|)",
    source="ljleb, sd-mecha, 2024, https://github.com/ljleb/sd-mecha",
)
def add_strict_opposite(
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
            help="0 gives A; 1 adds B - C twice where A and B went opposite ways, "
            "not at all where they did not",
        ),
    ] = 1.0,
) -> Weight:
    """Add B's difference from C only where A went the other way.

    Formula: A + 2 * alpha * (B - C) * max(0, -(A - C) * (B - C) / t^2) with
    t = max(|A - C|, |B - C|); 0/0 counts as 0. The factor of B - C is 0 unless the two
    differences have different signs, and 2 * alpha where they are opposite.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        a: Values of the model that receives the difference.
        b: Values of the trained model.
        c: Values of the model that both were trained from.
        alpha: Factor of the difference. At 0 the result is A; at 1 an opposite
            difference is added twice, so that B's step replaces A's; negative values
            take it away.

    Degenerate inputs: A or B equal to C, or A equal to B, gives A exactly; zero,
    opposite, constant and one-element tensors are nothing special; empty stays empty.

    Source: ljleb, sd-mecha (`add_strict_opposite_mask`), 2024,
    https://github.com/ljleb/sd-mecha. Same formula, without the squares, which
    underflow there for small differences.
    """
    from lib_merge.methods._ops.shares import opposition

    delta = b - c
    # With r = (A - C)(B - C)/t^2, opposition is (1 - r) / 2, so this is -r.
    opposed = opposition(a - c, delta).mul_(2.0).sub_(1.0).clamp_min_(0.0)
    return a.add(opposed.mul_(delta), alpha=2.0 * alpha)
