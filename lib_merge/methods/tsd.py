"""TSD: random drop, one model one vote, average what agrees."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import SEED
from lib_merge.core.runs import Place
from lib_merge.core.spaces import Delta
from lib_merge.methods._ops.consensus import Elect
from lib_merge.methods._ops.stack import Combine, Drop, Stack
from lib_merge.methods._ops.stack_params import DROP_RATE, LAM

_ROW = Stack(drop=Drop.RANDOM, elect=Elect.COUNT, combine=Combine.DISJOINT_MEAN)


@merge_method(
    label="TSD (TIES-SOUP with DROP)",
    formula="base + lam * mean of dropped deltas with sgn(sum of their signs)",
    source="6DammK9, AstolfoMix, 2024, "
    "https://github.com/6DammK9/nai-anime-pure-negative-prompt",
)
def tsd(
    deltas: Iterable[Delta],
    *,
    drop_rate: Annotated[float, DROP_RATE] = 0.1,
    lam: Annotated[float, LAM] = 1.0,
    seed: Annotated[float, SEED] = 0,
    place: Place,
) -> Delta:
    """Drop values at random, then average each over the majority's sign.

    Formula: each delta keeps a value with probability 1 - drop_rate and has 0 there
    otherwise; gamma = sgn(sum of signs), element by element; base + lam * mean of the
    kept values whose sign is gamma. An even split, or nothing kept, gives the base.
    Dropped values neither vote nor count, so the mean needs no rescaling.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        deltas: What each model differs from the base by; read once, in order.
        drop_rate: Probability to drop a value. At 0 this is TIES-SOUP, at 1 the result
            is the base.
        lam: Factor of the merged delta. At 0 the result is the base.
        seed: Which values are drawn, with the tensor's name and the model's position.
        place: Where the run lies.

    Degenerate inputs: one model loses the dropped values; equal models give that model
    to rounding wherever one of them is kept; an opposite pair gives the base where both
    are kept, else the one that is; a zero delta (the base in the pool) neither votes
    nor counts; constant and one-element tensors are nothing special; empty stays empty.

    Source: 6DammK9's AstolfoMix x101a, 2024,
    https://github.com/6DammK9/nai-anime-pure-negative-prompt (drop rate 0.1). Its masks
    came from one generator for all tensors of a shape; ours differ for every tensor.
    """
    return _ROW.merge(deltas, place, drop_rate=drop_rate, lam=lam, seed=seed)
