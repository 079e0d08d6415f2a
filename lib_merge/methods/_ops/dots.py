"""Inner products of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Torch sums many short rows slowly; up to this width columns are added instead.
_NARROW = 16


def row_dots(x: Tensor, y: Tensor) -> Tensor:
    """Inner product of each row of one tensor with the same row of another.

    Args:
        x: 2-D (rows, values), float64.
        y: Of the same shape and dtype.

    Returns:
        (rows, 1) float64; a row's bits do not depend on the other rows.
    """
    products = x * y
    width = products.shape[1]
    if width > _NARROW:
        return products.sum(dim=1, keepdim=True)
    total = products[:, :1].clone()
    for column in range(1, width):
        total.add_(products[:, column : column + 1])
    return total
