"""The stack that most methods on deltas are rows of.

Drop values at random, trim by magnitude, elect a sign, combine, scale: drop -> trim ->
elect -> combine -> scale. Every part may be left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from lib_merge.core.runs import Place, Runs
from lib_merge.methods._ops.consensus import Consensus, Elect, elected
from lib_merge.methods._ops.draws import Draws, masked
from lib_merge.methods._ops.gram import gram_of
from lib_merge.methods._ops.karcher import karcher_weights
from lib_merge.methods._ops.sparsify import (
    Limits,
    RankTable,
    find_limits,
    rank_tables,
    trimmed,
)
from lib_merge.methods._ops.stock import stock_factor
from lib_merge.methods._ops.weiszfeld import median_weights

if TYPE_CHECKING:
    from torch import Tensor


class Drop(IntEnum):
    """Which values are dropped by chance."""

    NONE = 0
    RANDOM = 1
    """Each with the same probability (DARE)."""

    MAGNITUDE = 2
    """By the rank of its magnitude in the tensor (DELLA)."""


class Trim(IntEnum):
    """Which values are dropped for their magnitude."""

    NONE = 0
    TOP = 1
    """All but the largest (TIES)."""

    BREADCRUMBS = 2
    """The largest outliers, and the smallest."""


class Combine(IntEnum):
    """How the models' values become one."""

    SUM = 0
    MEAN = 1
    """Over all models."""

    DISJOINT_MEAN = 2
    """Element by element over the models whose value is not zero (any more)."""

    MEDIAN = 3
    """The geometric median; a tensor is one point, with its zeros."""

    MODEL_STOCK = 4
    KARCHER = 5


@dataclass(frozen=True)
class Measured:
    """What a stack must know of whole tensors; empty where it needs nothing.

    Attributes:
        tables: Keep probabilities by magnitude, one table a model.
        limits: What trimming keeps, one a model.
        shares: Coefficients of the models where they follow from inner products.
    """

    tables: tuple[RankTable, ...] = ()
    limits: tuple[Limits, ...] = ()
    shares: tuple[float, ...] = ()


@dataclass(frozen=True)
class Stack:
    """A choice of parts and their numbers; see the method `stack` for their meaning.

    A method that is a row of the stack is one of these with its parts fixed, plus its
    own parameters, which `measure` and `merge` take by name.

    Attributes:
        drop: One of `Drop`.
        drop_rate: Probability to drop.
        epsilon: For `Drop.MAGNITUDE`, by how much keep probabilities differ.
        rescale: What is kept is divided by its keep probability to this power.
        seed: Of the draws.
        trim: One of `Trim`.
        density: Share that trimming keeps.
        outliers: For `Trim.BREADCRUMBS`, share of the largest that go.
        elect: One of `Elect`.
        combine: One of `Combine`.
        weight: One a model, for sums and means; None for 1 throughout. The median and
            Model Stock take none.
        eps: For the median, the least distance.
        n_iterations: For the median, the most steps.
        ftol: For the median, the relative change to stop at.
        lam: Factor of the result.
    """

    drop: float = Drop.NONE
    drop_rate: float = 0.0
    epsilon: float = 0.0
    rescale: float = 0.0
    seed: float = 0.0
    trim: float = Trim.NONE
    density: float = 1.0
    outliers: float = 0.0
    elect: float = Elect.NONE
    combine: float = Combine.SUM
    weight: tuple[float, ...] | None = None
    eps: float = 1e-6
    n_iterations: float = 100.0
    ftol: float = 1e-20
    lam: float = 1.0

    def measure(self, runs: Runs, **params: Any) -> Measured:
        """What must be known of the whole tensor; passes only for what is needed.

        Args:
            runs: Of the deltas.
            params: Fields of the stack, by name.
        """
        return replace(self, **params)._measure(runs)

    def merge(
        self,
        deltas: Iterable[Tensor],
        place: Place,
        measured: Measured | None = None,
        **params: Any,
    ) -> Tensor:
        """Merge one run, reading the pool once; the same values for every cut.

        Args:
            deltas: 1-D, one a model.
            place: Where the run lies.
            measured: From `measure`; None for stacks that need nothing.
            params: Fields of the stack, by name.

        Returns:
            A new tensor: the merged delta.
        """
        return replace(self, **params)._merge(deltas, place, measured or Measured())

    @property
    def is_ranked(self) -> bool:
        """Whether keep probabilities differ by magnitude."""
        return self.drop == Drop.MAGNITUDE and self.epsilon != 0.0

    @property
    def is_random(self) -> bool:
        """Whether one keep probability below 1 holds for all values."""
        return self.drop != Drop.NONE and not self.is_ranked and self.drop_rate > 0.0

    def _measure(self, runs: Runs) -> Measured:
        measured = Measured()
        if self.is_ranked:
            tables = rank_tables(
                (run.inputs[-1] for run in runs),
                runs.place.n_elements,
                drop_rate=self.drop_rate,
                epsilon=self.epsilon,
                rescale=self.rescale,
            )
            measured = Measured(tuple(tables))
        if self.trim != Trim.NONE:
            measured = replace(measured, limits=self._limits(runs, measured))
        if self.combine in (Combine.MEDIAN, Combine.MODEL_STOCK, Combine.KARCHER):
            measured = replace(measured, shares=self._shares(runs, measured))
        return measured

    def _limits(self, runs: Runs, measured: Measured) -> tuple[Limits, ...]:
        """Of what the drop has left: zeros it made count among the smallest."""
        found = find_limits(
            lambda: (self._sparse(run.inputs[-1], run.place, measured) for run in runs),
            runs.place.n_elements,
            density=self.density,
            outliers=self.outliers if self.trim == Trim.BREADCRUMBS else 0.0,
        )
        return tuple(found)

    def _shares(self, runs: Runs, measured: Measured) -> tuple[float, ...]:
        def points(pool: list[Tensor], place: Place) -> list[Tensor]:
            sparse = list(self._sparse(pool, place, measured))
            return elected(sparse, Elect(int(self.elect)))

        gram = gram_of(runs, points)
        if self.combine == Combine.MEDIAN:
            # Distances are those of the rescaled points, which eps is compared with.
            shares = median_weights(
                gram * self._factor() ** 2,
                eps=self.eps,
                n_iterations=int(self.n_iterations),
                ftol=self.ftol,
            )
        elif self.combine == Combine.MODEL_STOCK:
            shares = [stock_factor(gram) / len(gram)] * len(gram)
        else:
            shares = karcher_weights(gram, self.weight)
        return tuple(shares)

    def _merge(
        self, deltas: Iterable[Tensor], place: Place, measured: Measured
    ) -> Tensor:
        weights = self._weights(len(place.models), measured)
        sums = Consensus(
            Elect(int(self.elect)),
            is_disjoint=self.combine == Combine.DISJOINT_MEAN,
            is_uniform=all(weight == 1.0 for weight in weights),
        )
        sparse = self._sparse(deltas, place, measured)
        for values, weight in zip(sparse, weights, strict=True):
            sums.add(values, weight)
        return sums.merged().mul_(self.lam * self._factor())

    def _weights(self, n_models: int, measured: Measured) -> tuple[float, ...]:
        if measured.shares:
            return measured.shares
        weight = self.weight or (1.0,) * n_models
        total = sum(weight)
        if self.combine == Combine.MEAN:
            return tuple(w / total if total else 0.0 for w in weight)
        if self.combine == Combine.DISJOINT_MEAN and len({*weight}) == 1 and total:
            return (1.0,) * n_models
        return weight

    def _factor(self) -> float:
        """The rescaling where it is one number; 1 where nothing is kept."""
        if not self.is_random or self.drop_rate >= 1.0:
            return 1.0
        return float((1.0 - self.drop_rate) ** -self.rescale)

    def _sparse(
        self, deltas: Iterable[Tensor], place: Place, measured: Measured
    ) -> Iterator[Tensor]:
        """The deltas after drop and trim, as they are asked for."""
        draws: Draws | None = None
        for i, (model, delta) in enumerate(zip(place.models, deltas, strict=True)):
            values = delta
            if draws is None and (measured.tables or self.is_random):
                draws = Draws(place, delta.numel(), seed=self.seed, device=delta.device)
            if draws is not None and measured.tables:
                values = measured.tables[i].dropped(values, draws, model)
            elif draws is not None:
                values = masked(values, draws.keep(model, self.drop_rate))
            if measured.limits:
                values = trimmed(values, measured.limits[i])
            yield values
