"""Geometric median: the point with the least sum of distances to all models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lib_merge.core.declare import merge_method
from lib_merge.core.runs import Runs
from lib_merge.core.spaces import Weight
from lib_merge.methods._ops.gram import gram_of
from lib_merge.methods._ops.mixture import mixed
from lib_merge.methods._ops.weiszfeld import median_weights


def _shares(runs: Runs) -> tuple[float, ...]:
    return tuple(median_weights(gram_of(runs, is_relative=True)))


@merge_method(
    label="Geometric median",
    formula="the m with the least sum of ||M_t - m||, a tensor being one point",
    source="Weiszfeld, Sur le point pour lequel la somme des distances de n points "
    "donnes est minimum, 1937; Pillutla et al., Robust Aggregation for Federated "
    "Learning, 2019, https://arxiv.org/abs/1912.13445",
    measure=_shares,
)
def geometric_median(models: Iterable[Weight], *, measured: Any) -> Weight:
    """Take the point in the middle of any number of models, which outliers hardly move.

    Formula: the m that minimises sum(||M_t - m||), the norm being that of the whole
    tensor. By Weiszfeld's iteration: m starts as the mean of the models; then
    w_t = 1 / max(||M_t - m||, 1e-6) and m = sum(w_t * M_t) / sum(w_t), until the shares
    stand still or 100 steps are made. As long as they are less than half, models that
    lie far out move m by a bounded distance only, however far out they lie.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64);
    distances and shares in float64. m stays a mixture of the models, so one pass over
    the tensor, for the inner products of the models less the first of them, is enough
    for all steps.

    Args:
        models: Values of each model; read once, in order.

    Degenerate inputs: one model comes back unchanged; two give their mean. Equal models
    give that model to within a rounding of the sum, and if more than half are equal,
    the result is that model but for about 1e-6. Models closer together than that give
    their mean. A base among the models is a point like any other. If the mean falls on
    a model exactly, m stays there, as the iteration has it. Zero, opposite and constant
    tensors are nothing special; of an even number of one-element tensors m is some
    point between the two in the middle; empty stays empty.

    Source: Weiszfeld, 1937; for averaging models: Pillutla et al., Robust Aggregation
    for Federated Learning, 2019, https://arxiv.org/abs/1912.13445. The least distance
    and the number of steps are those of sd-mecha's geometric_median; we differ in
    stopping by the shares, not by the mean distance, whose changes near the minimum
    float64 cannot tell: so every device finds the same.
    """
    return mixed(models, measured)
