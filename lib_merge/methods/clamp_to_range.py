"""Clamp to range: no value outside those of some other models."""

from __future__ import annotations

from collections.abc import Iterable

from lib_merge.core.declare import merge_method
from lib_merge.core.spaces import Weight


@merge_method(
    label="Clamp to range",
    formula="min(max(A, min(M1, ..., MN)), max(M1, ..., MN))",
    source="ljleb, meh (weights clipping), 2023, https://github.com/s1dlx/meh/pull/5",
)
def clamp_to_range(a: Weight, models: Iterable[Weight]) -> Weight:
    """Bring every value of A into the range that the other models span there.

    Formula: min(max(A, min_t M_t), max_t M_t), value by value.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        a: Values of the model to limit, usually a merge that overshoots, such as an
            add difference.
        models: Values of the models that set the limits, usually those that went into
            the merge; any number, read once.

    Degenerate inputs: with one model in the pool the result is that model; where all
    of them are equal it is their value; A among them comes back unchanged; zero,
    opposite, constant and one-element tensors are nothing special; empty stays empty.

    Source: ljleb, meh ("weights clipping"), 2023,
    https://github.com/s1dlx/meh/pull/5; limits from two models there, from any number
    here and in sd-mecha. sd-mecha's `stiffness`, which narrows the range towards the
    models nearest to their mean, needs all of them at once and is left out.

    Raises:
        ValueError: No model at all in the pool.
    """
    import torch

    low = high = None
    for theta in models:
        if low is None or high is None:
            low, high = theta.clone(), theta.clone()
        else:
            torch.minimum(low, theta, out=low)
            torch.maximum(high, theta, out=high)
    if low is None or high is None:
        raise ValueError("clamp_to_range needs at least one model to limit by.")
    return torch.minimum(torch.maximum(low, a, out=low), high, out=low)
