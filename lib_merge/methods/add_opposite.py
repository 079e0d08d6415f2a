"""Add opposite: add a difference where two models were trained apart."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.spaces import Weight


@merge_method(
    label="Add opposite",
    formula="A + 2 * alpha * (B - C) * |A - B| / (|A - B| + |A + B - 2C|)",
    source="ljleb, sd-mecha, 2024, https://github.com/ljleb/sd-mecha",
)
def add_opposite(
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
            "once where only B moved, not at all where both made the same step",
        ),
    ] = 1.0,
) -> Weight:
    """Add B's difference from C the more, the more A's own difference opposes it.

    Formula: A + 2 * alpha * (B - C) * |A - B| / (|A - B| + |A + B - 2C|); 0/0 counts as
    0. The factor of B - C is 0 where A and B are equal, alpha where A is C, and
    2 * alpha where A - C is the opposite of B - C.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        a: Values of the model that receives the difference.
        b: Values of the trained model.
        c: Values of the model that both were trained from.
        alpha: Factor of the difference. At 0 the result is A; at 1 an opposite
            difference is added twice, so that B's step replaces A's; negative values
            take it away.

    Degenerate inputs: B equal to C, or A equal to B, gives A exactly; zero, opposite,
    constant and one-element tensors are nothing special; empty stays empty.

    Source: ljleb, sd-mecha (`add_opposite_mask`), 2024,
    https://github.com/ljleb/sd-mecha. Same formula.
    """
    from lib_merge.methods._ops.shares import opposition

    delta = b - c
    change = opposition(a - c, delta).mul_(delta)
    return a.add(change, alpha=2.0 * alpha)
