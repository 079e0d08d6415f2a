"""How far Model Stock goes from the base to the mean of the models."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Below this the denominator is 0 to within the rounding of the cosines.
_LEAST_DENOMINATOR = 1e-12


def stock_factor(gram: Tensor, *, is_clamped: bool = True) -> float:
    """The factor of the mean delta: t = N cos / (1 + (N - 1) cos).

    The merged delta is t / N times each of the N deltas, summed. cos is the mean cosine
    of all pairs of deltas; a pair with a zero delta counts as 0, a right angle.

    Args:
        gram: Inner products of the deltas (float64, N x N, N >= 1).
        is_clamped: Whether to keep the factor within 0 and 1. Negative cosines then
            give 0; without, they give negative factors without bound.

    Returns:
        The factor. 1 for a single model, whose delta is all that is known; 0 where the
        denominator is 0 (deltas of equal lengths whose sum is zero).
    """
    import numpy as np

    n_models = len(gram)
    if n_models == 1:
        return 1.0
    products = gram.detach().cpu().double().numpy()
    norms = np.sqrt(products.diagonal())
    lengths = np.where(norms > 0.0, norms, 1.0)
    cosines = np.clip(products / lengths / lengths[:, None], -1.0, 1.0)
    pairs = cosines[np.triu_indices(n_models, 1)]
    return factor_of_cosine(float(pairs.mean()), n_models, is_clamped=is_clamped)


def factor_of_cosine(cosine: float, n_models: int, *, is_clamped: bool) -> float:
    """The same for a mean cosine that is known; see `stock_factor`."""
    denominator = 1.0 + (n_models - 1) * cosine
    if abs(denominator) < _LEAST_DENOMINATOR:
        return 0.0
    factor = n_models * cosine / denominator
    return min(max(factor, 0.0), 1.0) if is_clamped else factor
