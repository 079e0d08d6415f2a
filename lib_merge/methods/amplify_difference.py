"""Amplify difference: what training changed, made larger."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.spaces import Delta


@merge_method(
    label="Amplify difference",
    formula="base + alpha * (B - base)",
    source="6DammK9, amplify_diff.ipynb, 2024, "
    "https://github.com/6DammK9/nai-anime-pure-negative-prompt",
)
def amplify_difference(
    b: Delta,
    *,
    alpha: Annotated[
        float,
        Param(
            0.0,
            4.0,
            0.01,
            help="0 gives the base, 1 gives B, 2 doubles the difference (2B - base)",
        ),
    ] = 2.0,
) -> Delta:
    """Multiply a model's difference from a base.

    Formula: base + alpha * (B - base); at alpha 2 that is 2B - base.

    Shapes: any. Works in and returns the input's dtype (float32 or float64).

    Args:
        b: What model B differs from the base by.
        alpha: Factor of the difference. At 0 the result is the base, at 1 it is B (to
            within a rounding), above 1 it lies beyond B; a distance from the base
            grows by exactly this factor.

    Degenerate inputs: B equal to the base gives the base exactly; zero, opposite,
    constant and one-element tensors are nothing special; empty stays empty.

    Source: 6DammK9, amplify_diff.ipynb, 2024,
    https://github.com/6DammK9/nai-anime-pure-negative-prompt ("amplified difference",
    2B - A). A weighted sum with alpha up to 2 elsewhere; nothing is clamped.
    """
    return b * alpha
