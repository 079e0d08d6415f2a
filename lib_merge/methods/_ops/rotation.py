"""Rotations between two matrices: the best one, a part of it, and its use by blocks.

Rows are points in the space of the columns, and rotations act on the columns. Where
there are more than twice as many columns as rows, everything happens in the space that
the rows of both matrices span; a rotation leaves what is outside it alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 1 << 20
_FLOOR = 1e-12
"""Singular values below so much of the largest say nothing about the rotation."""

_HALF_TURN = -0.995
"""Below this cosine (174 degrees) the eigenvalues of Q + Q^T lose the turn's sense."""


def workspace(shape: tuple[int, ...], n_bytes: int) -> float:
    """Bytes that `rotated` takes besides the models and its result, at most.

    Args:
        shape: Of the tensor.
        n_bytes: Of one value; all is done in float64 whatever it is.
    """
    if len(shape) < 2:
        return 0.0
    n_rows, n_columns = matrix_shape(shape)
    side = min(n_columns, 2 * n_rows)
    n_basis = 3 * n_columns * side if side < n_columns else 0
    n_blocks = 6 * min(_BLOCK, n_rows * n_columns)
    return 8.0 * (10 * side * side + n_basis + n_blocks)


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a tensor of two or more dimensions.

    Kernels of convolutions are rows of their own; 1x1 ones are as linear layers.
    """
    n_kernel = math.prod(shape[2:])
    if n_kernel > 1:
        return shape[0] * shape[1], n_kernel
    return shape[0], shape[1]


class _Centred:
    """A matrix with a share of its mean row taken out, read in blocks of float64."""

    def __init__(self, matrix: Tensor, share: float) -> None:
        import torch

        self.matrix = matrix
        total = torch.zeros(matrix.shape[1], dtype=torch.float64, device=matrix.device)
        for start in range(0, len(matrix), self.step):
            total += matrix[start : start + self.step].double().sum(dim=0)
        self.mean = total.mul_(share / len(matrix))

    @property
    def step(self) -> int:
        """Rows of a block."""
        return max(1, _BLOCK // self.matrix.shape[1])

    def rows(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows [start, stop)."""
        return self.matrix[start:stop].double() - self.mean


def rotated(
    a: Tensor, b: Tensor, *, alignment: float, alpha: float, centralization: float
) -> Tensor:
    """A turned towards B.

    Args:
        a: A matrix, float32 or float64, of at least one value.
        b: Another of that shape and dtype.
        alignment: Power of the rotation.
        alpha: Share of B's shape in A's.
        centralization: Share of the mean rows that is turned apart from the rest.

    Returns:
        A new matrix; a + alpha * (b - a) where one of them is not finite.
    """
    import torch

    first, second = _Centred(a, centralization), _Centred(b, centralization)
    basis = _basis(first, second) if 2 * a.shape[0] < a.shape[1] else None
    product = _product(first, second, basis)
    if not bool(product.isfinite().all()):
        return a.lerp(b, alpha)
    rotation = nearest_rotation(product)
    part = rotation_power(rotation, alignment)
    back = rotation.T @ part
    mean = first.mean.lerp(second.mean, alignment)
    result = torch.empty_like(a, memory_format=torch.contiguous_format)
    for start in range(0, len(a), first.step):
        stop = start + first.step
        turned = _inside(first.rows(start, stop), basis) @ part * (1.0 - alpha)
        if alpha:
            turned += _inside(second.rows(start, stop), basis) @ back * alpha
        turned = turned if basis is None else turned @ basis.T
        result[start:stop] = turned + mean
    return result


def _basis(first: _Centred, second: _Centred) -> Tensor:
    """Orthonormal columns that span the rows of both matrices."""
    import torch

    both = torch.cat((first.rows(), second.rows())).T
    basis: Tensor = torch.linalg.qr(both).Q
    return basis


def _inside(rows: Tensor, basis: Tensor | None) -> Tensor:
    return rows if basis is None else rows @ basis


def _product(first: _Centred, second: _Centred, basis: Tensor | None) -> Tensor:
    """first^T second, in the basis."""
    import torch

    side = first.matrix.shape[1] if basis is None else basis.shape[1]
    total = torch.zeros((side, side), dtype=torch.float64, device=first.matrix.device)
    for start in range(0, len(first.matrix), first.step):
        stop = start + first.step
        left = _inside(first.rows(start, stop), basis)
        total.addmm_(left.T, _inside(second.rows(start, stop), basis))
    return total


def nearest_rotation(product: Tensor) -> Tensor:
    """The rotation Q that makes the trace of Q^T product largest.

    With product = A^T B that is the one that makes |A Q - B| least. Where more than one
    does, because the product is singular, it is the one that turns least (whose own
    trace is largest). Of reflections none is taken: the direction that matters least
    is turned round.

    Args:
        product: Square, float64, finite.
    """
    import torch

    u, s, vt = torch.linalg.svd(product)
    n_sure = int((s > _FLOOR * s[0]).sum())
    rotation: Tensor = u[:, :n_sure] @ vt[:n_sure]
    last_u, last_v = u[:, -1], vt[-1]
    if n_sure < len(s):
        free_u, free_v = u[:, n_sure:], vt[n_sure:]
        x, _, yt = torch.linalg.svd(free_u.T @ free_v.T)
        rotation += (free_u @ x) @ (yt @ free_v)
        last_u, last_v = free_u @ x[:, -1], yt[-1] @ free_v
    if float(torch.linalg.slogdet(rotation)[0]) < 0.0:
        rotation -= 2.0 * torch.outer(last_u, last_v)
    return rotation


def rotation_power(rotation: Tensor, power: float) -> Tensor:
    """A part of a rotation: each of its planes turned by so much of its angle.

    Angles are from -180 to 180 degrees; of planes turned by exactly 180 the sense is
    arbitrary.

    Args:
        rotation: Orthogonal with determinant 1, float64.
        power: 0 gives the identity, 1 the rotation, -1 its inverse.
    """
    import torch

    if power == int(power):
        whole: Tensor = torch.linalg.matrix_power(rotation, int(power))
        return whole
    cosines, vectors = torch.linalg.eigh((rotation + rotation.T) / 2.0)
    if float(cosines[0]) < _HALF_TURN:
        return _power_by_schur(rotation, power)
    # Q = C + K, symmetric and skew; they commute, and K is sin(angle) times a quarter
    # turn, so that Q^t = cos(t * angle) + sin(t * angle) / sin(angle) * K.
    angles = cosines.clamp(-1.0, 1.0).arccos_()
    ratios = torch.sinc(angles * (power / math.pi)) / torch.sinc(angles / math.pi)
    skew = (rotation - rotation.T) / 2.0
    turned = (vectors.T @ skew) * (ratios * power)[:, None]
    turned += vectors.T * (angles * power).cos_()[:, None]
    part: Tensor = vectors @ turned
    return part


def _power_by_schur(rotation: Tensor, power: float) -> Tensor:
    """The same by scipy's real Schur form, which takes ten times as long."""
    import numpy as np
    import torch
    from scipy.linalg import schur

    form, vectors = schur(rotation.cpu().numpy(), output="real")
    below = form.diagonal(-1)
    starts = np.nonzero(below)[0]
    singles = np.setdiff1d(np.arange(len(form)), np.concatenate((starts, starts + 1)))
    half_turns = singles[form[singles, singles] < 0.0]
    half_turns = half_turns[: len(half_turns) // 2 * 2].reshape(-1, 2)
    first = np.concatenate((starts, half_turns[:, 0]))
    second = np.concatenate((starts + 1, half_turns[:, 1]))
    sines = (form[second, first] - form[first, second]) / 2.0
    cosines = (form[first, first] + form[second, second]) / 2.0
    angles = np.arctan2(sines, cosines) * power
    planes = np.eye(len(form))
    planes[first, first] = planes[second, second] = np.cos(angles)
    planes[second, first] = np.sin(angles)
    planes[first, second] = -np.sin(angles)
    return torch.from_numpy(vectors @ planes @ vectors.T).to(rotation.device)
