"""Add dissimilarities: what two models do not have in common, added to a third."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.runs import Over
from lib_merge.core.spaces import Weight


@merge_method(
    label="Add dissimilarities",
    formula="A + lam * lerp(B, C, alpha) * (1 - ((1 + cos(B, C)) / 2)^gamma)",
    source="groinge, untitledmerger, 2024, "
    "https://github.com/groinge/sd-webui-untitledmerger",
    over=Over.ROWS,
)
def add_dissimilarity(
    a: Weight,
    b: Weight,
    c: Weight,
    *,
    alpha: Annotated[
        float, Param(0.0, 1.0, 0.01, help="whose features are added: 0 B's, 1 C's")
    ] = 0.5,
    lam: Annotated[
        float, Param(-1.0, 4.0, 0.01, help="factor of what is added: 0 gives A")
    ] = 1.0,
    gamma: Annotated[
        float,
        Param(
            0.0,
            30.0,
            0.01,
            help="how sharply rows are told apart: 0 gives A, 30 adds most of every "
            "row that is not nearly the same in B and C",
        ),
    ] = 3.75,
) -> Weight:
    """Add the rows of B and C to A as far as they point different ways.

    Formula: A + lam * lerp(B, C, alpha) * (1 - d) with d = ((1 + cos) / 2)^gamma and
    cos the cosine of a row of B and the same row of C; 0^0 is 1, and the cosine with a
    row of zeros is 0. The rows are the models' own values, not differences.

    Shapes: any, equal; a row runs along the last axis (in a convolution's weight along
    the kernel's width, as in untitledmerger), 0-D and 1-D tensors are one row. Works in
    and returns the inputs' dtype (float32 or float64); cosines are in float64.

    Args:
        a: Values of the model that receives the features.
        b: Values of model B.
        c: Values of model C.
        alpha: Whose features are added. At 0 B's, at 1 C's.
        lam: Factor of what is added. At 0 the result is A; at 1 a row of B or C in
            opposite directions comes in whole; negative values take it away.
        gamma: How sharply rows are told apart. At 0 the result is A, at 30 all but
            nearly parallel rows are added almost whole.

    Degenerate inputs: B equal to C gives A exactly, zeros included; opposite B and C
    are added whole (at alpha 0.5 they cancel); a single value has the cosine 1, 0 or
    -1; constant tensors have the cosine 1 or -1; empty stays empty.

    Source: groinge, untitledmerger ("Add Dissimilarities"), 2024,
    https://github.com/groinge/sd-webui-untitledmerger. Same formula; its gamma is 1/15
    of this one, and it counts rows with norms below about 1e-8 as zero.
    """
    from lib_merge.methods._ops.powers import power
    from lib_merge.methods._ops.rows import row_distances

    alike = power(1.0 - row_distances(b, c), gamma)
    factor = alike.neg_().add_(1.0).mul_(lam)
    return b.lerp(c, alpha).mul_(factor.to(a.dtype)).add_(a)
