"""TGMD: random drop, one model one vote, geometric median."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from lib_merge.core.declare import merge_method
from lib_merge.core.params import SEED
from lib_merge.core.runs import Place
from lib_merge.core.spaces import Delta
from lib_merge.methods._ops.consensus import Elect
from lib_merge.methods._ops.stack import Combine, Drop, Stack
from lib_merge.methods._ops.stack_params import DROP_RATE, LAM

_ROW = Stack(drop=Drop.RANDOM, elect=Elect.COUNT, combine=Combine.MEDIAN)


@merge_method(
    label="TGMD (TIES, geometric median, DROP)",
    formula="base + lam * geometric median of dropped deltas with the elected sign",
    source="6DammK9, AstolfoMix, 2024, "
    "https://github.com/6DammK9/nai-anime-pure-negative-prompt",
    measure=_ROW.measure,
    n_passes=1,
)
def tgmd(
    deltas: Iterable[Delta],
    *,
    drop_rate: Annotated[float, DROP_RATE] = 0.1,
    lam: Annotated[float, LAM] = 1.0,
    seed: Annotated[float, SEED] = 0,
    measured: Any,
    place: Place,
) -> Delta:
    """Drop values at random, zero what the majority's sign rules out, take the median.

    Formula: each delta keeps a value with probability 1 - drop_rate and has 0 there
    otherwise; gamma = sgn(sum of signs), element by element; values whose sign is not
    gamma become 0; base + lam * the geometric median of the N tensors so made, each of
    them one point. Zeros stay part of the points (there is no division by the number of
    values that agree), which pulls the median towards the base.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).
    The median is found by Weiszfeld's iteration on the N x N inner products, in
    float64: from the mean, at most 100 steps, distances not below 1e-6.

    Args:
        deltas: What each model differs from the base by; read once, in order.
        drop_rate: Probability to drop a value. At 0 none is dropped, at 1 the result is
            the base.
        lam: Factor of the merged delta. At 0 the result is the base.
        seed: Which values are drawn, with the tensor's name and the model's position.
        measured: Coefficients of the median.
        place: Where the run lies.

    Degenerate inputs: one model loses the dropped values; equal models give about
    1 - drop_rate of that model; of an opposite pair what only one of them keeps is
    left, halved; a zero delta (the base in the pool) does not vote but is a point of
    the median; constant and one-element tensors are nothing special; empty stays empty.

    Source: 6DammK9's AstolfoMix x116a, 2024,
    https://github.com/6DammK9/nai-anime-pure-negative-prompt (drop rate 0.1, no
    rescaling). We find the same median on inner products, without the pool in memory.
    """
    return _ROW.merge(deltas, place, measured, drop_rate=drop_rate, lam=lam, seed=seed)
