"""Singular values of whole matrices, without ever holding U.

Everything here is a product of the matrix with a small one made of its right singular
vectors (of the smaller side), taken block by block: besides the matrix and the result
it takes a few squares of the smaller side in float64.

float32 matrices: eigenvectors of the Gram matrix, formed in float64. That squares the
singular values' ratio to the largest, which float64 has room for down to
`FLOOR_FLOAT32`, where the entries of a float32 matrix say nothing any more. float64
matrices: the triangular factor of a blockwise QR, then its singular value
decomposition, which costs twice the time and keeps all digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

FLOOR_FLOAT32 = 1e-6
"""Singular values of a float32 matrix below so much of the largest count as zero."""

FLOOR_FLOAT64 = 1e-12
"""The same for a float64 matrix."""

_BLOCK = 1 << 20


def workspace(shape: tuple[int, ...], n_bytes: int) -> float:
    """Bytes that the functions here take besides the matrix and the result, at most.

    Args:
        shape: Of the tensor, taken as a matrix of its first axis by all others.
        n_bytes: Of one value.
    """
    n_rows = shape[0] if shape else 1
    n_columns = math.prod(shape[1:])
    side = min(n_rows, n_columns)
    # A dozen squares of the smaller side, and a few blocks of rows, in float64.
    return 8.0 * (12 * side * side + 4 * min(_BLOCK, n_rows * n_columns))


@dataclass(frozen=True)
class Spectrum:
    """What a tall matrix (rows >= columns) does along each direction.

    Attributes:
        values: Singular values in float64, largest first; exact zeros below the floor.
        vectors: Right singular vectors in float64, one a column, in that order.
    """

    values: Tensor
    vectors: Tensor

    @property
    def n_kept(self) -> int:
        """How many singular values are above the floor."""
        return int(self.values.count_nonzero())


def tall(matrix: Tensor) -> Tensor:
    """The matrix or its transpose, whichever has no more columns than rows; a view."""
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T


def spectrum(matrix: Tensor) -> Spectrum | None:
    """Singular values and right singular vectors of a tall matrix.

    Args:
        matrix: Float32 or float64, at least one column.

    Returns:
        None where the matrix holds NaN or infinity.
    """
    import torch

    is_single = matrix.dtype is torch.float32
    found = _by_gram(matrix) if is_single else _by_qr(matrix)
    if found is None:
        return None
    floor = FLOOR_FLOAT32 if is_single else FLOOR_FLOAT64
    values, vectors = found
    return Spectrum(values * (values > floor * values[0]), vectors)


def isotropic_delta(delta: Tensor, *, z: float, lam: float, conv: float) -> Tensor:
    """A delta of any shape with its singular values moved towards their mean.

    Args:
        delta: Taken as a matrix of its first axis by all others.
        z: See `isotropic`.
        lam: Factor of the result.
        conv: Whether tensors of more than two dimensions are changed too.
    """
    if delta.dim() < 2 or (delta.dim() > 2 and not conv):
        return delta * lam
    changed = isotropic(delta.flatten(1), z)
    return changed.reshape(delta.shape).mul_(lam)


def isotropic(matrix: Tensor, z: float) -> Tensor:
    """Singular values moved towards their mean; a new matrix.

    Args:
        matrix: Any 2-D shape, float32 or float64.
        z: Share of the distance from the mean that is kept: 0 none, 1 all.

    Returns:
        z * matrix + (1 - z) * mean(S) * U V^T, where U V^T runs over the directions
        above the floor and the mean over all singular values; the matrix itself where
        that is not finite.
    """
    upright = tall(matrix)
    found = spectrum(upright) if z != 1.0 and matrix.numel() else None
    if found is None:
        return matrix.clone()
    n_kept = found.n_kept
    vectors = found.vectors[:, :n_kept]
    factors = (1.0 - z) * found.values.mean() / found.values[:n_kept]
    operator = (vectors * factors) @ vectors.T
    operator.diagonal().add_(z)
    return _mapped(upright, lambda rows: rows @ operator, like=matrix)


def low_rank(matrix: Tensor, rank: int) -> Tensor:
    """The nearest matrix of at most some rank, in every unitarily invariant norm.

    Args:
        matrix: Any 2-D shape, float32 or float64.
        rank: 0 gives zeros; the smaller side or more gives the matrix exactly.

    Returns:
        A new matrix; the matrix itself where that is not finite.
    """
    upright = tall(matrix)
    n = upright.shape[1]
    if rank >= n or not matrix.numel():
        return matrix.clone()
    if rank <= 0:
        return matrix.new_zeros(matrix.shape)
    found = spectrum(upright)
    if found is None:
        return matrix.clone()
    kept, dropped = found.vectors[:, :rank], found.vectors[:, rank:]
    if 2 * rank <= n:
        return _mapped(upright, lambda rows: (rows @ kept) @ kept.T, like=matrix)
    return _mapped(
        upright, lambda rows: rows - (rows @ dropped) @ dropped.T, like=matrix
    )


def row_blocks(matrix: Tensor, n_rows: int = 0) -> Iterator[tuple[int, Tensor]]:
    """A matrix in float64, block by block: (first row, rows).

    Args:
        matrix: 2-D.
        n_rows: At least so many a block.
    """
    import torch

    step = max(n_rows, _BLOCK // max(1, matrix.shape[1]), 1)
    for start in range(0, matrix.shape[0], step):
        yield start, matrix[start : start + step].to(torch.float64)


def gram(matrix: Tensor, other: Tensor | None = None) -> Tensor:
    """matrix^T matrix, or matrix^T other, in float64; both of as many rows."""
    import torch

    second = matrix if other is None else other
    total = torch.zeros(
        (matrix.shape[1], second.shape[1]), dtype=torch.float64, device=matrix.device
    )
    n_rows = max(1, _BLOCK // max(1, matrix.shape[1], second.shape[1]))
    for start in range(0, matrix.shape[0], n_rows):
        left = matrix[start : start + n_rows].to(torch.float64)
        right = (
            left if other is None else second[start : start + n_rows].to(torch.float64)
        )
        total.addmm_(left.T, right)
    return total


def _by_gram(matrix: Tensor) -> tuple[Tensor, Tensor] | None:
    import torch

    square = gram(matrix)
    if not bool(square.diagonal().sum().isfinite()):
        return None
    values, vectors = torch.linalg.eigh(square)
    return values.clamp_(min=0).sqrt_().flip(0), vectors.flip(1)


def _by_qr(matrix: Tensor) -> tuple[Tensor, Tensor] | None:
    import torch

    n = matrix.shape[1]
    factor: Tensor | None = None
    for _, rows in row_blocks(matrix, 2 * n):
        stacked = rows if factor is None else torch.cat((factor, rows))
        factor = torch.linalg.qr(stacked, mode="r").R
    assert factor is not None
    if not bool(factor.sum().isfinite()):
        return None
    _, values, vectors = torch.linalg.svd(factor, full_matrices=False)
    return values, vectors.T


def _mapped(
    upright: Tensor, change: Callable[[Tensor], Tensor], *, like: Tensor
) -> Tensor:
    """Every row of a tall matrix changed, in the shape of `like`."""
    import torch

    result = torch.empty_like(like, memory_format=torch.contiguous_format)
    out = tall(result)
    for start, rows in row_blocks(upright):
        out[start : start + len(rows)] = change(rows)
    return result
