"""Merge methods of every kind that the engine must serve, plain enough to check."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import torch

from lib_merge.core.declare import merge_method
from lib_merge.core.method import MergeMethod
from lib_merge.core.params import SEED, Param
from lib_merge.core.runs import Over, Place
from lib_merge.core.spaces import Delta, Weight
from lib_merge.methods._ops.draws import Draws, masked

_TEXT = {"label": "double", "formula": "double", "source": "double"}


def _norms(runs: Any, **params: Any) -> list[float]:
    sums: list[float] = []
    for run in runs:
        squares = [float(d.double().square().sum()) for d in run.inputs[-1]]
        sums = [a + b for a, b in zip(sums or [0.0] * len(squares), squares)]  # noqa: B905
    return [s**0.5 for s in sums]


@merge_method(**_TEXT, measure=_norms)
def by_norm(deltas: Iterable[Delta], *, measured: Any) -> Delta:
    """Mean of deltas by their norms over the whole tensor."""
    total = sum(measured) or 1.0
    merged = None
    for share, delta in zip(measured, deltas, strict=True):
        part = delta * (share / total)
        merged = part if merged is None else merged + part
    return merged


@merge_method(**_TEXT)
def dropped(
    deltas: Iterable[Delta],
    *,
    seed: Annotated[float, SEED] = 0,
    weight: Annotated[tuple[float, ...], Param(0, 9, per_model=True)] = (1.0,),
    place: Place,
) -> Delta:
    """Sum of deltas, half of each dropped."""
    merged, draws = None, None
    for model, share, delta in zip(place.models, weight, deltas, strict=True):
        draws = draws or Draws(place, len(delta), seed=seed, device=delta.device)
        part = masked(delta, draws.keep(model, 0.5)) * share
        merged = part if merged is None else merged + part
    return merged


@merge_method(**_TEXT, over=Over.ROWS)
def row_means(a: Weight) -> Weight:
    """Every value becomes the mean of its row."""
    return a.double().mean(dim=1, keepdim=True).to(a.dtype).expand_as(a)


@merge_method(**_TEXT, over=Over.SLABS, halo=2)
def slab_sums(a: Weight) -> Weight:
    """Every value becomes the sum over five neighbours along the first axis."""
    return neighbour_sum(a)


def neighbour_sum(a: torch.Tensor) -> torch.Tensor:
    """The sum over up to two entries on either side."""
    if a.ndim == 0:
        return a.clone()
    total = torch.zeros_like(a)
    for shift in range(-2, 3):
        first, last = max(0, shift), len(a) + min(0, shift)
        if last > first:
            total[first - shift : last - shift] += a[first:last]
    return total


@merge_method(**_TEXT, over=Over.TENSOR, workspace=1)
def reversed_delta(delta: Delta, *, lam: Annotated[float, Param(0, 1)] = 1.0) -> Delta:
    """The delta backwards."""
    return (delta.flatten().flip(0) * lam).reshape(delta.shape)


@merge_method(**_TEXT, over=Over.TENSOR)
def rotated_weights(a: Weight, b: Weight) -> Weight:
    """A plus B rolled by one over the whole tensor."""
    return a + b.flatten().roll(1).reshape(b.shape)


DOUBLES: tuple[MergeMethod, ...] = (
    by_norm,
    dropped,
    row_means,
    slab_sums,
    reversed_delta,
    rotated_weights,
)
