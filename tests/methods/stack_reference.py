"""The stack in plain numpy and float64, on whole arrays; only the draws are given."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from lib_merge.core.method import MergeMethod
from lib_merge.core.runs import Place
from lib_merge.methods import methods
from lib_merge.methods._ops.draws import Draws

Array = NDArray[np.float64]

KEY = "a.key"
SEED = 11


def deltas(n: int, shape: tuple[int, ...], *, seed: int = 0) -> list[Tensor]:
    """Deltas of different sizes in float64, exact in float32, some of them 0."""
    draw = torch.Generator().manual_seed(seed)
    pool = []
    for i in range(n):
        values = torch.randn(shape, generator=draw) * 2.0 ** (i % 3 - 9)
        values *= torch.rand(shape, generator=draw) > 0.1
        pool.append(values.double())
    return pool


def merged(method_id: str, pool: list[Tensor], **params: Any) -> Tensor:
    """What a method makes of deltas, from a base of zeros."""
    base = torch.zeros_like(pool[0])
    result: Tensor = _method(method_id).call_with([base, *pool], params, KEY)
    return result


def _method(method_id: str) -> MergeMethod:
    return methods().get(method_id)


def uniform(n_models: int, n_elements: int) -> Array:
    """The draws of a pool: a row for each model."""
    place = Place(KEY, (n_elements,), 0, tuple(range(n_models)))
    draws = Draws(place, n_elements, seed=SEED, device=torch.device("cpu"))
    return np.array([draws.uniform(i).numpy() for i in range(n_models)])


def reference(
    pool: list[Tensor],
    *,
    drop: str = "none",
    drop_rate: float = 0.0,
    epsilon: float = 0.0,
    rescale: float = 0.0,
    trim: str = "none",
    density: float = 1.0,
    outliers: float = 0.0,
    elect: str = "none",
    combine: str = "sum",
    weight: tuple[float, ...] | None = None,
    eps: float = 1e-6,
    lam: float = 1.0,
) -> Tensor:
    """The merged delta."""
    points = np.array([delta.double().numpy().reshape(-1) for delta in pool])
    if points.shape[1] == 0:
        return pool[0].clone()
    if drop != "none":
        rates = np.array([keep_rates(p, drop_rate, epsilon, drop) for p in points])
        # Draws are multiples of 2^-31.
        dropped_below = np.round((1.0 - rates) * 2.0**31) / 2.0**31
        is_kept = uniform(*points.shape) >= dropped_below
        scale = np.where(is_kept & (rates > 0.0), rates, 1.0) ** -rescale
        points = np.where(is_kept, points * scale, 0.0)
    if trim != "none":
        outliers = outliers if trim == "breadcrumbs" else 0.0
        points = np.array([trimmed(p, density, outliers) for p in points])
    if elect != "none":
        votes = points if elect == "magnitude" else np.sign(points)
        points = np.where(np.sign(points) == np.sign(votes.sum(axis=0)), points, 0.0)
    weights = np.ones(len(pool)) if weight is None else np.array(weight)
    total = combined(points, combine, weights[:, None], eps)
    return torch.from_numpy(lam * total).reshape(pool[0].shape)


def keep_rates(delta: Array, drop_rate: float, epsilon: float, drop: str) -> Array:
    if drop == "random":
        return np.full(len(delta), 1.0 - drop_rate)
    n = len(delta)
    ranks = rankdata(quantised(delta), method="average")
    centred = ranks / n - (n + 1) / (2 * n)
    return np.clip(1.0 - drop_rate + epsilon * centred, 0.0, 1.0)


def quantised(delta: Array) -> NDArray[np.int64]:
    bits = np.abs(delta).astype(np.float32).view(np.int32)
    return (bits >> 15).astype(np.int64)


def trimmed(delta: Array, density: float, outliers: float) -> Array:
    magnitudes = np.abs(delta).astype(np.float32)
    ascending = np.sort(magnitudes)
    n = len(delta)
    n_large = int(n * outliers + 1e-9)
    n_small = int(n * (1.0 - density) + 1e-9)
    low = ascending[max(n_small - n_large, 1) - 1]
    high = ascending[n - n_large - 1]
    return np.where((magnitudes >= low) & (magnitudes <= high), delta, 0.0)


def combined(points: Array, combine: str, weights: Array, eps: float) -> Array:
    if combine == "sum":
        return np.asarray((weights * points).sum(axis=0))
    if combine == "mean":
        return np.asarray((weights * points).sum(axis=0) / max(weights.sum(), 1e-300))
    if combine == "disjoint_mean":
        counted = (weights * (points != 0.0)).sum(axis=0)
        return (weights * points).sum(axis=0) / np.where(counted > 0, counted, 1.0)
    if combine == "geometric_median":
        return median(points, eps)
    assert combine == "model_stock"
    return stock(points)


def median(points: Array, eps: float) -> Array:
    found = points.mean(axis=0)
    for _ in range(100):
        distances = np.linalg.norm(points - found, axis=1)
        weights = 1.0 / np.maximum(distances, eps)
        found = weights @ points / weights.sum()
    return np.asarray(found)


def stock(points: Array) -> Array:
    n = len(points)
    if n == 1:
        return points[0]
    units = points / np.maximum(np.linalg.norm(points, axis=1), 1e-300)[:, None]
    cosine = ((units @ units.T).sum() - np.trace(units @ units.T)) / (n * (n - 1))
    factor = n * cosine / (1 + (n - 1) * cosine)
    return np.asarray(min(max(factor, 0.0), 1.0) * points.mean(axis=0))
