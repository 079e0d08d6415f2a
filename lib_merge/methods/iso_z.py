"""Iso-Z: the directions of a merged task vector made more alike in strength."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param, choice
from lib_merge.core.runs import Over
from lib_merge.core.spaces import Delta
from lib_merge.methods._ops.rank import isotropic_delta, workspace


@merge_method(
    label="Iso-Z",
    formula="base + lam * (z * (M - base) + (1 - z) * mean(S) * U V^T), with "
    "U S V^T = M - base",
    source="6DammK9, AstolfoMix, 2025; after Marczak et al., No Task Left Behind: "
    "Isotropic Model Merging, 2025, https://arxiv.org/abs/2502.04959",
    over=Over.TENSOR,
    workspace=workspace,
)
def iso_z(
    delta: Delta,
    *,
    z: Annotated[
        float,
        Param(
            0.0,
            2.0,
            0.01,
            help="share of each direction's distance from the mean strength: 0 is "
            "Iso-C, 1 changes nothing, 2 doubles it",
        ),
    ] = 0.8,
    lam: Annotated[
        float,
        Param(-1.0, 2.0, 0.01, help="factor of the new delta: 0 gives the base"),
    ] = 1.0,
    conv: Annotated[
        float,
        choice(
            "off",
            "on",
            help="on: convolutions too; off: they keep their delta as it is",
        ),
    ] = 1.0,
) -> Delta:
    """Move the strength of every direction of a merged delta towards the mean.

    Put it behind another method: the delta is that of the merge result (of ties,
    dgmla ...) from the base. Behind dgmla the two are what the field calls DGMIZ.

    Formula: base + lam * (z * D + (1 - z) * mean(S) * U V^T) with D = M - base and
    D = U S V^T, the mean over all min(rows, columns) singular values, zeros included.
    So every singular value s becomes mean + z * (s - mean).

    Shapes: any; tensors of two or more dimensions are matrices of the first axis by all
    others, smaller ones keep their delta. The tensor is held whole. Works in and
    returns the input's dtype; the decomposition is done in float64.

    Args:
        delta: M - base of one model or merge result.
        z: Share of the distance from the mean that is kept. At 0 all directions are
            equally strong (`iso_c`), at 1 the delta is unchanged, exactly; above 1 they
            are pulled apart, and weak directions may change sign.
        lam: Factor of the new delta, also of deltas that are kept. At 0 the result is
            the base, at 1 the new delta is added once, below 0 it is taken away.
        conv: On, convolutions (more than two dimensions) are flattened and changed;
            off, they keep their delta.

    Degenerate inputs: a delta of zero (M equal to the base) stays zero; directions
    whose singular value is below 1e-6 (float32) or 1e-12 (float64) of the largest keep
    z of it and gain nothing, for theirs are arbitrary vectors; a constant delta, one
    row or one column has one direction; opposite models give opposite deltas; one
    element comes back unchanged; empty stays empty. A delta with NaN or infinity is
    kept as it is.

    Source: 6DammK9, AstolfoMix ("isotropic" with Z-scores), 2025; after Marczak et al.,
    No Task Left Behind: Isotropic Model Merging with Common and Task-Specific
    Subspaces, 2025, https://arxiv.org/abs/2502.04959. There the standard deviation is
    divided out and multiplied in again, which makes NaN of a delta whose singular
    values are equal; here it is cancelled.
    """
    return isotropic_delta(delta, z=z, lam=lam, conv=conv)
