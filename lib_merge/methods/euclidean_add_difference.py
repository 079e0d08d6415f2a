"""Euclidean add difference: two differences joined by Pythagoras' theorem."""

from __future__ import annotations

import math
from typing import Annotated, Any

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.runs import Runs
from lib_merge.core.spaces import Weight

_TINY = 2.0**-126
"""Norms below the smallest normal float32 count as 0: their inverse overflows."""


def _factors(runs: Runs, *, alpha: float) -> tuple[float, float, float]:
    """Factors of A's and B's differences before they are joined, and of the result."""
    import torch

    norms = torch.zeros(5, dtype=torch.float64)
    for run in runs:
        a, b, c = (values.double() for values in run.inputs)
        delta_a, delta_b = a - c, b - c
        total = delta_a.lerp(delta_b, alpha)
        is_signed = total.sign().abs_()
        signed_a, signed_b = delta_a * is_signed, delta_b * is_signed
        parts = (delta_a, delta_b, total, signed_a, signed_b)
        norms += torch.stack([v.dot(v) for v in parts]).to(norms.device)
    norm_a, norm_b, norm, signed_a, signed_b = (math.sqrt(v) for v in norms.tolist())
    unit_a = 1.0 / norm_a if norm_a >= _TINY else 0.0
    unit_b = 1.0 / norm_b if norm_b >= _TINY else 0.0
    part_a, part_b = math.sqrt(1.0 - alpha), math.sqrt(alpha)
    joined = math.hypot(part_a * unit_a * signed_a, part_b * unit_b * signed_b)
    scale = norm / joined if joined > 0.0 else 0.0
    return part_a * unit_a, part_b * unit_b, scale


@merge_method(
    label="Euclidean add difference",
    formula="C + |s| * unit(sign(s) * sqrt((1 - alpha) * unit(A - C)^2 "
    "+ alpha * unit(B - C)^2)), s = (1 - alpha) * (A - C) + alpha * (B - C)",
    source="ljleb, meh, 2023, https://github.com/s1dlx/meh/pull/9",
    measure=_factors,
)
def euclidean_add_difference(
    a: Weight,
    b: Weight,
    c: Weight,
    *,
    alpha: Annotated[
        float,
        Param(0.0, 1.0, 0.01, help="0 gives A's difference, 1 gives B's"),
    ] = 0.5,
    measured: Any,
) -> Weight:
    """Join two models' differences as the sides of a right triangle.

    Formula: with s = (1 - alpha) * (A - C) + alpha * (B - C), unit(x) = x / |x| and |x|
    the norm over the whole tensor, each value gets the size
    sqrt((1 - alpha) * unit(A - C)^2 + alpha * unit(B - C)^2) and the sign of s; the
    tensor of these is made as long as s, and added to C. unit(0) is 0.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64);
    norms are summed in float64.

    Args:
        a: Values of model A.
        b: Values of model B.
        c: Values of the model that both were trained from.
        alpha: Share of B's difference. At 0 the result is A, at 1 it is B, each to
            within a rounding.
        measured: Factors of the two differences and of the result, from the norms.

    Degenerate inputs: three equal tensors come back unchanged; A or B equal to C in the
    whole tensor leaves the other's difference, at the length of s; differences that
    cancel (opposite at alpha 0.5) give C; a single value gets s itself; constant
    tensors are nothing special; empty stays empty.

    Source: ljleb, meh, 2023, https://github.com/s1dlx/meh/pull/9. There equal models
    give NaN (0/0), and a value whose s is exactly 0 takes the positive side; here it
    takes neither, so that the method treats both directions alike.
    """
    factor_a, factor_b, scale = measured
    delta_a, delta_b = a - c, b - c
    sign = delta_a.lerp(delta_b, alpha).sign_()
    squares = delta_a.mul_(factor_a).square_()
    squares.add_(delta_b.mul_(factor_b).square_())
    return squares.sqrt_().mul_(scale).mul_(sign).add_(c)
