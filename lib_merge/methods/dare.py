"""DARE: drop values at random, rescale the rest, average."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import SEED
from lib_merge.core.runs import Place
from lib_merge.core.spaces import Delta
from lib_merge.methods._ops.stack import Combine, Drop, Stack
from lib_merge.methods._ops.stack_params import DROP_RATE, LAM, RESCALE, WEIGHT

_ROW = Stack(drop=Drop.RANDOM, combine=Combine.MEAN)


@merge_method(
    label="DARE",
    formula="base + lam * mean(keep_t * delta_t / (1 - drop_rate)^rescale)",
    source="Yu et al., Language Models are Super Mario, 2024, "
    "https://arxiv.org/abs/2311.03099",
)
def dare(
    deltas: Iterable[Delta],
    *,
    drop_rate: Annotated[float, DROP_RATE] = 0.9,
    rescale: Annotated[float, RESCALE] = 1.0,
    lam: Annotated[float, LAM] = 1.0,
    weight: Annotated[tuple[float, ...], WEIGHT] = (1.0,),
    seed: Annotated[float, SEED] = 0,
    place: Place,
) -> Delta:
    """Drop values of each delta at random, rescale the rest, and average all models.

    Formula: base + lam * sum(weight_t * keep_t * delta_t) / (sum(weight_t) *
    (1 - drop_rate)^rescale); keep_t is 1 with probability 1 - drop_rate, else 0, drawn
    for every model and value. The mean is over all models, dropped values included.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        deltas: What each model differs from the base by; read once, in order.
        drop_rate: Probability to drop a value. At 0 the result is the mean, at 1 the
            base.
        rescale: At 1 kept values are divided by 1 - drop_rate, which keeps their mean;
            at 0 they stay as they are.
        lam: Factor of the merged delta. At 0 the result is the base.
        weight: Share of each model in the mean; only ratios matter. With all weights 0
            the result is the base.
        seed: Which values are drawn, with the tensor's name and the model's position.
        place: Where the run lies.

    Degenerate inputs: one model is dropped from like any other; equal models drop
    different values each; opposite deltas cancel where both are kept; a zero delta (the
    base in the pool) counts in the mean; constant and one-element tensors are nothing
    special; empty stays empty.

    Source: Yu et al., Language Models are Super Mario: Absorbing Abilities from
    Homologous Models as a Free Lunch, 2024, https://arxiv.org/abs/2311.03099, whose
    drop rate 0.9 is the default.
    """
    return _ROW.merge(
        deltas,
        place,
        drop_rate=drop_rate,
        rescale=rescale,
        lam=lam,
        weight=weight,
        seed=seed,
    )
