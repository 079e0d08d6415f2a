"""Slerp: from A to B along the great circle."""

from __future__ import annotations

from typing import Annotated, Any

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.runs import Runs
from lib_merge.core.spaces import Weight
from lib_merge.methods._ops.arc import arc_factors, has_arc
from lib_merge.methods._ops.gram import gram_of_rows
from lib_merge.methods._ops.mixture import mixed


def _coefficients(runs: Runs, *, alpha: float) -> tuple[float, float]:
    gram = gram_of_rows(runs, lambda run: run.inputs, n_rows=2)
    norms = gram.diagonal().sqrt()
    cosine = gram[0, 1] / norms[0] / norms[1]
    first, second = (float(factor) for factor in arc_factors(cosine, alpha))
    if not has_arc(cosine):
        return first, second
    norm_a, norm_b = (float(norm) for norm in norms)
    length = (1.0 - alpha) * norm_a + alpha * norm_b
    return length / norm_a * first, length / norm_b * second


@merge_method(
    label="Slerp",
    formula="length * (sin((1 - alpha) w) A/|A| + sin(alpha w) B/|B|) / sin(w)",
    source="Shoemake, Animating rotation with quaternion curves, 1985, "
    "https://doi.org/10.1145/325165.325242",
    measure=_coefficients,
)
def slerp(
    a: Weight,
    b: Weight,
    *,
    alpha: Annotated[
        float,
        Param(0.0, 1.0, 0.01, help="0 gives A, 1 gives B; on the arc between them"),
    ] = 0.5,
    measured: Any,
) -> Weight:
    """Blend two models along the arc between their directions.

    Formula: with w the angle between A and B as seen from zero, over the whole tensor,
    the direction is (sin((1 - alpha) w) * A/|A| + sin(alpha w) * B/|B|) / sin(w). Its
    length goes straight from |A| to |B|: (1 - alpha) |A| + alpha |B|.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64);
    the angle, the lengths and both coefficients in float64, from one pass over the
    tensor.

    Args:
        a: Values of model A.
        b: Values of model B.
        alpha: Position on the arc. At 0 the result is A exactly, at 1 it is B.

    Degenerate inputs: parallel tensors (an angle below 1e-7) have no arc; the result is
    then on the straight line, (1 - alpha) * A + alpha * B, which is the arc's limit.
    Opposite ones (a cosine within 1e-6 of -1) have no one arc, and a zero tensor has no
    direction: the straight line too. Equal tensors come back unchanged to within a
    rounding. One-element tensors are parallel or opposite; constant ones are nothing
    special; empty stays empty.

    Source: Shoemake, Animating rotation with quaternion curves, 1985,
    https://doi.org/10.1145/325165.325242. Lengths as in sd-mecha; mergekit's slerp
    takes the raw tensors instead of unit vectors, and the straight line for any cosine
    above 0.9995, as related models have.
    """
    return mixed((a, b), measured)
