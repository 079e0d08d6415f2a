"""SCE: select what varies most, weigh models by its energy, erase minority signs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from lib_merge.core.declare import merge_method
from lib_merge.core.runs import Runs
from lib_merge.core.spaces import Delta
from lib_merge.methods._ops.consensus import Consensus, Elect
from lib_merge.methods._ops.draws import at_least, masked
from lib_merge.methods._ops.sparsify import find_limits
from lib_merge.methods._ops.stack_params import DENSITY, LAM

if TYPE_CHECKING:
    from torch import Tensor

# Sums of so many values are never shared between threads.
_PIECE = 1 << 14


@dataclass(frozen=True)
class _Measured:
    """The least spread that is selected, and the models' energies; see `sce`."""

    least_spread: float
    energies: tuple[float, ...]


def _measure(runs: Runs, *, density: float, **_: Any) -> _Measured:
    def spreads() -> Iterable[Iterable[Tensor]]:
        return ([_spread(run.inputs[0])] for run in runs)

    limits = find_limits(spreads, runs.place.n_elements, density=density)
    least = limits[0].low if limits else 0.0
    energies = [0.0] * len(runs.place.models)
    for run in runs:
        pool = list(run.inputs[0])
        spread = _spread(pool)
        for i, delta in enumerate(pool):
            energies[i] += _energy(_selected(delta, spread, least))
    return _Measured(least, tuple(energies))


def _spread(deltas: Iterable[Tensor]) -> Tensor:
    spread = _Spread()
    for delta in deltas:
        spread.add(delta)
    return spread.squares()


def _selected(values: Tensor, spread: Tensor, least: float) -> Tensor:
    if least <= 0.0:
        return values
    return masked(values, at_least(spread, least))


def _energy(values: Tensor) -> float:
    squares = values.double().square_()
    pieces = (squares[i : i + _PIECE] for i in range(0, len(squares), _PIECE))
    return math.fsum(float(piece.sum()) for piece in pieces)


class _Spread:
    """The sum of squared differences from the mean, model by model (Welford).

    Exactly 0 where all are equal. Rounded after every operation, so that the fate of a
    value does not depend on where the tensor is cut.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean: Tensor | None = None
        self._squares: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """Take in the next model's values."""
        import torch

        self._count += 1
        if self._mean is None or self._squares is None:
            self._mean, self._squares = values.clone(), torch.zeros_like(values)
            return
        ahead = values - self._mean
        self._mean.add_(ahead / self._count)
        self._squares.add_(ahead.mul_(values - self._mean))

    def squares(self) -> Tensor:
        """The sums, one a value.

        Raises:
            ValueError: No model was added.
        """
        if self._squares is None:
            raise ValueError("sce needs at least one model.")
        return self._squares


@merge_method(
    label="SCE (select, calculate, erase)",
    formula="base + lam * mean of selected deltas by their energy, minority erased",
    source="Wan et al., FuseChat: Knowledge Fusion of Chat Models, 2024, "
    "https://arxiv.org/abs/2408.07990",
    measure=_measure,
    n_passes=3,
)
def sce(
    deltas: Iterable[Delta],
    *,
    density: Annotated[float, DENSITY] = 0.1,
    lam: Annotated[float, LAM] = 1.0,
    measured: Any,
) -> Delta:
    """Merge where models differ most, by how much each changed there.

    Formula: select the elements whose variance across the deltas is at least the
    max(floor((1 - density) * n), 1)-th smallest of the tensor's n, compared as float32;
    w_t = sum over the tensor of the squares of the selected delta_t; gamma = sgn(sum of
    delta_t), element by element; base + lam * sum(w_t * delta_t) / sum(w_t) over the
    models whose delta is selected and has the sign gamma; elsewhere the base.

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64);
    the squares are summed in float64.

    Args:
        deltas: What each model differs from the base by; read once, in order.
        density: Share of the elements that is selected. At 1 all are; at 0 the one of
            largest variance, and all that equal it.
        lam: Factor of the merged delta. At 0 the result is the base.
        measured: The variance to reach, and the models' weights.

    Degenerate inputs: the variance of one model or of equal ones is 0 everywhere, so
    that all is selected: one model is that model, equal models give it to rounding; an
    opposite pair gives the base exactly; a zero delta (the base in the pool) takes part
    in the variance only; constant tensors and single elements are selected; empty stays
    empty.

    Source: Wan et al., FuseChat: Knowledge Fusion of Chat Models, 2024,
    https://arxiv.org/abs/2408.07990. Other programs select among the elements of
    nonzero variance only, so that equal models give the base; we count all elements, as
    TIES does.
    """
    spread, total = _Spread(), sum(measured.energies)
    sums = Consensus(Elect.MAGNITUDE, is_disjoint=True)
    for delta, energy in zip(deltas, measured.energies, strict=True):
        spread.add(delta)
        sums.add(delta, energy / total if total else 1.0)
    merged = sums.merged().mul_(lam)
    return _selected(merged, spread.squares(), measured.least_spread)
