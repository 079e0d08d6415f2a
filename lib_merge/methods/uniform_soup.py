"""Uniform soup: the plain mean of any number of models."""

from __future__ import annotations

from collections.abc import Iterable

from lib_merge.core.declare import merge_method
from lib_merge.core.spaces import Weight


@merge_method(
    label="Uniform soup",
    formula="(M1 + M2 + ... + MN) / N",
    source="Wortsman et al., Model soups, 2022, https://arxiv.org/abs/2203.05482",
)
def uniform_soup(models: Iterable[Weight]) -> Weight:
    """Average any number of models, each with weight exactly 1/N.

    Formula: (M1 + ... + MN) / N, summed in order and divided once.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        models: Values of each model; read once, in order, so that a lazy iterable
            keeps memory at two tensors for any N.

    Degenerate inputs: one model comes back unchanged; N equal models give that model
    to within a rounding of the sum; zero, opposite, constant and one-element tensors
    are nothing special; empty stays empty.

    Source: Wortsman et al., Model soups, 2022, https://arxiv.org/abs/2203.05482
    (uniform soup). The running-average form of the field (weights 1/2, 1/3, 1/4 ...)
    is the same mean with N - 1 more roundings.

    Raises:
        ValueError: No model at all.
    """
    pool = iter(models)
    total = next(pool, None)
    if total is None:
        raise ValueError("uniform_soup needs at least one model.")
    total = total.clone()
    n_models = 1
    for theta in pool:
        total += theta
        n_models += 1
    return total / n_models
