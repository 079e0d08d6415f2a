"""Rotate: one model turned towards another without a change of its shape."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.runs import Over
from lib_merge.core.spaces import Weight
from lib_merge.methods._ops.rotation import matrix_shape, rotated, workspace


@merge_method(
    label="Rotate",
    formula="((1 - alpha) * A' + alpha * B' * Q^-1) * Q^alignment + mean, Q the "
    "rotation that brings A' nearest to B', A' and B' without their mean rows",
    source="ljleb, sd-mecha, 2024, https://github.com/ljleb/sd-mecha; Schoenemann, A "
    "generalized solution of the orthogonal Procrustes problem, 1966, "
    "https://doi.org/10.1007/BF02289451",
    over=Over.TENSOR,
    workspace=workspace,
)
def rotate(
    a: Weight,
    b: Weight,
    *,
    alignment: Annotated[
        float,
        Param(
            -1.0,
            2.0,
            0.01,
            help="how far A is turned: 0 not at all, 1 until it is nearest to B",
        ),
    ] = 1.0,
    alpha: Annotated[
        float,
        Param(
            -1.0,
            2.0,
            0.01,
            help="what turning leaves as it is: 0 keeps A's, 1 takes B's",
        ),
    ] = 0.0,
    centralization: Annotated[
        float,
        Param(
            0.0,
            1.0,
            0.01,
            help="share of the mean row that is moved by itself: 0 turns all about "
            "zero, 1 turns about the mean",
        ),
    ] = 1.0,
) -> Weight:
    """Turn model A towards model B.

    Formula: with rows as points, A' = A - c * mean row of A and B' likewise, let Q be
    the rotation (orthogonal, determinant 1) of the columns that makes |A' Q - B'|
    least. The result is ((1 - alpha) * A' + alpha * B' Q^-1) Q^alignment, plus the mean
    rows' c * ((1 - alignment) * mean A + alignment * mean B). Q^alignment turns every
    plane of Q by that share of its angle (at most 180 degrees).

    Shapes: any, equal. Matrices and 1x1 convolutions have a row for every output; other
    convolutions one for every kernel, whose values are the columns; tensors of fewer
    than two dimensions have no rows and are A + alpha * (B - A). Tensors are held
    whole. Works in float64 and returns the inputs' dtype (float32 or float64).

    Args:
        a: Values of the model that is turned.
        b: Values of the model that it is turned towards.
        alignment: Power of the rotation. At 0 A keeps its place, at 1 it is as near to
            B as turning brings it; below 0 it turns away, above 1 beyond.
        alpha: Share of B in what turning does not touch (lengths of rows and angles
            between them). At 0 it is all A's; at 1 all B's. With alignment and alpha
            both 0 the result is A, both 1 it is B, exactly.
        centralization: c. At 0 rows are turned about zero; at 1 about their mean, which
            moves in a straight line and brings the models much nearer.

    Degenerate inputs: equal models come back as they are; where the models leave Q
    open (zero or constant tensors, fewer rows than columns) it turns least; opposite
    ones are half a turn apart, in planes that are arbitrary; one row is its own mean,
    so with centralization 1 it moves from A's to B's by alignment, and so does one
    element; empty stays empty. With NaN or infinity in a tensor it is
    A + alpha * (B - A).

    Source: ljleb, sd-mecha (`rotate`), 2024, https://github.com/ljleb/sd-mecha; Q after
    Schoenemann, A generalized solution of the orthogonal Procrustes problem,
    Psychometrika 31, 1966, https://doi.org/10.1007/BF02289451. There Q may be a
    reflection where alignment is a whole number and is a rotation elsewhere, so that
    the result jumps; with fewer rows than columns the map used keeps what is outside
    B's rows and adds what comes from A's, which is no orthogonal map, and its powers
    come from an iteration that may not end; and models equal in float16 are only
    blended. Here Q is always a rotation, the nearest one, and its power is exact.
    """
    import torch

    if a.dim() < 2 or not a.numel():
        return a.lerp(b, alpha)
    if (alignment == 0.0 and alpha == 0.0) or torch.equal(a, b):
        return a.clone()
    if alignment == 1.0 and alpha == 1.0:
        return b.clone()
    shape = matrix_shape(tuple(a.shape))
    turned = rotated(
        a.reshape(shape),
        b.reshape(shape),
        alignment=alignment,
        alpha=alpha,
        centralization=centralization,
    )
    return turned.reshape(a.shape)
