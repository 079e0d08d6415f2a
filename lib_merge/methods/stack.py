"""The stack itself: any drop, trim, election and combination in one method."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from lib_merge.core.declare import merge_method
from lib_merge.core.params import SEED, Param
from lib_merge.core.runs import Place
from lib_merge.core.spaces import Delta
from lib_merge.methods._ops.consensus import Elect
from lib_merge.methods._ops.stack import Combine, Drop, Stack, Trim
from lib_merge.methods._ops.stack_params import (
    COMBINE,
    DENSITY,
    DROP,
    DROP_RATE,
    ELECT,
    EPSILON,
    LAM,
    OUTLIERS,
    RESCALE,
    TRIM,
    WEIGHT,
)

_ROW = Stack()


@merge_method(
    label="Stack of drop, trim, election and combination",
    formula="base + lam * combine(elect(trim(drop(delta_t))))",
    source="6DammK9, AstolfoMix, 2024, "
    "https://github.com/6DammK9/nai-anime-pure-negative-prompt; after Yadav et al., "
    "2023; Yu et al., 2024; Deep et al., 2024; Davari and Belilovsky, 2023",
    measure=_ROW.measure,
    n_passes=4,
)
def stack(
    deltas: Iterable[Delta],
    *,
    drop: Annotated[float, DROP] = Drop.NONE,
    drop_rate: Annotated[float, DROP_RATE] = 0.1,
    epsilon: Annotated[float, EPSILON] = 0.1,
    rescale: Annotated[float, RESCALE] = 0.0,
    seed: Annotated[float, SEED] = 0,
    trim: Annotated[float, TRIM] = Trim.NONE,
    density: Annotated[float, DENSITY] = 0.2,
    outliers: Annotated[float, OUTLIERS] = 0.006,
    elect: Annotated[float, ELECT] = Elect.NONE,
    combine: Annotated[float, COMBINE] = Combine.MEAN,
    weight: Annotated[tuple[float, ...], WEIGHT] = (1.0,),
    eps: Annotated[
        float,
        Param(
            1e-12,
            1.0,
            1e-6,
            per_block=False,
            help="geometric median: least distance of a tensor from it; larger values "
            "let a tensor that it falls on weigh less",
        ),
    ] = 1e-6,
    n_iterations: Annotated[
        float,
        Param(
            0,
            1000,
            1,
            per_block=False,
            is_integer=True,
            help="geometric median: most steps; 0 gives the mean",
        ),
    ] = 100,
    ftol: Annotated[
        float,
        Param(
            0.0,
            0.1,
            1e-6,
            per_block=False,
            help="geometric median: relative change of the mean distance to stop at; 0 "
            "goes on until nothing changes",
        ),
    ] = 1e-20,
    lam: Annotated[float, LAM] = 1.0,
    measured: Any,
    place: Place,
) -> Delta:
    """Join any way to thin out deltas with any way to combine them.

    Formula: base + lam * combine(elect(trim(drop(delta_t)))), in this order.
    drop: random keeps a value with probability q = 1 - drop_rate; magnitude with
    q = (1 - drop_rate) + epsilon * (r/n - (n + 1)/(2n)), clamped to [0, 1], where r is
    the rank of its magnitude among the tensor's n; what is kept is divided by
    q^rescale, what is dropped is 0.
    trim: top keeps magnitudes from the max(floor((1 - density) * n), 1)-th smallest
    upwards; breadcrumbs drops the floor(outliers * n) largest first and then the
    smallest until `density` is left. Zeros made by the drop count among the n. Values
    that equal a limit stay.
    elect: gamma = sgn(sum of signs) (count) or sgn(sum of values) (magnitude), element
    by element; values whose sign is not gamma become 0. Zeros abstain; an even split
    leaves 0.
    combine: sum, mean over all models, disjoint_mean over the values that are not 0,
    geometric_median, model_stock or karcher of the N tensors with their zeros.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64);
    inner products of tensors are summed in float64.

    Args:
        deltas: What each model differs from the base by; read once, in order.
        drop: none, random or magnitude.
        drop_rate: Mean probability to drop a value: at 0 none, at 1 all (with drop
            magnitude, but for epsilon).
        epsilon: For drop magnitude: by how much the keep probabilities of the largest
            and the smallest value differ. Above 0 large values are kept more, below 0
            less; at 0 all alike.
        rescale: At 1 kept values are divided by their keep probability, at 0 they stay
            as they are.
        seed: Which values are drawn, with the tensor's name and the model's position.
        trim: none, top or breadcrumbs.
        density: For trim: share that is kept. At 1 all but outliers, at 0 the largest.
        outliers: For trim breadcrumbs: share of the largest that goes; at 0 none.
        elect: none, count or magnitude.
        combine: How the deltas become one.
        weight: Share of each model in the mean, disjoint mean and Karcher mean (only
            ratios matter), factor of its delta in the sum. Weights have no part in the
            election, and none in the median and in Model Stock. With all weights 0 sum
            and means give the base.
        eps: For the median: least distance.
        n_iterations: For the median: most steps; at 0 it is the mean.
        ftol: For the median: relative change to stop at.
        lam: Factor of the merged delta. At 0 the result is the base.
        measured: Keep probabilities, limits and coefficients, as far as needed.
        place: Where the run lies.

    Degenerate inputs: one model is dropped from and trimmed, no more; equal models
    give, without a drop, that model trimmed (the sum N times it), to rounding; an
    opposite pair gives the base with an election or a mean where both are kept; a zero
    delta (the base in the pool) abstains in elections and disjoint means, but counts
    in means over all and is a point of the median, Model Stock and Karcher mean; in a
    constant or one-element delta trimming keeps all values; empty stays empty.

    Source: 6DammK9's AstolfoMix, 2024,
    https://github.com/6DammK9/nai-anime-pure-negative-prompt, which stacks these parts:
    Yadav et al., TIES-Merging, 2023, https://arxiv.org/abs/2306.01708; Yu et al.,
    DARE, 2024, https://arxiv.org/abs/2311.03099; Deep et al., DELLA, 2024,
    https://arxiv.org/abs/2406.11617; Davari and Belilovsky, Model Breadcrumbs, 2023,
    https://arxiv.org/abs/2312.06795. Ranks have a resolution of 2^-8, see `della`;
    coefficients of the median, of Model Stock and of the Karcher mean are those of the
    methods `geometric_median`, `model_stock` and `karcher`.
    """
    return _ROW.merge(
        deltas,
        place,
        measured,
        drop=drop,
        drop_rate=drop_rate,
        epsilon=epsilon,
        rescale=rescale,
        seed=seed,
        trim=trim,
        density=density,
        outliers=outliers,
        elect=elect,
        combine=combine,
        weight=weight,
        eps=eps,
        n_iterations=n_iterations,
        ftol=ftol,
        lam=lam,
    )
