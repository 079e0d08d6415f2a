"""Low-rank factors of a change: the best of a rank, or of a share of its energy.

By the theorem of Eckart, Young and Mirsky the singular vectors of the largest singular
values give the best approximation of any rank. They come from an eigendecomposition of
the small side's Gram matrix in float64, and the other side's from projecting the change
on them, so that a change of low rank comes back to rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_NOISE = 1e-7
"""Singular values below this share of the largest are rounding of float32."""

_N_EXTRA = 16
_N_ITERATIONS = 4


@dataclass(frozen=True)
class Keep:
    """How much of a change is kept.

    Attributes:
        rank: Most factors; None for any number.
        energy: Least share of the squared singular values, above 0 to 1; None for all
            that the rank allows.
        is_quick: Whether a randomised decomposition will do (of a known rank only).
    """

    rank: int | None = None
    energy: float | None = None
    is_quick: bool = False


@dataclass(frozen=True)
class Factors:
    """up [rows, rank] times down [rank, columns], in float64.

    Attributes:
        up: Left factor.
        down: Right factor.
        kept: Energy (squared singular values) that they hold.
        total: Energy of the change.
    """

    up: Tensor
    down: Tensor
    kept: float
    total: float

    @property
    def rank(self) -> int:
        """Number of factors."""
        return int(self.up.shape[1])


def factorise(change: Tensor, keep: Keep) -> Factors | None:
    """The factors of a matrix.

    Args:
        change: [rows, columns]; float64 is worked in.
        keep: How much of it.

    Returns:
        None where nothing is changed at all.
    """
    import torch

    change = change.to(torch.float64)
    total = float(change.square().sum())
    if not total > 0.0:
        return None
    if keep.is_quick and keep.rank is not None:
        return _quick(change, keep, total)
    is_wide = change.shape[0] <= change.shape[1]
    matrix = change if is_wide else change.transpose(0, 1)
    _, vectors = torch.linalg.eigh(matrix @ matrix.transpose(0, 1))
    left = vectors.flip(1)
    right = left.transpose(0, 1) @ matrix
    sizes = torch.linalg.vector_norm(right, dim=1)
    rank = _rank(sizes, keep, total)
    left, right = left[:, :rank], right[:rank]
    if not is_wide:
        left, right = right.transpose(0, 1), left.transpose(0, 1)
        return _balanced(left / sizes[:rank], right, sizes[:rank], total)
    return _balanced(left, right / sizes[:rank, None], sizes[:rank], total)


def factorise_product(up: Tensor, down: Tensor, keep: Keep) -> Factors | None:
    """The factors of a product, without multiplying it out.

    Args:
        up: [rows, n], n less than both sides.
        down: [n, columns].
        keep: How much of the product.
    """
    import torch

    left, upper = torch.linalg.qr(up.to(torch.float64))
    right, lower = torch.linalg.qr(down.to(torch.float64).transpose(0, 1))
    inner, sizes, outer = torch.linalg.svd(upper @ lower.transpose(0, 1))
    total = float(sizes.square().sum())
    if not total > 0.0:
        return None
    rank = _rank(sizes, keep, total)
    return _balanced(
        left @ inner[:, :rank],
        outer[:rank] @ right.transpose(0, 1),
        sizes[:rank],
        total,
    )


def _quick(change: Tensor, keep: Keep, total: float) -> Factors:
    import torch

    assert keep.rank is not None
    n_found = min(keep.rank + _N_EXTRA, *change.shape)
    with torch.random.fork_rng(devices=[]):
        # The draws must be the same at every run; the user's own are left alone.
        torch.manual_seed(0)
        left, sizes, right = torch.svd_lowrank(change, n_found, niter=_N_ITERATIONS)
    rank = _rank(sizes, keep, total)
    return _balanced(left[:, :rank], right[:, :rank].mT, sizes[:rank], total)


def _rank(sizes: Tensor, keep: Keep, total: float) -> int:
    """How many of the singular values, largest first, are kept; at least one."""
    rank = int((sizes > sizes[0] * _NOISE).sum())
    if keep.energy is not None and keep.energy < 1.0:
        held = sizes.square().cumsum(0)
        # A share that is reached to rounding is reached.
        wanted = keep.energy * total * (1.0 - 1e-12)
        rank = min(rank, 1 + int((held < wanted).sum()))
    if keep.rank is not None:
        rank = min(rank, keep.rank)
    return max(1, rank)


def _balanced(left: Tensor, right: Tensor, sizes: Tensor, total: float) -> Factors:
    """Unit vectors with the singular values shared evenly, which suits float16 best."""
    root = sizes.sqrt()
    kept = min(total, float(sizes.square().sum()))
    return Factors(left * root, root[:, None] * right, kept, total)


def shared_evenly(up: Tensor, down: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """A product times a factor, half of it in either side."""
    if factor == 1.0:
        return up, down
    root = math.sqrt(abs(factor))
    return up * math.copysign(root, factor), down * root
