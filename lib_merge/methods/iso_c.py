"""Iso-C: every direction of a merged task vector made equally strong."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param, choice
from lib_merge.core.runs import Over
from lib_merge.core.spaces import Delta
from lib_merge.methods._ops.rank import isotropic_delta, workspace


@merge_method(
    label="Iso-C",
    formula="base + lam * mean(S) * U V^T, with U S V^T = M - base",
    source="Marczak et al., No Task Left Behind: Isotropic Model Merging with Common "
    "and Task-Specific Subspaces, 2025, https://arxiv.org/abs/2502.04959",
    over=Over.TENSOR,
    workspace=workspace,
)
def iso_c(
    delta: Delta,
    *,
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
    """Give every direction of a merged delta the same strength.

    Put it behind another method: the delta is that of the merge result (of ties,
    dgmla, a sum of task vectors ...) from the base.

    Formula: base + lam * mean(S) * U V^T, where U S V^T is the singular value
    decomposition of M - base and the mean runs over all min(rows, columns) singular
    values, zeros included. `iso_z` with z 0 is the same.

    Shapes: any; tensors of two or more dimensions are matrices of the first axis by all
    others, smaller ones keep their delta. The tensor is held whole. Works in and
    returns the input's dtype; the decomposition is done in float64.

    Args:
        delta: M - base of one model or merge result.
        lam: Factor of the new delta, also of deltas that are kept. At 0 the result is
            the base, at 1 the new delta is added once, below 0 it is taken away.
        conv: On, convolutions (more than two dimensions) are flattened and changed;
            off, they keep their delta.

    Degenerate inputs: a delta of zero (M equal to the base) stays zero; directions
    whose singular value is below 1e-6 (float32) or 1e-12 (float64) of the largest stay
    zero, for theirs are arbitrary vectors, so a delta of rank r stays one of rank r; a
    constant delta, one row or one column has one direction, whose strength becomes
    mean(S), that is S / min(rows, columns); opposite models give opposite deltas; one
    element comes back unchanged; empty stays empty. A delta with NaN or infinity is
    kept as it is.

    Source: Marczak et al., No Task Left Behind: Isotropic Model Merging with Common and
    Task-Specific Subspaces, 2025, https://arxiv.org/abs/2502.04959 (Iso-C). There the
    delta is the sum of task vectors and convolutions are not spoken of. Directions of
    singular value zero, where U V^T is not defined, are left zero here.
    """
    return isotropic_delta(delta, z=0.0, lam=lam, conv=conv)
