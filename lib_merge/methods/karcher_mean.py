"""Karcher mean: the mean of any number of models on the sphere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.runs import Runs
from lib_merge.core.spaces import Weight
from lib_merge.methods._ops.gram import gram_of
from lib_merge.methods._ops.karcher import karcher_weights
from lib_merge.methods._ops.mixture import mixed


def _coefficients(runs: Runs, *, weight: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(karcher_weights(gram_of(runs), weight))


@merge_method(
    label="Karcher mean",
    formula="mean length * the direction with the least sum(weight_t * angle_t^2)",
    source="Karcher, Riemannian center of mass and mollifier smoothing, 1977; for "
    "models: mergekit, https://github.com/arcee-ai/mergekit",
    measure=_coefficients,
)
def karcher_mean(
    models: Iterable[Weight],
    *,
    weight: Annotated[
        tuple[float, ...],
        Param(
            0.0,
            100.0,
            0.01,
            per_model=True,
            help="share of each model: 0 leaves it out, equal weights treat all alike; "
            "only their ratios matter",
        ),
    ] = (1.0,),
    measured: Any,
) -> Weight:
    """Average any number of models as points on a sphere: lengths do not shrink.

    Formula: the direction u that minimises sum(weight_t * angle(u, M_t)^2), times the
    weighted mean of the lengths ||M_t||; lengths and angles are those of the whole
    tensor, seen from zero. The slerp of any number of models: of two it is their slerp.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64);
    angles and coefficients in float64. The mean lies in the span of the models, so one
    pass over the tensor, for their inner products, is enough.

    Args:
        models: Values of each model; read once, in order.
        weight: One number a model. A model with 0 has no part; only the ratios matter;
            all 0 count as all equal.

    Degenerate inputs: one model comes back unchanged; equal models give that model to
    within a rounding of the sum. A zero tensor has no direction and counts in the mean
    length alone; all zero give zero. A tensor opposite to the mean pulls nowhere. Where
    the directions cancel out (their mean is shorter than 0.001, as of two opposite
    tensors), the result is the weighted mean of the models. Parallel and one-element
    tensors give the weighted mean too, but for opposite signs. Constant tensors are
    nothing special; empty stays empty. A base among the models is a model like any
    other.

    Source: Karcher, Riemannian center of mass and mollifier smoothing, 1977,
    https://doi.org/10.1002/cpa.3160300502; as a merge: mergekit's "karcher". We differ
    in the solution (Newton's method to the last digit, not 10 steps to 1e-5), in the
    weights, and in opposite models, where mergekit gives the first or garbage.
    """
    return mixed(models, measured)
