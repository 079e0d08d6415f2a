"""Settings and inputs to try every method with, and tensors cut into parts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from lib_merge.core.method import MergeMethod, row_elements
from lib_merge.core.params import ParamSpec
from lib_merge.core.runs import Over, Place, Run, run_elements
from lib_merge.core.seeds import derive_seed
from lib_merge.core.spaces import Space

Params = dict[str, Any]

KEY = "model.diffusion_model.input_blocks.1.0.weight"

FILLS: dict[str, Callable[[int, tuple[int, ...]], Tensor]] = {
    "random": lambda i, shape: torch.randn(
        shape, generator=torch.Generator().manual_seed(derive_seed("fill", i))
    ),
    "zero": lambda i, shape: torch.zeros(shape),
    "equal": lambda i, shape: torch.full(shape, 0.25),
    "opposite": lambda i, shape: torch.ones(shape) * (-1) ** i,
    "constant": lambda i, shape: torch.full(shape, float(i) - 0.5),
    "tiny": lambda i, shape: torch.full(shape, 1e-30 * (i + 1)),
    "half's largest": lambda i, shape: torch.full(shape, 65504.0 * (-1) ** i),
}


def model_counts(method: MergeMethod) -> tuple[int, ...]:
    """How many models to try: pools of 1, 2 and 5."""
    if not method.is_pool:
        return (method.min_models,)
    return tuple(method.n_single + n for n in (1, 2, 5))


def models(
    n_models: int,
    fill: str,
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """So many tensors of one fill."""
    return [FILLS[fill](i, shape).to(dtype) for i in range(n_models)]


def settings(method: MergeMethod, n_models: int) -> list[Params]:
    """Settings to try, with a tuple for every per-model parameter.

    The defaults come first; then every parameter alone at each end (a choice at each
    name), all at the low end, all at the high end, and a few drawn at random.
    """
    n_pool = n_models - method.n_single
    draw = random.Random(derive_seed("settings", method.id))
    plain = _params(method, n_pool, lambda spec, _: spec.default)
    found = [plain]
    for spec in method.params:
        found += [
            plain | {spec.name: _value(spec, n_pool, lambda *_, end=end: end)}
            for end in _ends(spec)
        ]
        if spec.param.per_model and n_pool > 1:
            found.append(plain | {spec.name: _value(spec, n_pool, _spread(n_pool))})
    if len(method.params) > 1:
        found.append(_params(method, n_pool, lambda spec, _: spec.param.low))
        found.append(_params(method, n_pool, lambda spec, _: spec.param.high))
    if method.params:
        found += [
            _params(method, n_pool, lambda spec, _: _drawn(spec, draw))
            for _ in range(3)
        ]
    return [params for i, params in enumerate(found) if params not in found[:i]]


def _ends(spec: ParamSpec) -> list[float]:
    if spec.param.choices:
        return [float(i) for i in range(len(spec.param.choices))]
    return [spec.param.low, spec.param.high]


def _drawn(spec: ParamSpec, draw: random.Random) -> float:
    value = draw.uniform(spec.param.low, spec.param.high)
    return float(round(value)) if spec.param.is_integer else value


def _spread(n_pool: int) -> Callable[[ParamSpec, int], float]:
    """Another value for every model, over the whole range."""

    def value(spec: ParamSpec, index: int) -> float:
        low, high = spec.param.low, spec.param.high
        spread = low + (high - low) * index / (n_pool - 1)
        return float(round(spread)) if spec.param.is_integer else spread

    return value


def _value(
    spec: ParamSpec, n_pool: int, value: Callable[[ParamSpec, int], float]
) -> float | tuple[float, ...]:
    if spec.param.per_model:
        return tuple(value(spec, i) for i in range(n_pool))
    return value(spec, 0)


def _params(
    method: MergeMethod, n_pool: int, value: Callable[[ParamSpec, int], float]
) -> Params:
    return {spec.name: _value(spec, n_pool, value) for spec in method.params}


@dataclass
class WholeRuns:
    """The runs of whole tensors, as `measure` gets them; counts the passes.

    Attributes:
        method: The method that measures.
        tensors: One a model.
        place: Of the whole tensor.
        n_passes: How often they were gone through so far.
    """

    method: MergeMethod
    tensors: list[Tensor]
    place: Place
    n_passes: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[Run]:
        self.n_passes += 1
        step = run_elements(len(self.tensors))
        flat = [tensor.reshape(-1) for tensor in self.tensors]
        for start in range(0, self.place.n_elements, step):
            parts = [tensor[start : start + step] for tensor in flat]
            args = _arguments(self.method, parts)
            yield Run(args, replace(self.place, start=start))


class Whole:
    """What an engine does that measures the whole and then merges part after part.

    Args:
        method: The method.
        tensors: One a model.
        params: As from `settings`.
        left_out: Positions in the pool of which the tensors and the parameters hold
            nothing, though later positions are there.
    """

    def __init__(
        self,
        method: MergeMethod,
        tensors: list[Tensor],
        params: Mapping[str, Any],
        *,
        left_out: tuple[int, ...] = (),
    ) -> None:
        n_pool = len(tensors) - method.n_single if method.is_pool else 0
        seats = [i for i in range(n_pool + len(left_out)) if i not in left_out]
        self._method = method
        self._tensors = tensors
        self._place = Place(KEY, tuple(tensors[0].shape), 0, tuple(seats))
        self._extra = dict(params)
        if method.measure is not None:
            runs = WholeRuns(method, tensors, self._place)
            self._extra["measured"] = method.measure(runs, **params)

    def merged(self, n_units: int) -> Tensor:
        """The merge, made of parts.

        Args:
            n_units: Values, rows or entries of the first axis a part, by what the
                method must see at once.
        """
        n_elements = self._place.n_elements
        step = n_units * _unit(self._method, self._place.shape)
        parts = [torch.empty(0, dtype=self._tensors[0].dtype)]
        for start in range(0, n_elements, step):
            parts.append(self._part(start, min(start + step, n_elements)))
        return torch.cat(parts).reshape(self._place.shape)

    def _part(self, start: int, stop: int) -> Tensor:
        method, shape = self._method, self._place.shape
        reach = method.halo * _unit(method, shape)
        first = max(0, start - reach)
        last = min(self._place.n_elements, stop + reach)
        extra = dict(self._extra)
        if method.wants_place:
            extra["place"] = replace(self._place, start=first)
        seen = [method.shaped(t.reshape(-1)[first:last], shape) for t in self._tensors]
        values = method.function(*_arguments(method, seen), **extra)
        assert values.shape == seen[0].shape
        if method.result is Space.DELTA:
            values = seen[0] + values
        return values.reshape(-1)[start - first : stop - first]


def _arguments(method: MergeMethod, tensors: list[Tensor]) -> tuple[Any, ...]:
    base = tensors[0] if method.has_base else None
    return method.arguments(tensors.__getitem__, range(len(tensors)), base)


def _unit(method: MergeMethod, shape: tuple[int, ...]) -> int:
    if method.over is Over.ROWS:
        return row_elements(shape)
    if method.over is Over.SLABS:
        return max(1, torch.Size(shape[1:]).numel())
    if method.over is Over.TENSOR:
        return max(1, torch.Size(shape).numel())
    return 1
