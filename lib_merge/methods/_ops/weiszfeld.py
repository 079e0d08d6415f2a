"""The geometric median of whole tensors, found on their inner products alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


_LEAST_FTOL = 1e-15
_ROUNDING = 2.0**-50


def median_weights(
    gram: Tensor, *, eps: float = 1e-6, n_iterations: int = 100, ftol: float = 1e-20
) -> list[float]:
    """Shares of the points in their geometric median: m = sum(share_t * P_t).

    Weiszfeld's iteration. It starts at the mean; each step gives a point the weight
    1 / max(its distance from m, eps). The distances follow from the inner products:
    the median stays in the span of the points, so their N x N matrix is all that is
    needed, in any number of dimensions.

    The products are always taken relative to the point next to m, so that the small
    distances of close points are not differences of large numbers.

    Args:
        gram: Inner products of the points (float64, N x N, N >= 1), from any origin;
            an origin among the points keeps the most digits.
        eps: Least distance, so that a point which m falls on has a finite weight.
        n_iterations: Most steps; 0 gives the mean.
        ftol: Stop when a step changes the mean distance by no more than this share of
            it. Below 1e-15 float64 cannot tell such a change (at the minimum the mean
            distance is flat): then stop when the shares move by rounding only.

    Returns:
        N shares >= 0 with sum 1. Equal points, or one point, have equal shares. If the
        mean falls on a point exactly, that point keeps all but about eps.
    """
    import numpy as np

    n_points = len(gram)
    shares = np.full(n_points, 1.0 / n_points)
    near = _Distances(gram.detach().cpu().double().numpy())
    distances = near.of(shares)
    for _ in range(n_iterations):
        before, was = distances.mean(), shares
        weights = 1.0 / np.maximum(distances, eps)
        shares = weights / weights.sum()
        distances = near.of(shares)
        mean = distances.mean()
        if ftol >= _LEAST_FTOL and abs(before - mean) <= ftol * mean:
            break
        if np.abs(shares - was).max() <= _ROUNDING:
            break
    return [float(share) for share in shares]


class _Distances:
    """Distances of the points from a mixture of them."""

    def __init__(self, products: Any) -> None:
        self._products = products
        self._origin: int | None = None
        self._move(products)

    def of(self, shares: Any) -> Any:
        """Distance of every point from sum(share_t * P_t); the shares sum to 1."""
        import numpy as np

        squares = self._squares(shares)
        nearest = int(squares.argmin())
        if nearest != self._origin:
            # Exact where it matters: what is close to m is close to this point too.
            self._origin = nearest
            row = self._products[nearest]
            self._move(self._products - row - row[:, None] + row[nearest])
            squares = self._squares(shares)
        return np.sqrt(np.maximum(squares, 0.0))

    def _move(self, products: Any) -> None:
        self._moved = products
        self._lengths = products.diagonal().copy()

    def _squares(self, shares: Any) -> Any:
        inner = self._moved @ shares
        return self._lengths - 2.0 * inner + shares @ inner
