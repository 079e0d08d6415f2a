"""Shares between 0 and 1 of two values' magnitudes, with 0/0 defined as 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def share_of(first: Tensor, second: Tensor) -> Tensor:
    """How much of |first| + |second| is |first|.

    Both may be overwritten.

    Args:
        first: Floating point; owned by the caller.
        second: Of the same shape and dtype; owned by the caller.

    Returns:
        |first| / (|first| + |second|), in [0, 1]; 0 where both are 0.
    """
    import torch

    part = first.abs_()
    total = second.abs_().add_(part)
    # Sums below the smallest normal number are 0 for every purpose here.
    return part.div_(total.clamp_min_(torch.finfo(part.dtype).tiny))


def opposition(x: Tensor, y: Tensor) -> Tensor:
    """How much two values pull apart: |x - y| / (|x - y| + |x + y|).

    With m the smaller and t the larger magnitude it is (1 - m/t) / 2 for equal signs
    and (1 + m/t) / 2 for different ones, without their squares, which under- and
    overflow.

    Returns:
        A new tensor in [0, 1]: 0 where x and y are equal (both 0 included), 1/2 where
        one of them is 0, 1 where they are opposite.
    """
    return share_of(x - y, x + y)
