"""A merge method as a value: its function and all that its signature declares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lib_merge.core.params import ParamSpec
from lib_merge.core.runs import Over, Place, Run, run_elements
from lib_merge.core.spaces import Space

Measure = Callable[..., Any]
"""`measure(runs, **params)`: what a method must know of the whole tensor."""

Workspace = float | Callable[[tuple[int, ...], int], float]
"""Memory that a function takes: tensors of the result's size, or bytes by shape."""

BASE = "base"
"""The name of the input that deltas are taken from."""


@dataclass(frozen=True)
class InputSpec:
    """A declared input: one model, or any number of them.

    Attributes:
        name: The argument's name (base, a, b, c, models ...).
        space: What its numbers mean.
        is_pool: True when it takes any number of models (an iterable).
    """

    name: str
    space: Space
    is_pool: bool


@dataclass(frozen=True)
class MergeMethod:
    """A merge method: its function and everything its signature declares.

    Attributes:
        id: The function's and the file's name; permanent.
        label: What people call it.
        formula: One line of plain text.
        source: Authors, title, year, link; or where the field has it from.
        inputs: In order; a base first where the method works on deltas, a pool last.
        params: In order of declaration.
        function: Pure: tensors in, one tensor out, same shape and dtype.
        doc: Its docstring.
        result: Whether the function returns a model's values or a delta.
        over: What it must see at once.
        halo: For `Over.SLABS`, so many neighbours on either side.
        measure: What it must know of the whole tensor first, or None.
        n_passes: How often `measure` reads the tensor, for progress.
        workspace: For `Over.TENSOR`, what the function takes besides its inputs and
            its result, for the memory budget: tensors of that size, or the bytes as a
            function of the shape and the bytes of one value.
        wants_place: Whether the function takes `place`.
        hides_base: Whether the base stands in the recipe but the function does not
            see it.
        is_idempotent: Whether models that are all equal come back as they are, to
            rounding, at the defaults.
    """

    id: str
    label: str
    formula: str
    source: str
    inputs: tuple[InputSpec, ...]
    params: tuple[ParamSpec, ...]
    function: Callable[..., Any]
    doc: str
    result: Space = Space.WEIGHT
    over: Over = Over.ELEMENTS
    halo: int = 0
    measure: Measure | None = None
    n_passes: int = 0
    workspace: Workspace = 0.0
    wants_place: bool = False
    hides_base: bool = False
    is_idempotent: bool = True

    def __call__(self, *args: Any, **params: Any) -> Any:
        """Run the function itself."""
        return self.function(*args, **params)

    @cached_property
    def is_pool(self) -> bool:
        """Whether it takes any number of models."""
        return any(spec.is_pool for spec in self.inputs)

    @cached_property
    def has_base(self) -> bool:
        """Whether its first model is the base of the others' deltas."""
        return any(spec.space is Space.DELTA for spec in self.inputs)

    @cached_property
    def n_single(self) -> int:
        """How many inputs stand before the pool."""
        return sum(not spec.is_pool for spec in self.inputs)

    def workspace_bytes(self, shape: tuple[int, ...], n_bytes: int) -> float:
        """What the function takes besides its inputs and its result.

        Args:
            shape: Of the tensor.
            n_bytes: Of one value in the working dtype.
        """
        workspace = self.workspace
        if isinstance(workspace, (int, float)):
            return workspace * Place(shape=shape).n_elements * n_bytes
        return workspace(shape, n_bytes)

    @property
    def min_models(self) -> int:
        """The least number of models it works on (a pool of one included)."""
        return len(self.inputs)

    def param(self, name: str) -> ParamSpec | None:
        """The declared parameter of this name, or None."""
        return next((spec for spec in self.params if spec.name == name), None)

    @property
    def block_params(self) -> tuple[ParamSpec, ...]:
        """The parameters that may differ from block to block."""
        return tuple(spec for spec in self.params if spec.param.per_block)

    @property
    def block_param(self) -> ParamSpec | None:
        """What block weights set where they name no parameter, and studies search.

        The first per-block number that is one for all models; None without any.
        """
        for spec in self.block_params:
            if not spec.param.choices and not spec.param.per_model:
                return spec
        return None

    def accepts(self, n_models: int) -> bool:
        """Whether this many models may be given."""
        if self.is_pool:
            return n_models >= self.min_models
        return n_models == self.min_models

    def space_of(self, index: int) -> Space:
        """What the function gets of the recipe's input at this position."""
        return self.inputs[min(index, len(self.inputs) - 1)].space

    def arguments(
        self,
        read: Callable[[int], Any],
        inputs: Sequence[int],
        base: Any,
        change: Callable[[int], Any] = lambda index: None,
    ) -> tuple[Any, ...]:
        """What the function is called with: single tensors, then a lazy pool.

        Args:
            read: Values of the recipe's input at a position, in the working dtype.
            inputs: Positions to give; some of a pool may be left out.
            base: Values of input 0 where `has_base`, else None.
            change: The delta of an input where it is known without taking the base
                off its values, else None.
        """

        def value(index: int) -> Any:
            if self.space_of(index) is not Space.DELTA:
                return read(index)
            known = change(index)
            return read(index) - base if known is None else known

        n_hidden = int(self.hides_base)
        singles = [value(i) for i in inputs if n_hidden <= i < self.n_single]
        if not self.is_pool:
            return tuple(singles)
        return (*singles, (value(i) for i in inputs if i >= self.n_single))

    def call_with(
        self, tensors: Sequence[Any], params: Mapping[str, Any], key: str = ""
    ) -> Any:
        """Merge whole tensors in memory: the engine's work for one key, without it.

        Args:
            tensors: One a model, in the recipe's order (a base first), of one shape and
                dtype (float32 or float64).
            params: Of the function; a per-model parameter is a tuple, or one number
                for all.
            key: The tensor's name, which draws depend on.

        Returns:
            A new tensor of that shape and dtype.
        """
        pool = tuple(range(len(tensors) - self.n_single)) if self.is_pool else ()
        place = Place(key, tuple(tensors[0].shape), 0, pool)
        given = self._whole_params(params, len(pool))
        extra = {"place": place} if self.wants_place else {}
        if self.measure is not None:
            runs = _MemoryRuns(self, [t.reshape(-1) for t in tensors], place)
            extra["measured"] = self.measure(runs, **given)
        shaped = [self.shaped(t, place.shape) for t in tensors]
        base = shaped[0] if self.has_base else None
        args = self.arguments(lambda i: shaped[i], range(len(tensors)), base)
        values = self.function(*args, **given, **extra)
        if self.result is Space.DELTA:
            values = base + values
        return values.reshape(place.shape)

    def _whole_params(self, params: Mapping[str, Any], n_pool: int) -> dict[str, Any]:
        given = {spec.name: spec.default for spec in self.params} | dict(params)
        for spec in self.params:
            if spec.param.per_model and not isinstance(given[spec.name], tuple):
                given[spec.name] = (given[spec.name],) * n_pool
        return given

    def shaped(self, values: Any, shape: tuple[int, ...]) -> Any:
        """A tensor, or a run of it, as the function wants it; a view.

        Args:
            values: Whole entries of whatever `over` asks for.
            shape: Of the whole tensor.
        """
        if self.over is Over.ELEMENTS:
            return values.reshape(-1)
        if self.over is Over.ROWS:
            return values.reshape(-1, row_elements(shape))
        if self.over is Over.SLABS and shape and values.numel():
            return values.reshape(-1, *shape[1:])
        return values.reshape(shape)


def row_elements(shape: tuple[int, ...]) -> int:
    """Values in one row of `Over.ROWS`: the last axis; at least 1."""
    return max(1, shape[-1]) if shape else 1


@dataclass(frozen=True)
class _MemoryRuns:
    """The runs of flat tensors in memory, in the engine's own bounds."""

    method: MergeMethod
    tensors: Sequence[Any]
    place: Place

    def __iter__(self) -> Iterator[Run]:
        n_inputs = len(self.tensors)
        step = run_elements(n_inputs)
        for start in range(0, self.place.n_elements, step):
            parts = [tensor[start : start + step] for tensor in self.tensors]
            yield Run(
                self.method.arguments(
                    parts.__getitem__,
                    range(n_inputs),
                    parts[0] if self.method.has_base else None,
                ),
                replace(self.place, start=start),
            )
