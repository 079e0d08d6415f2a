"""Add perpendicular: only what is new in B - C, as seen from A - C."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.runs import Run, Runs
from lib_merge.core.spaces import Weight
from lib_merge.methods._ops.gram import gram_of_rows

if TYPE_CHECKING:
    from torch import Tensor


def _projection(runs: Runs, *, alpha: float) -> float:
    """How much of A - C is in B - C."""
    gram = gram_of_rows(runs, _differences, n_rows=2)
    square = float(gram[0, 0])
    return float(gram[0, 1]) / square if square > 0.0 else 0.0


def _differences(run: Run) -> tuple[Tensor, Tensor]:
    a, b, c = (values.double() for values in run.inputs)
    return a - c, b - c


@merge_method(
    label="Add perpendicular",
    formula="A + alpha * ((B - C) - s (A - C)), s = (B - C).(A - C) / |A - C|^2",
    source="ljleb, sd-mecha, 2023, https://github.com/ljleb/sd-mecha",
    measure=_projection,
)
def add_perpendicular(
    a: Weight,
    b: Weight,
    c: Weight,
    *,
    alpha: Annotated[
        float,
        Param(
            -2.0,
            2.0,
            0.01,
            help="0 gives A; 1 adds all of B - C that is at a right angle to A - C",
        ),
    ] = 1.0,
    measured: Any,
) -> Weight:
    """Add what B learned and A did not: the part of B - C at a right angle to A - C.

    Formula: A + alpha * ((B - C) - s * (A - C)), with s the inner product of B - C and
    A - C over that of A - C with itself, both over the whole tensor. What B and A have
    in common is not added twice.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64);
    inner products and s in float64, from one pass over the tensor.

    Args:
        a: Values of the model that receives the difference.
        b: Values of the trained model.
        c: Values of the model that A and B were trained from.
        alpha: Factor of the part that is added. At 0 the result is A; at 1 all of it is
            added; negative values take it away.

    Degenerate inputs: B equal to C gives A exactly; B equal to A, B - C parallel or
    opposite to A - C, and one-element tensors give A to within a rounding. A equal to C
    has no direction: the whole difference B - C is added, as in `add_difference`. Zero
    and constant tensors are nothing special; empty stays empty.

    Source: sd-mecha's add_perpendicular, https://github.com/ljleb/sd-mecha. We differ
    where A equals C: it gives A.
    """
    part = (b - c).sub_(a - c, alpha=measured)
    return a.add(part, alpha=alpha)
