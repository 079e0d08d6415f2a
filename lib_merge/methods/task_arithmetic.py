"""Task arithmetic: the sum of all deltas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.runs import Place
from lib_merge.core.spaces import Delta
from lib_merge.methods._ops.stack import Combine, Stack

_ROW = Stack(combine=Combine.SUM)


@merge_method(
    label="Task arithmetic",
    formula="base + lam * sum(weight_t * delta_t)",
    source="Ilharco et al., Editing Models with Task Arithmetic, 2023, "
    "https://arxiv.org/abs/2212.04089",
)
def task_arithmetic(
    deltas: Iterable[Delta],
    *,
    lam: Annotated[
        float,
        Param(
            -2.0,
            2.0,
            0.01,
            help="factor of the sum: 0 gives the base, 1 adds all of it, negative "
            "takes it away",
        ),
    ] = 1.0,
    weight: Annotated[
        tuple[float, ...],
        Param(
            -10.0,
            10.0,
            0.01,
            per_model=True,
            help="factor of each model's delta: 0 leaves it out, 1 adds it, negative "
            "takes it away",
        ),
    ] = (1.0,),
    place: Place,
) -> Delta:
    """Add what training made of any number of models.

    Formula: base + lam * sum(weight_t * delta_t).

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        deltas: What each model differs from the base by; read once, in order.
        lam: Factor of the sum. At 0 the result is the base, at 1 the whole sum is
            added; negative values take it away. With many models the sum is long:
            about 1/N keeps the length of one delta.
        weight: Factor of each delta: 0 leaves it out, negative takes it away.
        place: Where the run lies; only the number of models matters.

    Degenerate inputs: one model with lam 1 is that model; equal models add up; opposite
    deltas cancel to the base exactly; a zero delta (the base in the pool) changes
    nothing; constant and one-element tensors are nothing special; empty stays empty.

    Source: Ilharco et al., Editing Models with Task Arithmetic, 2023,
    https://arxiv.org/abs/2212.04089.
    """
    return _ROW.merge(deltas, place, lam=lam, weight=weight)
