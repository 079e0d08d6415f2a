"""Lays models out in two dimensions that keep their distances as well as can be."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib_merge.analysis.pairs import PairSums
from lib_merge.errors import InputError

Point = tuple[float, float]

Found = tuple[Any, "Point | None"]
"""Points, and what the axes show."""

_MIN_LEARNED = 4
_SEED = 0


@dataclass(frozen=True)
class ModelMap:
    """Models as points in a plane.

    Attributes:
        method: One of `METHODS`.
        points: One a model; identical models have one and the same.
        stress: Kruskal's stress-1 of the plane's distances against the true ones: 0 is
            a perfect map, above 0.2 is a poor one. Models at the edge do not count.
        shares: What each axis shows of all variation; None where axes mean nothing.
        at_edge: Models that stand beyond the others in about the right direction, but
            not as far away as they are.
    """

    method: str
    points: tuple[Point, ...]
    stress: float
    shares: Point | None = None
    at_edge: tuple[int, ...] = ()


def map_models(
    sums: PairSums, method: str = "mds", at_edge: Sequence[int] = ()
) -> ModelMap:
    """Lay models out.

    Args:
        sums: Of the part that counts.
        method: `mds`, classical multidimensional scaling: the plane in which the
            squared distances are kept best. `smacof`, metric scaling: begins there and
            moves the points until the stress falls no more, which tells groups apart
            that the plane lays over each other. `pca`: the two main directions of the
            changes, with the base as the origin. `tsne` and `umap` keep neighbours
            together and distort the rest; they need scikit-learn and umap-learn.
        at_edge: Models, outliers mostly, that the plane is found without, since they
            would leave no room for the others; put at its edge. At least two others
            must be left.

    Raises:
        InputError: An unknown method, a library is missing, or too few models.
    """
    check_method(method)
    edge = [i for i in at_edge if i != sums.base]
    inner = np.array([i for i in range(sums.n_models) if i not in edge])
    squares = sums.squares[np.ix_(inner, inner)]
    base = int(np.flatnonzero(inner == sums.base)[0])
    found, shares = _places(squares, base, method)
    points = np.zeros((sums.n_models, 2))
    points[inner] = found
    for i in edge:
        points[i] = _edge_point(sums.squares[i, inner], squares, found)
    return ModelMap(
        method=method,
        points=tuple((float(x), float(y)) for x, y in points),
        stress=stress(squares, found),
        shares=shares,
        at_edge=tuple(edge),
    )


def _places(squares: Any, base: int, method: str) -> Found:
    """Points of some models, identical ones at one place."""
    firsts, copy_of = _distinct(squares)
    own = int(copy_of[base])
    found, shares = METHODS[method](squares[np.ix_(firsts, firsts)], own)
    return _settled(found, own if method == "pca" else None)[copy_of], shares


def _edge_point(far: Any, squares: Any, points: Any) -> Any:
    """Gower's place of a further point, brought back to just beyond the others.

    Args:
        far: Its squared distances from the others.
        squares: Those of the others.
        points: Of the others.
    """
    middle = points.mean(axis=0)
    around = points - middle
    lean = squares.mean(axis=0) - far
    place = np.linalg.pinv(around) @ (lean - lean.mean()) / 2
    reach = float(np.sqrt((around**2).sum(axis=1)).max()) or 1.0
    length = float(np.sqrt((place**2).sum()))
    way = place / length if length > 0 else np.array([1.0, 0.0])
    return middle + 1.25 * reach * way


def check_method(method: str) -> None:
    """See whether a map method can be used.

    Raises:
        InputError: It is unknown, or its library is missing; says what to do.
    """
    if method not in METHODS:
        raise InputError(
            f"There is no map method '{method}'; known: {', '.join(METHODS)}."
        )
    if method in _LIBRARIES:
        _library(method)


def stress(squares: Any, points: Any) -> float:
    """Kruskal's stress-1: sqrt(sum (d - d')^2 / sum d^2) over all pairs.

    Args:
        squares: True squared distances.
        points: N x 2.
    """
    whole = squares.sum()
    if whole <= 0:
        return 0.0
    gaps = _drawn(np.asarray(points)) - np.sqrt(squares)
    return float(np.sqrt((gaps**2).sum() / whole))


def _drawn(points: Any) -> Any:
    """Distances in the plane."""
    gaps = points[:, None] - points[None, :]
    return np.sqrt((gaps**2).sum(axis=2))


def _distinct(squares: Any) -> tuple[Any, Any]:
    """One of each group of identical models, and for every model which of these."""
    first_equal = (squares == 0).argmax(axis=1)
    return np.unique(first_equal, return_inverse=True)


def _settled(points: Any, base: int | None) -> Any:
    """One of the mirror images: the farthest point of each axis on its positive side.

    Args:
        points: N x 2.
        base: The point that is to be the origin exactly, if any.
    """
    if base is not None:
        points = points - points[base]
    farthest = np.abs(points).argmax(axis=0)
    signs = np.sign(points[farthest, [0, 1]])
    return points * np.where(signs == 0, 1.0, signs) + 0.0


def _mds(squares: Any, base: int) -> Found:
    """Torgerson's classical scaling: the doubly centred squares, their main axes."""
    rows = squares.mean(axis=0)
    centred = -0.5 * (squares - rows - rows[:, None] + rows.mean())
    return _main_axes(centred)


_MOST_STEPS = 1000
_LEAST_GAIN = 1e-9


def _smacof(squares: Any, base: int) -> Found:
    """De Leeuw's majorisation: each step lowers the sum of (d - d')^2."""
    points = _mds(squares, base)[0]
    true = np.sqrt(squares)
    before = np.inf
    for _ in range(_MOST_STEPS):
        drawn = _drawn(points)
        left = float(((drawn - true) ** 2).sum())
        if before - left <= _LEAST_GAIN * left:
            break
        before = left
        ratios = np.where(drawn > 0, true / np.where(drawn > 0, drawn, 1.0), 0.0)
        np.fill_diagonal(ratios, 0.0)
        pull = np.diag(ratios.sum(axis=1)) - ratios
        points = pull @ points / len(points)
    # Turned so that the longer side lies level, as the axes mean nothing any more.
    return _main_axes(_centred_products(points))[0], None


def _centred_products(points: Any) -> Any:
    around = points - points.mean(axis=0)
    return around @ around.T


def _pca(squares: Any, base: int) -> Found:
    far = squares[base]
    return _main_axes((far[:, None] + far[None, :] - squares) / 2)


def _main_axes(products: Any) -> Found:
    """Coordinates of points along their two longest axes, from inner products."""
    values, vectors = np.linalg.eigh(products)
    values = np.maximum(values[::-1], 0.0)
    points = np.zeros((len(products), 2))
    n_axes = min(2, len(values))
    points[:, :n_axes] = (vectors[:, ::-1] * np.sqrt(values))[:, :n_axes]
    whole = float(values.sum())
    shares = [float(v) / whole if whole > 0 else 0.0 for v in values[:2]]
    return points, (shares[0], shares[1] if len(shares) > 1 else 0.0)


def _tsne(squares: Any, base: int) -> Found:
    manifold = _library("tsne")
    start = _start(squares, base, "tsne")
    tsne = manifold.TSNE(
        metric="precomputed",
        perplexity=min(30.0, (len(squares) - 1) / 3),
        init=(start / max(float(start.std()), 1e-300) * 1e-4).astype(np.float32),
        random_state=_SEED,
    )
    return _scaled(tsne.fit_transform(np.sqrt(squares)), squares), None


def _umap(squares: Any, base: int) -> Found:
    umap = _library("umap")
    start = _start(squares, base, "umap")
    reducer = umap.UMAP(
        metric="precomputed",
        n_neighbors=min(15, len(squares) - 1),
        init=(start / max(float(np.abs(start).max()), 1e-300) * 10).astype(np.float32),
        random_state=_SEED,
    )
    return _scaled(reducer.fit_transform(np.sqrt(squares)), squares), None


def _scaled(points: Any, squares: Any) -> Any:
    """Learned points at the size at which their distances are the least wrong."""
    points = np.asarray(points, dtype=np.float64)
    drawn = _drawn(points)
    size = float((drawn**2).sum())
    return points * (float((drawn * np.sqrt(squares)).sum()) / size if size else 1.0)


def _start(squares: Any, base: int, method: str) -> Any:
    """Where a method that learns begins: the plane of classical scaling."""
    if len(squares) < _MIN_LEARNED:
        raise InputError(
            f"A {method} map needs {_MIN_LEARNED} different models, there are "
            f"{len(squares)}; use mds."
        )
    return _mds(squares, base)[0]


_LIBRARIES = {
    "tsne": ("sklearn.manifold", "scikit-learn"),
    "umap": ("umap", "umap-learn"),
}
"""Map method -> module and package, which are not among the requirements."""


def _library(method: str) -> Any:
    module, package = _LIBRARIES[method]
    try:
        return importlib.import_module(module)
    except ImportError as fault:
        raise InputError(
            f"A {method} map needs {package}, which is not installed ({fault}); "
            f"run 'pip install {package}' or use mds or pca."
        ) from fault


METHODS: dict[str, Callable[[Any, int], Found]] = {
    "mds": _mds,
    "smacof": _smacof,
    "pca": _pca,
    "tsne": _tsne,
    "umap": _umap,
}
"""What a map can be made by."""
