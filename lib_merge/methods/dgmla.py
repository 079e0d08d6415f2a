"""DGMLA: drop by magnitude rank, one model one vote, geometric median."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from lib_merge.core.declare import merge_method
from lib_merge.core.params import SEED
from lib_merge.core.runs import Place
from lib_merge.core.spaces import Delta
from lib_merge.methods._ops.consensus import Elect
from lib_merge.methods._ops.stack import Combine, Drop, Stack
from lib_merge.methods._ops.stack_params import DROP_RATE, EPSILON, LAM

_ROW = Stack(drop=Drop.MAGNITUDE, elect=Elect.COUNT, combine=Combine.MEDIAN)


@merge_method(
    label="DGMLA (DELLA, geometric median)",
    formula="base + lam * geometric median of rank-dropped deltas of elected sign",
    source="6DammK9, AstolfoMix, 2024, "
    "https://github.com/6DammK9/nai-anime-pure-negative-prompt; after Deep et al., "
    "2024, https://arxiv.org/abs/2406.11617",
    measure=_ROW.measure,
    n_passes=2,
)
def dgmla(
    deltas: Iterable[Delta],
    *,
    drop_rate: Annotated[float, DROP_RATE] = 0.1,
    epsilon: Annotated[float, EPSILON] = -0.1,
    lam: Annotated[float, LAM] = 1.0,
    seed: Annotated[float, SEED] = 0,
    measured: Any,
    place: Place,
) -> Delta:
    """Drop large values more often than small ones, vote, take the geometric median.

    Formula: a value of rank r among the n magnitudes of its tensor (1 the smallest) is
    kept with probability (1 - drop_rate) + epsilon * (r/n - (n + 1)/(2n)), clamped to
    [0, 1], and 0 otherwise; then as TGMD: gamma = sgn(sum of signs); values whose sign
    is not gamma become 0; base + lam * the geometric median of the N tensors so made.
    Nothing is rescaled.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).
    The median is found by Weiszfeld's iteration on the N x N inner products, in
    float64: from the mean, at most 100 steps, distances not below 1e-6.

    Args:
        deltas: What each model differs from the base by; read once, in order.
        drop_rate: Mean probability to drop a value. At 0 few are dropped (only for
            epsilon, below or above half the ranks); at 1 few are kept.
        epsilon: By how much the keep probabilities of the largest and the smallest
            value differ. Below 0 large values are dropped more; above 0 small ones; at
            0 this is TGMD.
        lam: Factor of the merged delta. At 0 the result is the base.
        seed: Which values are drawn, with the tensor's name and the model's position.
        measured: Keep probabilities by magnitude, and coefficients of the median.
        place: Where the run lies.

    Degenerate inputs: one model loses the dropped values; equal models give about
    1 - drop_rate of that model; of an opposite pair what only one of them keeps is
    left, halved; a zero delta (the base in the pool) does not vote but is a point of
    the median; in a constant or one-element delta all values share the middle rank;
    empty stays empty.

    Source: 6DammK9's AstolfoMix x215a, 2024,
    https://github.com/6DammK9/nai-anime-pure-negative-prompt: the drop of DELLA (Deep
    et al., 2024, https://arxiv.org/abs/2406.11617) with epsilon = -drop_rate in TGMD.
    Ranks have a resolution of 2^-8: magnitudes that agree in the upper 16 bits of their
    float32 pattern share the mean of their ranks, where the original breaks ties
    arbitrarily.
    """
    return _ROW.merge(
        deltas,
        place,
        measured,
        drop_rate=drop_rate,
        epsilon=epsilon,
        lam=lam,
        seed=seed,
    )
