"""Cosine A: columns that two models share stay A's, others become B's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param, choice
from lib_merge.core.runs import Place, Runs
from lib_merge.core.spaces import Weight

if TYPE_CHECKING:
    from torch import Tensor


def _shares(runs: Runs, *, alpha: float, stretch: float) -> Tensor:
    """Each column's share of A."""
    from lib_merge.methods._ops.cosine import (
        limits_of,
        measure_similarity,
        shares_of_a,
    )

    similarity = measure_similarity(runs)
    columns = similarity.columns
    combined = (columns + columns.mean()) / 2.0
    limits = limits_of(columns) if stretch else (0.0, 1.0)
    return shares_of_a(combined, limits, alpha)


@merge_method(
    label="Cosine A",
    formula="lerp(B, A, max(0, s - alpha)), s: how alike a column of A and B is, "
    "half of it the mean over columns",
    source="recoilme, losslessmix, and SwiftIllusion, SuperMerger, 2023, "
    "https://github.com/hako-mikan/sd-webui-supermerger/issues/33",
    measure=_shares,
)
def cosine_a(
    a: Weight,
    b: Weight,
    *,
    alpha: Annotated[
        float,
        Param(
            0.0,
            1.0,
            0.01,
            help="0 keeps A where the models are alike and takes B where they are not, "
            "1 gives B",
        ),
    ] = 0.5,
    stretch: Annotated[
        float,
        choice(
            "off",
            "on",
            help="on: the least alike columns of each tensor count as 0 and the most "
            "alike as 1; off: cosines as they are",
        ),
    ] = 1.0,
    measured: Any,
    place: Place,
) -> Weight:
    """Blend two models by how alike each column and the mean column are.

    Formula: lerp(B, A, max(0, s - alpha)). With cos the cosine of a column of A and B
    and mean the mean over the tensor's columns, s is (cos + mean) / 2, set between the
    smallest and the largest cos of the tensor without the outermost 1 % (one
    column at least) at each end, and limited to 0..1 (off: just limited).

    Shapes: any, equal; a column holds one place of every entry of the first axis that
    has more than one, 0-D and 1-D tensors are one column. Works in and returns the
    inputs' dtype (float32 or float64); cosines are in float64.

    Args:
        a: Values of model A.
        b: Values of model B.
        alpha: Taken off every column's share of A. At 0 alike columns are A's and
            unlike ones B's, at 1 the result is B.
        stretch: Whether cosines are set between the tensor's own extremes. Off, related
            models (cosines near 1) give about the weighted sum; on, their least alike
            columns still become B's.
        measured: Each column's share of A.
        place: Where the run lies.

    Degenerate inputs: equal tensors come back unchanged; where nothing can be stretched
    (cosines all equal, as in constant tensors, or fewer than four columns: 0-D and 1-D
    tensors have one) the result is the weighted sum; a column of zeros in one model has
    the cosine 0, in both 1; opposite columns are B's when not stretched; empty stays
    empty.

    Source: recoilme, losslessmix, 2023, https://github.com/recoilme/losslessmix, which
    stretches in each tensor, and SwiftIllusion, SuperMerger ("cosineA"), 2023,
    https://github.com/hako-mikan/sd-webui-supermerger/issues/33, which adds the mean
    (the cosine of the tensors with their columns normalised) and stretches over the
    whole model; a tensor by itself does not know that. We limit s before alpha is taken
    off, so that alpha 1 is B exactly. sd-mecha's `add_cosine_a` neither stretches nor
    adds the mean. Model Mixer's cosine modes leave the UNet as it is.
    """
    from lib_merge.methods._ops.cosine import blend

    return blend(a, b, measured, place.start)
