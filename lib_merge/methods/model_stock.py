"""Model Stock: the mean of the models, drawn to the base by the angle between them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from lib_merge.core.declare import merge_method
from lib_merge.core.params import choice
from lib_merge.core.runs import Runs
from lib_merge.core.spaces import Delta
from lib_merge.methods._ops.gram import gram_of
from lib_merge.methods._ops.mixture import mixed
from lib_merge.methods._ops.stock import stock_factor


def _coefficients(runs: Runs, *, clamp: float) -> tuple[float, ...]:
    gram = gram_of(runs)
    share = stock_factor(gram, is_clamped=clamp > 0.0) / len(gram)
    return (share,) * len(gram)


@merge_method(
    label="Model Stock",
    formula="base + t * mean(delta_t), t = N cos / (1 + (N - 1) cos)",
    source="Jang et al., Model Stock: All we need is just a few fine-tuned models, "
    "2024, https://arxiv.org/abs/2403.19522",
    measure=_coefficients,
)
def model_stock(
    deltas: Iterable[Delta],
    *,
    clamp: Annotated[
        float,
        choice(
            "off",
            "on",
            help="keep the factor within 0 (the base) and 1 (the mean); off, models "
            "that pull apart may go beyond the base, without bound",
        ),
    ] = 1.0,
    measured: Any,
) -> Delta:
    """Go from the base towards the mean of the models, the less they agree the less.

    Formula: base + t * mean(delta_t) with t = N cos / (1 + (N - 1) cos), where cos is
    the mean cosine of all pairs of deltas of the whole tensor. Deltas that all point
    the same way give t = 1, the mean; right angles give t = 0, the base.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64);
    inner products and the factor in float64, from one pass over the tensor.

    Args:
        deltas: Task vectors, one a model; read once, in order.
        clamp: Whether t stays within 0 and 1. Off, t is negative for a negative mean
            cosine, down to large numbers as it comes near -1 / (N - 1).

    Degenerate inputs: one model comes back unchanged (t = 1, as there is no angle).
    Equal models give that model to within a rounding of the sum. A pair with a zero
    delta (a base in the pool) counts as a right angle; all zero give the base. Opposite
    deltas, and whatever makes the denominator 0, give t = 0. One-element tensors have
    cosines of 1 and -1; constant ones are nothing special; empty stays empty.

    Source: Jang et al., Model Stock, 2024, https://arxiv.org/abs/2403.19522. The paper
    has one angle for all pairs; for pairs that differ we take the mean cosine, as
    mergekit does. We differ in the clamping (the paper's cosines are never negative)
    and in zero deltas, which the paper does not define.
    """
    return mixed(deltas, measured)
