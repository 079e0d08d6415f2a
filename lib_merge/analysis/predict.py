"""Tells where a merge of some models would lie, before anything is merged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lib_merge.analysis._scan import Spot, TileSample
from lib_merge.analysis.comparison import Prediction
from lib_merge.analysis.models import CommonKey, ModelSet
from lib_merge.analysis.pairs import RowSums
from lib_merge.core.method import MergeMethod
from lib_merge.core.runs import Place
from lib_merge.core.seeds import derive_seed
from lib_merge.methods import methods
from lib_merge.methods._ops.weiszfeld import median_weights

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_SHARE = 0.125
"""Share of the values that methods are tried on which need the values themselves."""

_UNIFORM, _MEDIAN = "uniform_soup", "geometric_median"
_TRIED = ("ties_soup", "tsd")
_MIN_TILES = 2


def mixture_distances(squares: Any, shares: Any) -> Any:
    """Distance of a mixture of models from each of them, exactly.

    Formula: ||m - M_j||^2 = sum_i s_i D_ij - 1/2 sum_ik s_i s_k D_ik, where D_ij are
    squared distances and m = sum_i s_i M_i.

    Args:
        squares: Squared distances, N x N.
        shares: One a model, with sum 1; 0 for models that have no part in it.

    Returns:
        Squared distances of m, N.
    """
    to_mixture = squares @ shares
    return np.maximum(to_mixture - 0.5 * (shares @ to_mixture), 0.0)


@dataclass(eq=False)
class _Tally:
    """Squared distances of one method and component, summed up over keys."""

    squares: Any
    variances: Any
    n_looked: int = 0
    n_values: int = 0


class Predictor:
    """Looks on while models are compared, and sums up where merges would lie.

    The mean follows from the squared distances of the models. So does the geometric
    median, once the shares of the models are known, tensor by tensor; they follow from
    the distances, too. TIES-SOUP and TSD need the values: they are computed on a share
    of each tensor's tiles, spread evenly, and scaled by what the tiles have of the sum
    of all squared changes (a ratio estimate), with a standard error from how the tiles
    differ.

    Args:
        models: Which are compared; a base given apart is not in the pool.
        share: Share of the tiles to try methods on; 1 takes all, and is exact.
        params: Parameters of methods by id; defaults elsewhere.
    """

    def __init__(
        self,
        models: ModelSet,
        *,
        share: float = DEFAULT_SHARE,
        params: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        n_models = len(models.headers)
        others = [i for i in range(n_models) if i != models.base]
        row_of = {model: row for row, model in enumerate([models.base, *others])}
        self._pool = [row_of[i] for i in range(models.n_apart, n_models)]
        self._n_rows = n_models
        self._share = share
        self._params = params or {}
        self._tried = [m for m in methods() if m.id in _TRIED]
        self._tallies: dict[tuple[str, str], _Tally] = {}

    def look(self, spot: Spot, values: Tensor) -> TileSample | None:
        """Try the methods on a tile, if it is one of the chosen."""
        if not _is_chosen(spot, self._share):
            return None
        import torch

        changes = [
            values[row] if row else torch.zeros_like(values[0]) for row in self._pool
        ]
        squares = np.zeros((len(self._tried), self._n_rows))
        for i, method in enumerate(self._tried):
            merged = self._merge(method, changes, spot)
            gaps = values - merged
            squares[i] = gaps.square_().sum(dim=1).numpy()
            squares[i, 0] = float(merged.square().sum())
        scale = float(values[1:].square().sum())
        return TileSample(squares, scale, n_values=len(values[0]))

    def _merge(
        self, method: MergeMethod, changes: Sequence[Tensor], spot: Spot
    ) -> Tensor:
        params: dict[str, Any] = {spec.name: spec.default for spec in method.params}
        params.update(self._params.get(method.id, {}))
        if method.wants_place:
            models = tuple(range(len(changes)))
            shape = (spot.key.n_values,)
            params["place"] = Place(spot.key.key, shape, spot.start, models)
        merged: Tensor = method.function(iter(changes), **params)
        return merged

    def finish(
        self, key: CommonKey, sums: RowSums, samples: Sequence[TileSample]
    ) -> None:
        """Add a tensor up."""
        shares = np.zeros(self._n_rows)
        shares[self._pool] = 1.0 / len(self._pool)
        self._add(key, _UNIFORM, mixture_distances(sums.squares, shares))
        shares[self._pool] = self._median_shares(sums)
        self._add(key, _MEDIAN, mixture_distances(sums.squares, shares))
        n_looked = sum(sample.n_values for sample in samples)
        scale = float(sums.squares[0].sum())
        for i, method in enumerate(self._tried):
            tiles = np.array([sample.squares[i] for sample in samples])
            scales = np.array([sample.scale for sample in samples])
            is_all = n_looked == key.n_values
            squares, variances = _estimate(tiles, scales, scale, is_all=is_all)
            self._add(key, method.id, squares, variances, n_looked)

    def _median_shares(self, sums: RowSums) -> list[float]:
        import torch

        squares = sums.squares[np.ix_(self._pool, self._pool)]
        # Inner products with the first model of the pool as the origin.
        gram = (squares[0][:, None] + squares[0][None, :] - squares) / 2
        return median_weights(torch.from_numpy(gram))

    def _add(
        self,
        key: CommonKey,
        method: str,
        squares: Any,
        variances: Any = 0.0,
        n_looked: int | None = None,
    ) -> None:
        place = (method, key.component.value)
        zero = np.zeros(self._n_rows)
        tally = self._tallies.setdefault(place, _Tally(zero, zero.copy()))
        tally.squares += squares
        tally.variances += variances
        tally.n_values += key.n_values
        tally.n_looked += key.n_values if n_looked is None else n_looked

    def predictions(self, rows: Any) -> tuple[Prediction, ...]:
        """What was found.

        Args:
            rows: The row of each model.
        """
        found = []
        for (method, part), tally in self._tallies.items():
            distances = np.sqrt(np.maximum(tally.squares, 0.0))[rows]
            errors = np.sqrt(tally.variances[rows])
            # The error of a square root, from that of what is under it.
            errors /= np.maximum(2 * distances, 1e-300)
            share = tally.n_looked / tally.n_values if tally.n_values else 1.0
            found.append(
                Prediction(
                    method=method,
                    part=part,
                    distances=tuple(float(d) for d in distances),
                    errors=tuple(float(e) for e in errors),
                    share=share,
                )
            )
        return tuple(found)


def _is_chosen(spot: Spot, share: float) -> bool:
    """Whether a tile is one of an even choice of its tensor's tiles."""
    n_chosen = max(_MIN_TILES, math.ceil(spot.n_tiles * share))
    if n_chosen >= spot.n_tiles:
        return True
    offset = derive_seed(0, "predict", spot.key.key) % (1 << 20) / (1 << 20)
    step = spot.n_tiles / n_chosen
    nearest = int((spot.index / step) - offset)
    return any(
        int((number + offset) * step) == spot.index for number in (nearest, nearest + 1)
    )


def _estimate(
    tiles: Any, scales: Any, scale: float, *, is_all: bool
) -> tuple[Any, Any]:
    """Sums over a whole tensor from those of some tiles, and their variances."""
    sums = tiles.sum(axis=0)
    seen = float(scales.sum())
    if is_all or scale <= 0.0:
        return sums, np.zeros_like(sums)
    if seen <= 0.0:  # All that changed lies elsewhere.
        return sums, np.full_like(sums, scale**2)
    ratio = sums / seen
    gaps = tiles - scales[:, None] * ratio
    n_tiles = len(tiles)
    spread = (gaps**2).sum(axis=0) * n_tiles / max(n_tiles - 1, 1)
    unseen = max(0.0, 1.0 - seen / scale)
    return ratio * scale, spread * (scale / seen) ** 2 * unseen
