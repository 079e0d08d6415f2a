"""Extract: what two models have in common, or what sets them apart."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.runs import Over
from lib_merge.core.spaces import Delta


@merge_method(
    label="Extract",
    formula="base + lam * lerp(B - base, C - base, alpha) * lerp(d, 1 - d, beta), "
    "d = ((1 + cos) / 2)^gamma",
    source="hako-mikan and contributors, SuperMerger, 2023, "
    "https://github.com/hako-mikan/sd-webui-supermerger",
    over=Over.ROWS,
)
def extract(
    b: Delta,
    c: Delta,
    *,
    alpha: Annotated[
        float, Param(0.0, 1.0, 0.01, help="whose features: 0 of B, 1 of C")
    ] = 0.5,
    beta: Annotated[
        float,
        Param(
            0.0, 1.0, 0.01, help="0 extracts what B and C have in common, 1 the rest"
        ),
    ] = 0.0,
    gamma: Annotated[
        float,
        Param(
            0.0,
            30.0,
            0.01,
            help="how like two rows must be: 0 counts all as alike, 30 nearly parallel "
            "ones only",
        ),
    ] = 0.3,
    lam: Annotated[
        float,
        Param(-1.0, 4.0, 0.01, help="factor of what is added: 0 gives the base"),
    ] = 1.0,
) -> Delta:
    """Add to a base the features that two models share, or those they do not.

    Formula: base + lam * lerp(B - base, C - base, alpha) * lerp(d, 1 - d, beta), with
    d = ((1 + cos) / 2)^gamma and cos the cosine of a row of B - base and the same row
    of C - base; 0^0 is 1, and the cosine with a row of zeros is 0.

    Shapes: any, equal; a row runs along the last axis (in a convolution's weight along
    the kernel's width, as in SuperMerger), 0-D and 1-D tensors are one row. Works in
    and returns the inputs' dtype (float32 or float64); cosines are in float64.

    Args:
        b: What model B differs from the base by.
        c: What model C differs from the base by.
        alpha: Whose features are added. At 0 B's, at 1 C's.
        beta: Which features. At 0 those that B and C have in common, at 1 those they
            do not, at 0.5 half of everything.
        gamma: How sharply rows are told apart. At 0 every row is common, at 30 only
            rows in nearly the same direction are.
        lam: Factor of what is added. At 0 the result is the base, at 1 the features
            come in as they are; negative values take them away.

    Degenerate inputs: B and C equal to the base give the base exactly; B equal to C
    has everything in common (at beta 0 and lam 1 the result is B to within a rounding,
    at beta 1 the base exactly); opposite differences have nothing in common; a single
    value has the cosine 1, 0 or -1; constant tensors are nothing special; empty stays
    empty.

    Source: hako-mikan and contributors, SuperMerger ("extract"), 2023,
    https://github.com/hako-mikan/sd-webui-supermerger; lam from untitledmerger, whose
    gamma is 1/15 of this one. Same formula; the originals count all rows with norms
    below about 1e-8 as zero, here only zero is.
    """
    from lib_merge.methods._ops.powers import power
    from lib_merge.methods._ops.rows import row_distances

    alike = power(1.0 - row_distances(b, c), gamma)
    factor = alike.mul_(1.0 - 2.0 * beta).add_(beta).mul_(lam)
    return b.lerp(c, alpha).mul_(factor.to(b.dtype))
