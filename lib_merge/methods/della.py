"""DELLA: drop by magnitude rank, elect a sign by magnitude, average what agrees."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from lib_merge.core.declare import merge_method
from lib_merge.core.params import SEED
from lib_merge.core.runs import Place
from lib_merge.core.spaces import Delta
from lib_merge.methods._ops.consensus import Elect
from lib_merge.methods._ops.stack import Combine, Drop, Stack
from lib_merge.methods._ops.stack_params import (
    DROP_RATE,
    EPSILON,
    LAM,
    RESCALE,
    WEIGHT,
)

_ROW = Stack(drop=Drop.MAGNITUDE, elect=Elect.MAGNITUDE, combine=Combine.DISJOINT_MEAN)


@merge_method(
    label="DELLA",
    formula="base + lam * mean of rank-dropped deltas with sgn(sum of them)",
    source="Deep et al., DELLA-Merging: Reducing Interference in Model Merging through "
    "Magnitude-Based Sampling, 2024, https://arxiv.org/abs/2406.11617",
    measure=_ROW.measure,
    n_passes=1,
)
def della(
    deltas: Iterable[Delta],
    *,
    drop_rate: Annotated[float, DROP_RATE] = 0.3,
    epsilon: Annotated[float, EPSILON] = 0.14,
    rescale: Annotated[float, RESCALE] = 1.0,
    lam: Annotated[float, LAM] = 1.0,
    weight: Annotated[tuple[float, ...], WEIGHT] = (1.0,),
    seed: Annotated[float, SEED] = 0,
    measured: Any,
    place: Place,
) -> Delta:
    """Drop small values more often than large ones, then average what agrees.

    Formula: a value of rank r among the n magnitudes of its tensor (1 the smallest) is
    kept with probability q = (1 - drop_rate) + epsilon * (r/n - (n + 1)/(2n)), clamped
    to [0, 1], and then divided by q^rescale; gamma = sgn(sum of what is kept), element
    by element; base + lam * sum(weight_t * delta_t) / sum(weight_t) over the models
    whose kept delta has the sign gamma. Where gamma is 0 the result is the base.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        deltas: What each model differs from the base by; read once, in order.
        drop_rate: Mean probability to drop a value. At 0 few are dropped (only for
            epsilon, below or above half the ranks); at 1 few are kept.
        epsilon: By how much the keep probabilities of the largest and the smallest
            value differ. Above 0 large values are kept more (the paper), below 0 less;
            at 0 all alike, and nothing has to be measured.
        rescale: At 1 each kept value is divided by its own keep probability, which
            keeps its mean, as in the paper; at 0 it stays as it is.
        lam: Factor of the merged delta. At 0 the result is the base.
        weight: Share of each model in the mean; only ratios matter. Weights have no
            part in the election: a model of weight 0 still votes. With all weights 0
            the result is the base.
        seed: Which values are drawn, with the tensor's name and the model's position.
        measured: Keep probabilities by magnitude.
        place: Where the run lies.

    Degenerate inputs: one model loses the dropped values; equal models give that model,
    rescaled, to rounding wherever one of them is kept; an opposite pair gives the base
    where both are kept, else the one that is; a zero delta (the base in the pool)
    neither votes nor counts; in a constant or one-element delta all values share the
    middle rank, so that q = 1 - drop_rate; empty stays empty.

    Source: Deep et al., DELLA-Merging: Reducing Interference in Model Merging through
    Magnitude-Based Sampling, 2024, https://arxiv.org/abs/2406.11617; the defaults are
    the example of the authors' program. We rank over the whole tensor, not row by row,
    and to a resolution of 2^-8: magnitudes that agree in the upper 16 bits of their
    float32 pattern share the mean of their ranks, which leaves the mean keep
    probability exactly as it is.
    """
    return _ROW.merge(
        deltas,
        place,
        measured,
        drop_rate=drop_rate,
        epsilon=epsilon,
        rescale=rescale,
        lam=lam,
        weight=weight,
        seed=seed,
    )
