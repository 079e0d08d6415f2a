"""NuSLERP: from one task vector to another along the great circle about the base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param, choice
from lib_merge.core.runs import Over, Runs
from lib_merge.core.spaces import Delta
from lib_merge.methods._ops.arc import arc_factors
from lib_merge.methods._ops.dots import row_dots
from lib_merge.methods._ops.gram import gram_of_rows
from lib_merge.methods._ops.mixture import mixed

if TYPE_CHECKING:
    from torch import Tensor


def _coefficients(
    runs: Runs, *, alpha: float, rows: float
) -> tuple[float, float] | None:
    if rows > 0.0:
        return None
    gram = gram_of_rows(runs, lambda run: run.inputs, n_rows=2)
    norms = gram.diagonal().sqrt()
    first, second = arc_factors(gram[0, 1] / norms[0] / norms[1], alpha)
    return float(first), float(second)


@merge_method(
    label="NuSLERP (task vectors)",
    formula="base + (sin((1 - alpha) w) delta_a + sin(alpha w) delta_b) / sin(w)",
    source="Goddard, NuSLERP in mergekit, 2024, https://github.com/arcee-ai/mergekit",
    over=Over.ROWS,
    measure=_coefficients,
)
def nuslerp(
    a: Delta,
    b: Delta,
    *,
    alpha: Annotated[
        float,
        Param(0.0, 1.0, 0.01, help="0 gives A, 1 gives B; on the arc between them"),
    ] = 0.5,
    rows: Annotated[
        float,
        choice(
            "off",
            "on",
            help="off, one angle for the whole tensor; on, one for each row along the "
            "last axis",
        ),
    ] = 0.0,
    measured: Any,
) -> Delta:
    """Blend what two models learned, along the arc between their task vectors.

    Formula: base + (sin((1 - alpha) w) * delta_a + sin(alpha w) * delta_b) / sin(w),
    with w the angle between the deltas. Unlike on the straight line, deltas at right
    angles and of equal lengths keep that length on the way (at alpha 0.5, 0.71 of each
    instead of 0.5). Unlike in `slerp`, the deltas are not brought to unit length first.

    Shapes: any, equal; 0-D and 1-D tensors are one row. Works in and returns the
    inputs' dtype (float32 or float64); angles and coefficients in float64, from one
    pass over the tensor where there is one angle.

    Args:
        a: Task vector of model A.
        b: Task vector of model B.
        alpha: Position on the arc. At 0 the result is base plus the delta of A, at 1
            base plus that of B.
        rows: One angle for the whole tensor, or one a row. For convolutions a row along
            the last axis is a kernel's, of a few values.

    Degenerate inputs: parallel deltas (an angle below 1e-7) or rows have no arc, and
    the result is on the straight line, (1 - alpha) * delta_a + alpha * delta_b, the
    arc's limit; so it is for opposite ones (a cosine within 1e-6 of -1) and zero ones,
    which have no one arc. Equal models give that model to within a rounding.
    One-element tensors are parallel or opposite; constant ones are nothing special;
    empty stays empty.

    Source: mergekit's "nuslerp", https://github.com/arcee-ai/mergekit, with a base.
    Our alpha is its second weight divided by the sum of both. We differ in opposite
    deltas: mergekit blends up to a sine of 1e-8.
    """
    if measured is not None:
        return mixed((a, b), measured)
    first, second = arc_factors(_row_cosines(a, b), alpha)
    return (a * first.to(a)).addcmul_(b, second.to(b))


def _row_cosines(a: Tensor, b: Tensor) -> Tensor:
    a, b = a.double(), b.double()
    norm_a, norm_b = row_dots(a, a).sqrt_(), row_dots(b, b).sqrt_()
    return row_dots(a, b).div_(norm_a).div_(norm_b)
