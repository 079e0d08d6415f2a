"""Truncate rank: the strongest directions of a task vector only."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.runs import Over
from lib_merge.core.spaces import Delta
from lib_merge.methods._ops.rank import low_rank, workspace


@merge_method(
    label="Truncate rank",
    formula="base + lam * U_r S_r V_r^T, with U S V^T = M - base",
    source="Eckart and Young, The approximation of one matrix by another of lower "
    "rank, 1936, https://doi.org/10.1007/BF02288367",
    over=Over.TENSOR,
    workspace=workspace,
)
def truncate_rank(
    delta: Delta,
    *,
    rank: Annotated[
        float,
        Param(
            0,
            4096,
            1,
            is_integer=True,
            help="directions kept: 0 gives the base, the smaller side of a tensor or "
            "more keeps everything",
        ),
    ] = 64,
    lam: Annotated[
        float,
        Param(-1.0, 2.0, 0.01, help="factor of the new delta: 0 gives the base"),
    ] = 1.0,
) -> Delta:
    """Keep the strongest directions of a model's delta, as a LoRA of that rank would.

    Formula: base + lam * U_r S_r V_r^T: of the singular value decomposition U S V^T of
    M - base the `rank` largest singular values, the nearest matrix of that rank.

    Shapes: any; tensors of two or more dimensions are matrices of the first axis by all
    others, smaller ones keep their delta. The tensor is held whole. Works in and
    returns the input's dtype; the decomposition is done in float64.

    Args:
        delta: M - base of one model or merge result.
        rank: How many directions are kept. At 0 tensors of two or more dimensions are
            the base's; from the smaller side of a tensor on the delta is kept exactly.
        lam: Factor of the new delta, also of deltas that are kept. At 0 the result is
            the base, at 1 the new delta is added once, below 0 it is taken away.

    Degenerate inputs: a delta of zero (M equal to the base) stays zero; where the last
    singular value kept equals the next, any choice between them is as near and one is
    made; a constant delta, one row or one column has rank 1; opposite models give
    opposite deltas; with one element rank 0 gives the base, every other rank the model;
    empty stays empty. A delta with NaN or infinity is kept as it is, unless rank is 0.

    Source: Eckart and Young, The approximation of one matrix by another of lower rank,
    Psychometrika 1, 1936, https://doi.org/10.1007/BF02288367; sd-mecha's
    `truncate_rank`. There a random basis makes it approximate by default, and rank 8
    is the default; here it is always the nearest.
    """
    if delta.dim() < 2:
        return delta * lam
    nearest = low_rank(delta.flatten(1), int(rank))
    return nearest.reshape(delta.shape).mul_(lam)
