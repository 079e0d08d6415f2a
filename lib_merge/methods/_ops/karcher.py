"""The mean of directions on the sphere, found on inner products alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_N_ITERATIONS = 100
# Steps below this are rounding.
_LEAST_STEP = 1e-14
# Unit vectors whose mean is shorter than this have no common direction: what they leave
# of each other would be lost in float32.
_LEAST_MEAN = 1e-3
_SMALL_ANGLE = 1e-5


def karcher_weights(gram: Tensor, weight: Sequence[float] | None = None) -> list[float]:
    """Coefficients of the points (not of their directions) in their spherical mean.

    The mean's direction minimises the weighted squared angles to the points'
    directions; its length is the weighted mean of the points' lengths. It is found by
    Newton's method, from the direction of the mean of the unit vectors. All of it lies
    in the points' span, so that their inner products are all that is needed.

    Args:
        gram: Inner products of the points (float64, N x N, N >= 1).
        weight: One number >= 0 a point, of which only the ratios matter; None, or all
            0, for equal ones.

    Returns:
        N numbers c: the mean is sum(c_t * P_t). They do not sum to 1. A zero point has
        no direction and counts in the length alone. A point opposite to the mean pulls
        nowhere. Where the directions cancel out (their mean is shorter than 0.001, as
        of a point and its opposite), there is no spherical mean: the coefficients are
        then those of the weighted mean. One point has 1.
    """
    import numpy as np

    products = gram.detach().cpu().double().numpy()
    shares = _shares(len(products), weight)
    norms = np.sqrt(products.diagonal())
    is_given = (norms > 0.0) & (shares > 0.0)
    norms_given = norms[is_given]
    cosines = products[np.ix_(is_given, is_given)]
    cosines = np.clip(cosines / norms_given / norms_given[:, None], -1.0, 1.0)
    parts = shares[is_given]
    length = _length(parts, cosines)
    if length < _LEAST_MEAN * parts.sum() or not is_given.any():
        return [float(share) for share in shares]
    mean = _direction(cosines, parts / parts.sum(), start=parts / length)
    coefficients = np.zeros(len(norms))
    coefficients[is_given] = mean * (shares @ norms / norms_given)
    return [float(c) for c in coefficients]


def _shares(n_points: int, weight: Sequence[float] | None) -> Any:
    import numpy as np

    weights = np.ones(n_points) if weight is None else np.asarray(weight, dtype=float)
    if weights.sum() <= 0.0:
        weights = np.ones(n_points)
    return weights / weights.sum()


def _direction(cosines: Any, shares: Any, *, start: Any) -> Any:
    """Coefficients of the unit vectors in their mean direction, a unit vector too.

    Args:
        cosines: Inner products of the unit vectors.
        shares: Their weights, with sum 1.
        start: Coefficients of a direction near the mean.
    """
    import numpy as np

    mean = start
    for _ in range(_N_ITERATIONS):
        along = np.clip(cosines @ mean, -1.0, 1.0)
        pulls = _step(cosines, shares, along)
        tangent = pulls - (pulls @ along) * mean
        step = _length(tangent, cosines)
        if step < _LEAST_STEP:
            break
        mean = np.cos(step) * mean + np.sin(step) / step * tangent
        mean = mean / _length(mean, cosines)
    return mean


def _step(cosines: Any, shares: Any, along: Any) -> Any:
    """Coefficients of the tangents to the unit vectors in the next step.

    A tangent is what of a unit vector is orthogonal to the mean. With angles a, the
    gradient is sum(share * a / sin a * tangent); the curvature is sum(share * a cot a),
    and more along the tangents. Newton's step solves for both, where the problem is
    convex; else the step is the gradient.

    Args:
        cosines: Inner products of the unit vectors.
        shares: Their weights.
        along: Their inner products with the mean.
    """
    import numpy as np

    angles = np.arccos(along)
    sines = np.sin(angles)
    is_small = angles < _SMALL_ANGLE
    safe = np.where(sines > _SMALL_ANGLE, sines, 1.0)
    # The opposite of the mean (sine 0, angle pi) pulls nowhere.
    stretch = np.where(sines > _SMALL_ANGLE, angles / safe, is_small)
    bend = np.where(sines > _SMALL_ANGLE, stretch * along, is_small)
    gradient = shares * stretch
    flat = float(shares @ bend)
    if flat < _LEAST_MEAN:
        return gradient
    tangents = cosines - along * along[:, None]
    curves = np.where(is_small, 1.0 / 3.0, (1.0 - bend) / safe**2)
    matrix = (shares * curves)[:, None] * tangents
    matrix[np.diag_indices_from(matrix)] += flat
    newton = np.linalg.solve(matrix, gradient)
    length = newton @ tangents @ newton
    return newton if length < 1.0 else gradient


def _length(coefficients: Any, cosines: Any) -> float:
    return float(max(coefficients @ cosines @ coefficients, 0.0) ** 0.5)
