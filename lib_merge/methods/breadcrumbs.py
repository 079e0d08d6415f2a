"""Model Breadcrumbs: drop outliers and the smallest values, add up the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.runs import Place
from lib_merge.core.spaces import Delta
from lib_merge.methods._ops.stack import Combine, Stack, Trim
from lib_merge.methods._ops.stack_params import DENSITY, LAM, OUTLIERS

_ROW = Stack(trim=Trim.BREADCRUMBS, combine=Combine.SUM)


@merge_method(
    label="Model Breadcrumbs",
    formula="base + lam * sum(weight_t * delta_t without its largest and smallest)",
    source="Davari and Belilovsky, Model Breadcrumbs: Scaling Multi-Task Model Merging "
    "with Sparse Masks, 2023, https://arxiv.org/abs/2312.06795",
    measure=_ROW.measure,
    n_passes=2,
)
def breadcrumbs(
    deltas: Iterable[Delta],
    *,
    density: Annotated[float, DENSITY] = 0.15,
    outliers: Annotated[float, OUTLIERS] = 0.006,
    lam: Annotated[float, LAM] = 0.2,
    weight: Annotated[
        tuple[float, ...],
        Param(
            0.0,
            10.0,
            0.01,
            per_model=True,
            help="factor of each model's delta: 0 leaves it out, 1 adds it",
        ),
    ] = (1.0,),
    measured: Any,
    place: Place,
) -> Delta:
    """Add what is neither large nor small in each delta.

    Formula: base + lam * sum(weight_t * m_t * delta_t); m_t is 1 where |delta_t| lies
    between its l-th and its h-th smallest magnitude, both included and compared as
    float32, else 0. With n values in the tensor, h = n - floor(outliers * n) and
    l = max(floor((1 - density) * n) - floor(outliers * n), 1): the outliers go first,
    then the smallest until `density` is left. All values that equal a limit stay, so
    that nothing is lost where a tensor is too small to have outliers.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        deltas: What each model differs from the base by; read once, in order.
        density: Share that is kept. At 1 all but the outliers stay; at 0 only the
            largest that is no outlier.
        outliers: Share of the largest that goes first. At 0 none goes, and trimming is
            that of TIES; at 0.5 the larger half.
        lam: Factor of the sum. At 0 the result is the base. With many models the sum is
            long: about 1/N keeps the length of one delta.
        weight: Factor of each delta: 0 leaves it out.
        measured: Limits.
        place: Where the run lies.

    Degenerate inputs: one model is trimmed, no more; equal models add up; opposite
    deltas cancel to the base exactly; a zero delta (the base in the pool) changes
    nothing; in a constant or one-element delta all values stay; empty stays empty.

    Source: Davari and Belilovsky, Model Breadcrumbs: Scaling Multi-Task Model Merging
    with Sparse Masks, 2023, https://arxiv.org/abs/2312.06795; the defaults are where
    the search of the authors' program starts. We trim over the whole tensor, not along
    its last axis; model weights are an addition.
    """
    return _ROW.merge(
        deltas,
        place,
        measured,
        density=density,
        outliers=outliers,
        lam=lam,
        weight=weight,
    )
