"""TIES-SOUP: one model, one vote; average what agrees."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.runs import Place
from lib_merge.core.spaces import Delta
from lib_merge.methods._ops.consensus import Elect
from lib_merge.methods._ops.stack import Combine, Stack
from lib_merge.methods._ops.stack_params import LAM

_ROW = Stack(elect=Elect.COUNT, combine=Combine.DISJOINT_MEAN)


@merge_method(
    label="TIES-SOUP",
    formula="base + lam * mean of deltas with sgn(sum of sgn(delta_t))",
    source="6DammK9, AstolfoMix, 2024, "
    "https://github.com/6DammK9/nai-anime-pure-negative-prompt; after Yadav et al., "
    "2023, https://arxiv.org/abs/2306.01708",
)
def ties_soup(
    deltas: Iterable[Delta],
    *,
    lam: Annotated[float, LAM] = 1.0,
    place: Place,
) -> Delta:
    """Average each value over the models that share the majority's sign.

    Formula: gamma = sgn(sum of sgn(delta_t)), element by element; base + lam * mean of
    the deltas whose sign is gamma. An even split elects no sign: that element returns
    to the base. Zeros abstain and are not counted. Nothing is trimmed.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        deltas: What each model differs from the base by; read once, in order.
        lam: Factor of the merged delta. At 0 the result is the base; at 1 equal models
            give that model.
        place: Where the run lies; only the number of models matters.

    Degenerate inputs: one model is that model; equal models give that model to
    rounding; an opposite pair gives the base exactly; a zero delta (the base in the
    pool) neither votes nor counts; constant and one-element tensors are nothing
    special; empty stays empty.

    Source: 6DammK9's AstolfoMix, 2024,
    https://github.com/6DammK9/nai-anime-pure-negative-prompt, which found that TIES
    (Yadav et al., 2023, https://arxiv.org/abs/2306.01708) merges many diffusion models
    well with votes by count and no trimming.
    """
    return _ROW.merge(deltas, place, lam=lam)
