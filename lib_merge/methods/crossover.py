"""Crossover: coarse structure of one model, fine structure of the other."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.runs import Over
from lib_merge.core.spaces import Delta
from lib_merge.methods._ops.frequency import (
    crossover_share,
    filtered,
    workspace,
)


@merge_method(
    label="Crossover",
    formula="base + F^-1(share(r) * F(M - base)), F the Fourier transform of a tensor",
    source="ljleb, sd-mecha, 2024, https://github.com/ljleb/sd-mecha",
    over=Over.TENSOR,
    workspace=workspace,
)
def crossover(
    delta: Delta,
    *,
    alpha: Annotated[
        float,
        Param(
            0.0,
            1.0,
            0.01,
            help="share of B: 0 gives A, 1 gives B; between, B has the frequencies "
            "above 1 - alpha",
        ),
    ] = 0.5,
    tilt: Annotated[
        float,
        Param(
            0.0,
            2.0,
            0.01,
            help="0 cuts sharply, B above; 1 is a weighted sum; 2: sharply, B below",
        ),
    ] = 0.0,
) -> Delta:
    """Take the low frequencies of A (the base) and the high ones of B (the model).

    Formula: A + F^-1(share(r) * F(B - A)), where F is the Fourier transform over all
    axes of the tensor and r the radius of a frequency: the root of the mean square,
    over all axes longer than 1, of k / (n // 2). With tilt up to 1, share(r) is
    cot(pi * tilt / 2) * (r - (1 - alpha)) + alpha, held within 0 and 1; above 1 it is
    cot(pi * tilt / 2) * (r - alpha) + alpha. At tilt 0 that is a step: B where
    r > 1 - alpha; at tilt 2: B where r < alpha.

    Shapes: any. Every axis counts as one of space. The tensor is held whole. Works in
    and returns the input's dtype (float32 or float64); radii are float64.

    Args:
        delta: B - A; the recipe's first model is A.
        alpha: Share of the radii that B has. At 0 the result is A, at 1 it is B (to the
            rounding of A + (B - A)), for every tilt.
        tilt: Slope of the cut. At 0 A ends and B begins at one radius; towards 1 the
            two overlap more and more, and at 1 the result is the weighted sum; above 1
            B has the low frequencies, at 2 with a sharp cut. The models in the other
            order, 1 - alpha and 2 - tilt give the same result.

    Degenerate inputs: equal models come back as they are; zero and opposite ones are
    nothing special; a constant difference, and tensors of one element, have radius 0
    only, so at tilt 0 and alpha below 1 the result is A there; empty stays empty. A
    value that is NaN or infinite makes the whole tensor NaN.

    Source: ljleb, sd-mecha (`crossover`), 2024, https://github.com/ljleb/sd-mecha.
    There axes of length 1 count in the mean, which moves the cut of 1x1 convolutions;
    tilt 2 cuts at 1 - alpha although tilts just below it cut at alpha; 0-D tensors are
    a weighted sum; and tilts from 2 to 4 repeat those from 2 down to 0. meh's
    distribution_crossover sorts the values by a third model first and has one axis.
    """
    if alpha <= 0.0:
        return delta.new_zeros(delta.shape)
    if alpha >= 1.0 or tilt == 1.0:
        return delta * alpha
    return filtered(delta, crossover_share(alpha, tilt))
