"""How far two rows point apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def row_distances(x: Tensor, y: Tensor) -> Tensor:
    """Half of 1 less the cosine of two rows, from the chord between their unit vectors.

    Unlike 1 less a computed cosine it is exactly 0 for equal rows and keeps its digits
    for nearly equal ones.

    Args:
        x: 2-D (rows, values), float32 or float64.
        y: Of the same shape and dtype.

    Returns:
        (rows, 1) float64 in [0, 1]: 0 for the same direction, 1/2 for a right angle, 1
        for opposite directions; 1/2 where either row is all zeros.
    """
    import torch

    norm_x, norm_y = _norms(x), _norms(y)
    tiny = torch.finfo(x.dtype).tiny
    unit_x = x / norm_x.to(x.dtype).clamp_min(tiny)
    unit_y = y / norm_y.to(y.dtype).clamp_min(tiny)
    halves = _norms(unit_x.sub_(unit_y)).square_().div_(4.0).clamp_max_(1.0)
    is_pair = torch.minimum(norm_x, norm_y).sign_()
    return halves.sub_(0.5).nan_to_num_().mul_(is_pair).add_(0.5)


def _norms(rows: Tensor) -> Tensor:
    import torch

    norms: Tensor = torch.linalg.vector_norm(
        rows, dim=1, keepdim=True, dtype=torch.float64
    )
    return norms
