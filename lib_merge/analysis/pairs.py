"""Sums over pairs of models, and the distances and similarities that follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Matrix = Any
"""A NumPy array, N x N, in the order of the models."""


@dataclass(frozen=True, eq=False)
class PairSums:
    """What one pass over some tensors of N models leaves; N x N arrays, symmetric.

    Attributes:
        n_values: Values compared, of one model.
        base: Position of the model whose distance the changes are taken from.
        norms: Squared L2 norm of every model, float64, N; NaN where it is not known.
        squares: Squared L2 distance of every pair, float64.
        same: Values that both models moved away from the base in the same direction;
            None where signs are not known (a published matrix).
        both: Values that both models moved at all, in whatever direction; or None.
    """

    n_values: int
    base: int
    norms: Matrix
    squares: Matrix
    same: Matrix | None = None
    both: Matrix | None = None

    @property
    def n_models(self) -> int:
        """How many models were compared."""
        return len(self.squares)

    def l2(self) -> Matrix:
        """Plain L2 distance over all values, as if the tensors were one vector."""
        return np.sqrt(self.squares)

    def relative_l2(self) -> Matrix:
        """L2 distance over the root mean square of the two models' norms.

        0 for equal models, sqrt(2) for unrelated ones of one size, 2 for opposite ones.
        """
        scale = (self.norms[:, None] + self.norms[None, :]) / 2
        return np.sqrt(_ratio(self.squares, scale, 0.0))

    def cosine(self) -> Matrix:
        """Cosine of the models' weights; NaN where one is all zero."""
        inner = (self.norms[:, None] + self.norms[None, :] - self.squares) / 2
        return _cosine(inner, self.norms)

    def change_products(self) -> Matrix:
        """Inner products of the models' changes from the base."""
        far = self.squares[self.base]
        return (far[:, None] + far[None, :] - self.squares) / 2

    def change_cosine(self) -> Matrix:
        """Cosine of the changes from the base; NaN where a model is the base."""
        return _cosine(self.change_products(), self.squares[self.base])

    def sign_agreement(self) -> Matrix:
        """Of the values that both models changed, the share changed in one direction.

        Values that a model left at the base's abstain. NaN where nothing is left.

        Raises:
            ValueError: Signs are not known.
        """
        if self.same is None or self.both is None:
            raise ValueError("Signs are not known of these models.")
        return _ratio(self.same.astype(np.float64), self.both, np.nan)

    @property
    def has_signs(self) -> bool:
        """Whether `sign_agreement` can be told."""
        return self.same is not None


def _ratio(top: Matrix, bottom: Matrix, empty: float) -> Matrix:
    """The quotient; `empty` where nothing stands below, NaN where that is unknown."""
    filled = np.where(bottom == 0, 1.0, bottom)
    return np.where(bottom == 0, empty, top / filled)


def _cosine(inner: Matrix, squares: Matrix) -> Matrix:
    lengths = np.sqrt(squares)
    # Rounding may lead a hair's breadth beyond 1.
    return np.clip(_ratio(inner, lengths[:, None] * lengths[None, :], np.nan), -1, 1)


@dataclass(eq=False)
class RowSums:
    """Sums while they grow; row 0 is the base, the others are changes from it.

    Attributes:
        n_values: Values so far.
        base_square: Squared norm of the base.
        cross: Inner products of the base and each row (0 for row 0).
        squares: Squared distance of every pair of rows, the base being 0.
        agree: Values of equal sign less values of opposite sign, by pair.
        both: Values that are not zero in either row, by pair.
    """

    n_values: int
    base_square: float
    cross: Matrix
    squares: Matrix
    agree: Matrix
    both: Matrix

    @classmethod
    def zero(cls, n_rows: int) -> RowSums:
        """Nothing yet."""
        counts = np.zeros((n_rows, n_rows), dtype=np.int64)
        squares = np.zeros((n_rows, n_rows))
        return cls(0, 0.0, np.zeros(n_rows), squares, counts, counts.copy())

    def add(self, other: RowSums) -> None:
        """Add what was found elsewhere."""
        self.n_values += other.n_values
        self.base_square += other.base_square
        self.cross += other.cross
        self.squares += other.squares
        self.agree += other.agree
        self.both += other.both

    def ordered(self, rows: Matrix, base: int) -> PairSums:
        """The sums in the models' own order.

        Args:
            rows: The row of each model.
            base: The model that is row 0.
        """
        pairs = np.ix_(rows, rows)
        norms = self.base_square + 2 * self.cross + self.squares[0]
        return PairSums(
            n_values=self.n_values,
            base=base,
            # Where a model is all zero, rounding may leave less than nothing.
            norms=np.maximum(norms, 0.0)[rows],
            squares=self.squares[pairs],
            same=(self.both[pairs] + self.agree[pairs]) // 2,
            both=self.both[pairs],
        )

    @property
    def n_bytes(self) -> int:
        """Memory of the arrays."""
        return sum_bytes(len(self.cross))


def sum_bytes(n_rows: int) -> int:
    """Memory of one `RowSums`."""
    return 8 * n_rows * (3 * n_rows + 1)
