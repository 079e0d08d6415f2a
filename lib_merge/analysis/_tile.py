"""Products of all models over a piece of one tensor, small enough for the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lib_merge.analysis.pairs import RowSums

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 1024
"""So many products are summed in one go; then the sums of the pieces are added."""

_TILE_VALUES = 1 << 18
_MIN_TILE, _MAX_TILE = 1 << 12, 1 << 17
_TILES_IN_RUN = 16

_PAD = 16
"""Rows of 2^n bytes would all compete for the same places of the cache."""

_BLOCK = 16
"""So many rows are multiplied by so many others at a time."""

_NEAR = 2.0**-14
"""Two rows whose squared distance is a smaller share of their squared lengths than this
are measured again, one taken from the other: the difference of two nearly equal sums
has few digits."""

_SPARSE = 8


def tile_values(n_rows: int) -> int:
    """Values of a model in one tile: by the number of models alone."""
    fit = max(_MIN_TILE, min(_MAX_TILE, _TILE_VALUES // n_rows))
    return fit // PIECE * PIECE


def run_values(n_rows: int) -> int:
    """Values of a model that are read at once: by the number of models alone.

    Neither the budget nor the threads have a part in it, so the sums, which are added
    up run by run, have the same bits for all of them.
    """
    return _TILES_IN_RUN * tile_values(n_rows)


class NotFinite(Exception):
    """A product is NaN or infinite; caught inside the package."""


class Tile:
    """Memory for one tile of all models, and what is computed in it.

    Args:
        n_rows: Models, the base first.
    """

    def __init__(self, n_rows: int) -> None:
        import torch

        width = tile_values(n_rows) + _PAD
        self._singles = torch.zeros((n_rows, width))
        self._doubles = torch.zeros((n_rows, width), dtype=torch.float64)
        self._exact: Sequence[Tensor] | Tensor | None = None

    def load(self, rows: Sequence[Tensor] | Tensor) -> Tensor:
        """Take in stored values, and subtract the base from all other rows.

        Args:
            rows: One a model, 1-D, of one length up to `tile_values`, any float type;
                where all have one type, a tensor of two dimensions is faster.

        Returns:
            Float64, a row a model: the base, then the changes from it; a view that the
            next call overwrites.
        """
        import torch

        n_values = rows[0].numel()
        values = self._doubles[:, :n_values]
        if isinstance(rows, torch.Tensor):
            self._widen(rows, slice(None), values)
        else:
            for i, row in enumerate(rows):
                self._widen(row[None], slice(i, i + 1), values)
        values[1:].sub_(values[0])
        is_double = any(row.dtype is torch.float64 for row in rows)
        self._exact = rows if is_double else None
        return values

    def _widen(self, rows: Tensor, place: slice, values: Tensor) -> None:
        import torch

        if rows.dtype not in (torch.float32, torch.float64):
            # The way over float32 is exact, and four times as fast.
            rows = self._singles[place, : values.shape[1]].copy_(rows)
        values[place].copy_(rows)

    def sums(self, values: Tensor) -> RowSums:
        """Distances and signs of every pair.

        Args:
            values: From `load`.

        Raises:
            NotFinite: A value is NaN or infinite, or its square is.
        """
        array = values.numpy()
        with np.errstate(all="ignore"):
            products = _products(array)
        if not np.isfinite(products).all():
            raise NotFinite
        found = RowSums.zero(len(array))
        found.n_values = array.shape[1]
        found.base_square = float(products[0, 0])
        found.cross[1:] = products[0, 1:]
        products[0] = products[:, 0] = 0.0
        lengths = products.diagonal().copy()
        found.squares = _squares(products, lengths)
        # A change is rounded where models are stored in float64, their difference not.
        exact = array if self._exact is None else _stacked(self._exact)
        _sharpen(exact, found.squares, lengths)
        self._count_signs(values, found)
        return found

    def _count_signs(self, values: Tensor, found: RowSums) -> None:
        signs = self._singles[:, : values.shape[1]]
        # What is left of values of 32 bits and fewer never rounds to 0 in float32.
        signs.copy_(values if self._exact is None else values.sign()).sign_()
        signs[0] = 0.0
        agree = _products(signs.numpy())
        found.agree = agree.astype(np.int64)
        found.both = _count_both(signs.abs_(), found.agree.diagonal())


def _stacked(rows: Sequence[Tensor] | Tensor) -> Any:
    return np.stack([row.double().numpy() for row in rows])


def _products(rows: Any) -> Any:
    """Inner products of every pair of rows, in the rows' own type."""
    n_rows, n_values = rows.shape
    cut = n_values // PIECE * PIECE
    total = np.zeros((n_rows, n_rows), dtype=rows.dtype)
    if cut:
        pieces = rows[:, :cut].reshape(n_rows, -1, PIECE).transpose(1, 0, 2)
        total += _piece_products(pieces)
    if cut < n_values:
        total += _piece_products(rows[None, :, cut:])
    lower = np.tril(total)
    return lower + np.tril(lower, -1).T


def _piece_products(pieces: Any) -> Any:
    """The lower triangle is right; (pieces, rows, values) to (rows, rows).

    A block of rows meets blocks that begin a row earlier, never itself: small products
    of two matrices are faster than those of one with itself, and below what libraries
    share out among threads of their own.
    """
    n_rows = pieces.shape[1]
    total = np.zeros((n_rows, n_rows), dtype=pieces.dtype)
    for start in range(1, n_rows, _BLOCK):
        rows = pieces[:, start : start + _BLOCK]
        for first in range(0, start, _BLOCK):
            others = pieces[:, first : first + _BLOCK].swapaxes(1, 2)
            part = np.matmul(rows, others).sum(axis=0)
            total[start : start + _BLOCK, first : first + _BLOCK] = part
    ends = pieces[:, ::_BLOCK]
    total.flat[:: (n_rows + 1) * _BLOCK] = np.einsum("prk,prk->r", ends, ends)
    return total


def _squares(products: Any, lengths: Any) -> Any:
    squares = lengths[:, None] + lengths[None, :] - 2 * products
    np.maximum(squares, 0.0, out=squares)
    np.fill_diagonal(squares, 0.0)
    return squares


def _sharpen(rows: Any, squares: Any, lengths: Any) -> None:
    """Measure pairs again that are much closer to each other than to the origin.

    Args:
        rows: Values; left as they are.
        squares: Squared distances of the rows; corrected in place. What is equal is
            exactly 0 afterwards.
        lengths: Squared lengths of the rows.
    """
    near = np.triu(squares < _NEAR * (lengths[:, None] + lengths[None, :]), 1)
    while near.any():
        leader = int(near.any(axis=1).argmax())
        members = np.flatnonzero(near[leader])
        moved = rows[members] - rows[leader]
        products = _products(moved)
        own = products.diagonal().copy()
        between = _squares(products, own)
        _sharpen(moved, between, own)
        group = np.ix_(members, members)
        squares[group] = between
        squares[leader, members] = squares[members, leader] = own
        near[leader, members] = near[group] = False


def _count_both(moved: Tensor, n_moved: Any) -> Any:
    """How many values are not zero in both rows, by pair.

    Args:
        moved: 1 where a value is not zero, else 0.
        n_moved: Their number, by row.
    """
    n_values = moved.shape[1]
    is_live = n_moved > 0
    n_live = int(is_live.sum())
    n_rows_moved = (moved.new_ones((1, len(moved))) @ moved)[0].numpy()
    few = np.flatnonzero(n_rows_moved < n_live - 1)
    if len(few) * _SPARSE > n_values:
        return _products(moved.numpy()).astype(np.int64)
    # In all other columns at most one row is zero, so no pair is.
    left = 1.0 - moved.numpy()[:, few]
    n_neither = (left @ left.T).astype(np.int64)
    both = n_moved[:, None] + n_moved[None, :] - n_values + n_neither
    np.fill_diagonal(both, n_moved)
    both[~is_live] = both[:, ~is_live] = 0
    return both
