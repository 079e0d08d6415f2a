"""Runs methods on cut-up tensors, as the engine does, and holds them to the whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lib_merge.core.method import MergeMethod, row_elements
from lib_merge.core.runs import Over, Place, Run


@dataclass(frozen=True)
class CutRuns:
    """All inputs of a method in flat runs of any length (its base, if any, first)."""

    method: MergeMethod
    tensors: Sequence[Tensor]
    place: Place
    step: int

    def __iter__(self) -> Iterator[Run]:
        flat = [tensor.reshape(-1) for tensor in self.tensors]
        for start in range(0, self.place.n_elements, self.step):
            parts = [tensor[start : start + self.step] for tensor in flat]
            base = parts[0] if self.method.has_base else None
            args = self.method.arguments(parts.__getitem__, range(len(parts)), base)
            yield Run(args, replace(self.place, start=start))


def merge_in_cuts(
    method: MergeMethod, tensors: Sequence[Tensor], step: int, **params: Any
) -> Tensor:
    """Merge run by run; `step` values a run, or rows where the method sees rows."""
    n_pool = len(tensors) - method.n_single if method.is_pool else 0
    place = Place("key", tuple(tensors[0].shape), 0, tuple(range(n_pool)))
    given = {spec.name: spec.default for spec in method.params} | params
    extra: dict[str, Any] = {}
    if method.measure is not None:
        measured_step = max(1, place.n_elements)
        runs = CutRuns(method, tensors, place, measured_step)
        extra["measured"] = method.measure(runs, **given)
    width = row_elements(place.shape) if method.over is Over.ROWS else 1
    parts = [torch.empty(0, dtype=tensors[0].dtype)]
    for run in CutRuns(method, tensors, place, step * width):
        if method.wants_place:
            extra["place"] = run.place
        args = [_shaped(method, values, place.shape) for values in run.inputs]
        parts.append(method.function(*args, **given, **extra).reshape(-1))
    merged = torch.cat(parts).reshape(place.shape)
    return tensors[0] + merged if method.result.value == "delta" else merged


def _shaped(method: MergeMethod, values: Any, shape: tuple[int, ...]) -> Any:
    if isinstance(values, Tensor):
        return method.shaped(values, shape)
    return (method.shaped(each, shape) for each in values)


def models(n: int, shape: tuple[int, ...], *, seed: int = 0) -> list[Tensor]:
    """Related models in float32: a common part and a difference of each."""
    generator = torch.Generator().manual_seed(seed + math.prod(shape))
    common = torch.randn(shape, generator=generator)
    return [common + 0.3 * torch.randn(shape, generator=generator) for _ in range(n)]
