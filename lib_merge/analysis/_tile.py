"""Products of all models over a piece of one tensor, small enough for the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lib_merge.analysis.pairs import RowSums

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 1024
"""So many products are summed in one go; then the sums of the pieces are added."""

_TILE_VALUES = 1 << 19
_MIN_TILE, _MAX_TILE = 1 << 12, 1 << 17
_TILES_IN_RUN = 8
"""At least so many."""

_RUN_VALUES = 1 << 25
_MAX_RUN = 1 << 20
"""A run has so many values of all models, and no more of one: a disk gives large pieces
of many files twice as fast as small ones."""

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
    tile = tile_values(n_rows)
    fit = min(_MAX_RUN, _RUN_VALUES // n_rows)
    return tile * max(_TILES_IN_RUN, fit // tile)


class NotFinite(Exception):
    """A product is NaN or infinite; caught inside the package."""


class Tile:
    """Memory for one tile of all models, and what is computed in it.

    Args:
        n_rows: Models, the base first.
    """

    def __init__(self, n_rows: int) -> None:
        import torch

        self._n_rows = n_rows
        self._width = tile_values(n_rows)
        shape = (n_rows, self._width + _PAD)
        self._singles = torch.zeros(shape)
        self._doubles = torch.zeros(shape, dtype=torch.float64)

    def sums(
        self,
        rows: Sequence[Tensor] | Tensor,
        look: Callable[[int, Tensor], None] | None = None,
    ) -> RowSums:
        """Distances and signs of every pair over a run.

        Args:
            rows: Stored values of each model, 1-D, the base first; where all have one
                type, a tensor of two dimensions is faster.
            look: Told of each tile: its first value's index in the run, and its values
                (the base, then the changes from it, float64, overwritten afterwards).

        Raises:
            NotFinite: A value is NaN or infinite, or its square is.
        """
        with np.errstate(all="ignore"):
            products, agree, both = self._add_up(rows, look)
        if not np.isfinite(products).all():
            raise NotFinite
        found = RowSums.zero(self._n_rows)
        found.n_values = rows[0].numel()
        found.base_square = float(products[0, 0])
        found.cross[1:] = products[1:, 0]
        found.agree, found.both = _counts(agree), _counts(both)
        products[:, 0] = 0.0
        lengths = products.diagonal().copy()
        found.squares = _squares(_mirrored(products), lengths)
        near = _near(found.squares, lengths)
        close = np.flatnonzero(near.any(axis=0) | near.any(axis=1))
        if len(close):
            found.squares[np.ix_(close, close)] = self._sharp_squares(rows, close)
        return found

    def _add_up(
        self,
        rows: Sequence[Tensor] | Tensor,
        look: Callable[[int, Tensor], None] | None,
    ) -> tuple[Any, Any, Any]:
        """Inner products, sign products and common changes; the lower halves count."""
        is_double = _is_double(rows)
        products, agree, both = (np.zeros((self._n_rows,) * 2) for _ in range(3))
        for start, part in self._tiles(rows):
            values = self.load(part)
            products += _products(values.numpy())
            signs = self._signs(values, is_double=is_double)
            in_tile = _products(signs.numpy())
            agree += in_tile
            both += _count_both(signs.abs_(), in_tile.diagonal())
            if look is not None:
                look(start, values)
        return products, agree, both

    def load(self, rows: Sequence[Tensor] | Tensor) -> Tensor:
        """Take in stored values of a tile, and subtract the base from all other rows.

        Args:
            rows: As many as there are models, or fewer.

        Returns:
            Float64: the base, then the changes from it; a view that the next call
            overwrites.
        """
        import torch

        n_values = rows[0].numel()
        values = self._doubles[: len(rows), :n_values]
        if isinstance(rows, torch.Tensor):
            self._widen(rows, slice(0, len(rows)), values)
        else:
            for i, row in enumerate(rows):
                self._widen(row[None], slice(i, i + 1), values)
        values[1:].sub_(values[0])
        return values

    def _widen(self, rows: Tensor, place: slice, values: Tensor) -> None:
        import torch

        if rows.dtype not in (torch.float32, torch.float64):
            # The way over float32 is exact, and four times as fast.
            rows = self._singles[place, : values.shape[1]].copy_(rows)
        values[place].copy_(rows)

    def _tiles(
        self, rows: Sequence[Tensor] | Tensor
    ) -> Iterator[tuple[int, Sequence[Tensor] | Tensor]]:
        import torch

        for start in range(0, rows[0].numel(), self._width):
            stop = start + self._width
            if isinstance(rows, torch.Tensor):
                yield start, rows[:, start:stop]
            else:
                yield start, [row[start:stop] for row in rows]

    def _signs(self, values: Tensor, *, is_double: bool) -> Tensor:
        """1, 0 or -1 for every change; 0 for the base."""
        signs = self._singles[:, : values.shape[1]]
        # What is left of values of 32 bits and fewer never rounds to 0 in float32.
        signs.copy_(values.sign() if is_double else values).sign_()
        signs[0] = 0.0
        return signs

    def _sharp_squares(self, rows: Sequence[Tensor] | Tensor, close: Any) -> Any:
        """Squared distances of some rows, some of which are next to each other."""
        chosen = [rows[int(i)] for i in close]
        total = np.zeros((len(close), len(close)))
        for _, part in self._tiles(chosen):
            values = self.load(part).numpy()
            values[0] = 0.0
            products = _mirrored(_products(values))
            lengths = products.diagonal().copy()
            squares = _squares(products, lengths)
            # A change is rounded where models are stored in float64; the difference of
            # two models next to each other is not.
            is_rounded = _is_double(part)
            exact = (
                np.stack([row.double().numpy() for row in part])
                if is_rounded
                else values
            )
            _sharpen(exact, squares, lengths)
            total += squares
        return total


def _is_double(rows: Sequence[Tensor] | Tensor) -> bool:
    return any(row.element_size() == 8 for row in rows)


def _mirrored(products: Any) -> Any:
    """Both halves of a symmetric matrix, from the lower one."""
    lower = np.tril(products)
    return lower + np.tril(lower, -1).T


def _counts(sums: Any) -> Any:
    return _mirrored(sums).astype(np.int64)


def _products(rows: Any) -> Any:
    """Inner products of the rows, in their own type; the lower half counts."""
    n_values = rows.shape[1]
    cut = n_values // PIECE * PIECE
    if not cut:
        return _piece_products(rows[None])
    pieces = rows[:, :cut].reshape(len(rows), -1, PIECE).transpose(1, 0, 2)
    total = _piece_products(pieces)
    if cut < n_values:
        total += _piece_products(rows[None, :, cut:])
    return total


def _piece_products(pieces: Any) -> Any:
    """The lower half is right; (pieces, rows, values) to (rows, rows).

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
            part = np.add.reduce(np.matmul(rows, others), axis=0)
            total[start : start + _BLOCK, first : first + _BLOCK] = part
    ends = pieces[:, ::_BLOCK]
    squares = np.matmul(ends[:, :, None], ends[:, :, :, None])
    total.flat[:: (n_rows + 1) * _BLOCK] = np.add.reduce(squares, axis=0)[:, 0, 0]
    return total


def _squares(products: Any, lengths: Any) -> Any:
    squares = lengths[:, None] + lengths[None, :] - 2 * products
    np.maximum(squares, 0.0, out=squares)
    np.fill_diagonal(squares, 0.0)
    return squares


def _near(squares: Any, lengths: Any) -> Any:
    """Which pairs are much closer to each other than to the origin."""
    return np.triu(squares < _NEAR * (lengths[:, None] + lengths[None, :]), 1)


def _sharpen(rows: Any, squares: Any, lengths: Any) -> None:
    """Measure pairs again that are next to each other.

    Args:
        rows: Values; left as they are.
        squares: Squared distances of the rows; corrected in place. What is equal is
            exactly 0 afterwards.
        lengths: Squared lengths of the rows.
    """
    near = _near(squares, lengths)
    while near.any():
        leader = int(near.any(axis=1).argmax())
        members = np.flatnonzero(near[leader])
        moved = rows[members] - rows[leader]
        products = _mirrored(_products(moved))
        own = products.diagonal().copy()
        between = _squares(products, own)
        _sharpen(moved, between, own)
        group = np.ix_(members, members)
        squares[group] = between
        squares[leader, members] = squares[members, leader] = own
        near[leader, members] = near[group] = False


def _count_both(moved: Tensor, n_moved: Any) -> Any:
    """How many values are not zero in both rows, by pair; the lower half counts.

    Args:
        moved: 1 where a value is not zero, else 0; the first row is all 0.
        n_moved: Their number, by row.
    """
    n_values = moved.shape[1]
    is_live = n_moved > 0
    n_live = int(is_live.sum())
    n_rows_moved = (moved.new_ones((1, len(moved))) @ moved)[0].numpy()
    few = np.flatnonzero(n_rows_moved < n_live - 1)
    if len(few) * _SPARSE > n_values:
        return _products(moved.numpy())
    # In all other columns at most one row is zero, so no pair is.
    left = 1.0 - moved.numpy()[:, few]
    both = left @ left.T
    both += n_moved[:, None] + (n_moved - n_values)
    np.fill_diagonal(both, n_moved)
    return both * (is_live[:, None] & is_live)
