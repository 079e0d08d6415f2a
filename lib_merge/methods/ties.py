"""TIES: trim, elect a sign by magnitude, average what agrees."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from lib_merge.core.declare import merge_method
from lib_merge.core.runs import Place
from lib_merge.core.spaces import Delta
from lib_merge.methods._ops.consensus import Elect
from lib_merge.methods._ops.stack import Combine, Stack, Trim
from lib_merge.methods._ops.stack_params import DENSITY, LAM, WEIGHT

_ROW = Stack(trim=Trim.TOP, elect=Elect.MAGNITUDE, combine=Combine.DISJOINT_MEAN)


@merge_method(
    label="TIES",
    formula="base + lam * mean of trimmed deltas with sgn(sum of trimmed deltas)",
    source="Yadav et al., TIES-Merging: Resolving Interference When Merging Models, "
    "2023, https://arxiv.org/abs/2306.01708",
    measure=_ROW.measure,
    n_passes=2,
)
def ties(
    deltas: Iterable[Delta],
    *,
    density: Annotated[float, DENSITY] = 0.2,
    lam: Annotated[float, LAM] = 1.0,
    weight: Annotated[tuple[float, ...], WEIGHT] = (1.0,),
    measured: Any,
    place: Place,
) -> Delta:
    """Average the largest values of each delta where their signs agree.

    Formula: each delta is trimmed to its largest values; gamma = sgn(sum of trimmed
    deltas), element by element; base + lam * sum(weight_t * delta_t) / sum(weight_t)
    over the models whose trimmed delta has the sign gamma. Where gamma is 0 (an even
    split, or nothing is left) the result is the base.

    Trimming keeps |delta| >= the max(floor((1 - density) * n), 1)-th smallest of the n
    magnitudes of a tensor, compared as float32: all values that equal the threshold
    stay.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        deltas: What each model differs from the base by; read once, in order.
        density: Share that trimming keeps. At 1 all values stay (and nothing has to be
            measured); at 0 only the largest, and all that equal it.
        lam: Factor of the merged delta. At 0 the result is the base; at 1 equal models
            give that model.
        weight: Share of each model in the mean; only ratios matter. Weights have no
            part in the election: a model of weight 0 still votes. With all weights 0
            the result is the base.
        measured: Thresholds.
        place: Where the run lies.

    Degenerate inputs: one model is trimmed, no more; equal models give that model
    trimmed, to rounding; an opposite pair gives the base exactly; a zero delta (the
    base in the pool) neither votes nor counts; in a constant or one-element delta all
    values stay; empty stays empty.

    Source: Yadav et al., TIES-Merging: Resolving Interference When Merging Models,
    2023, https://arxiv.org/abs/2306.01708. We trim each tensor by itself (the paper's
    code ranks all of a model's values at once), as checkpoint mergers do; model weights
    are an addition.
    """
    return _ROW.merge(deltas, place, measured, density=density, lam=lam, weight=weight)
