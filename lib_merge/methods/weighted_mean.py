"""Weighted mean: any number of models, each with a weight of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.spaces import Weight


@merge_method(
    label="Weighted mean",
    formula="sum(weight_t * M_t) / sum(weight_t)",
    source="Wortsman et al., Model soups, 2022, https://arxiv.org/abs/2203.05482",
)
def weighted_mean(
    models: Iterable[Weight],
    *,
    weight: Annotated[
        tuple[float, ...],
        Param(
            0.0,
            100.0,
            0.01,
            per_model=True,
            help="share of each model: 0 leaves it out, equal weights are the uniform "
            "soup; only their ratios matter",
        ),
    ] = (1.0,),
) -> Weight:
    """Average any number of models by weights.

    Formula: sum(weight_t * M_t) / sum(weight_t).

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        models: Values of each model; read once, in order.
        weight: One number a model. A model with 0 has no part; with all equal it is
            the uniform soup. Only the ratios matter.

    Degenerate inputs: one model comes back unchanged; equal models give that model to
    within a rounding of the sum; with all weights 0 the plain mean is returned; zero,
    opposite, constant and one-element tensors are nothing special; empty stays empty.

    Source: Wortsman et al., Model soups, 2022, https://arxiv.org/abs/2203.05482; the
    "linear" method of other tools. Weights are normalised in float64.

    Raises:
        ValueError: No model at all.
    """
    total = sum(weight)
    shares = [w / total if total > 0 else 1.0 / len(weight) for w in weight]
    mean: Weight | None = None
    for share, theta in zip(shares, models, strict=True):
        if mean is None:
            mean = theta * share
        else:
            mean.add_(theta, alpha=share)
    if mean is None:
        raise ValueError("weighted_mean needs at least one model.")
    return mean
