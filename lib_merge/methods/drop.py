"""DROP: DARE without its rescaling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import SEED
from lib_merge.core.runs import Place
from lib_merge.core.spaces import Delta
from lib_merge.methods._ops.stack import Combine, Drop, Stack
from lib_merge.methods._ops.stack_params import DROP_RATE, LAM

_ROW = Stack(drop=Drop.RANDOM, combine=Combine.DISJOINT_MEAN)


@merge_method(
    label="DROP",
    formula="base + lam * mean of the deltas that a random drop leaves",
    source="6DammK9, AstolfoMix, 2024, "
    "https://github.com/6DammK9/nai-anime-pure-negative-prompt; after Yu et al., 2024, "
    "https://arxiv.org/abs/2311.03099",
)
def drop(
    deltas: Iterable[Delta],
    *,
    drop_rate: Annotated[float, DROP_RATE] = 0.1,
    lam: Annotated[float, LAM] = 1.0,
    seed: Annotated[float, SEED] = 0,
    place: Place,
) -> Delta:
    """Drop values of each delta at random and average those that are left.

    Formula: base + lam * mean of the delta_t that are kept and not 0, element by
    element; where none is, the result is the base. Each is kept with probability
    1 - drop_rate. As only kept values count, their mean needs no rescaling.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        deltas: What each model differs from the base by; read once, in order.
        drop_rate: Probability to drop a value. At 0 the result is the mean over the
            values that are not 0, at 1 the base.
        lam: Factor of the merged delta. At 0 the result is the base.
        seed: Which values are drawn, with the tensor's name and the model's position.
        place: Where the run lies.

    Degenerate inputs: one model loses the dropped values; equal models give that model
    to rounding wherever one of them is kept; opposite deltas cancel where both are
    kept; a zero delta (the base in the pool) does not count; constant and one-element
    tensors are nothing special; empty stays empty.

    Source: 6DammK9's AstolfoMix, 2024,
    https://github.com/6DammK9/nai-anime-pure-negative-prompt: the drop of DARE (Yu et
    al., 2024, https://arxiv.org/abs/2311.03099) with rescale exponent 0.
    """
    return _ROW.merge(deltas, place, drop_rate=drop_rate, lam=lam, seed=seed)
