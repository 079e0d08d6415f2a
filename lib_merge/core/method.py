"""How a merge method declares itself: one decorated function, read by its signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from lib_merge.core.params import Param, ParamSpec
from lib_merge.core.runs import Over, Place, Run, run_elements
from lib_merge.core.spaces import Space
from lib_merge.errors import DeclarationError

Measure = Callable[..., Any]
"""`measure(runs, **params)`: what a method must know of the whole tensor."""

_BASE = "base"


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
        workspace: For `Over.TENSOR`, tensors of that size that the function takes
            besides its inputs and its result, for the memory budget.
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
    workspace: float = 0.0
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
    ) -> tuple[Any, ...]:
        """What the function is called with: single tensors, then a lazy pool.

        Args:
            read: Values of the recipe's input at a position, in the working dtype.
            inputs: Positions to give; some of a pool may be left out.
            base: Values of input 0 where `has_base`, else None.
        """

        def value(index: int) -> Any:
            values = read(index)
            return values - base if self.space_of(index) is Space.DELTA else values

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


def merge_method(
    *,
    label: str,
    formula: str,
    source: str,
    over: Over = Over.ELEMENTS,
    halo: int = 0,
    measure: Measure | None = None,
    n_passes: int = 1,
    workspace: float = 0.0,
    is_idempotent: bool = True,
) -> Callable[[Callable[..., Any]], MergeMethod]:
    """Turn a pure function into a `MergeMethod` by reading its signature.

    Positional arguments typed `Weight`, `Delta`, `Iterable[Weight]` or
    `Iterable[Delta]` are inputs; keyword-only ones typed `Annotated[float, Param(...)]`
    (`Annotated[tuple[float, ...], Param(..., per_model=True)]` for one a model), each
    with a default, are parameters. A method with deltas gets a base as the first model
    of its recipes, which the function does not see; one that returns `Delta` has the
    base added. Two keyword-only arguments without default are filled in: `place:
    Place`, and `measured: Any`, the result of `measure`.

    Args:
        label: What people call it.
        formula: One line of plain text.
        source: Authors, title, year, link.
        over: What it must see at once.
        halo: For `Over.SLABS`, so many neighbours on either side.
        measure: Called as `measure(runs, **params)` before the function.
        n_passes: How often `measure` reads the tensor.
        workspace: For `Over.TENSOR`, in tensors of the result's size.
        is_idempotent: False where, at the defaults, models that are all equal do not
            come back as they are; the docstring says what they become.

    Raises:
        DeclarationError: At import, when the signature says anything else.
    """

    def declare(function: Callable[..., Any]) -> MergeMethod:
        inputs, params, extras = _read_signature(function)
        hides_base = _needs_hidden_base(inputs)
        if hides_base:
            inputs = (InputSpec(_BASE, Space.WEIGHT, is_pool=False), *inputs)
        where = f"{function.__module__}.{function.__name__}"
        _check(where, inputs, extras, over=over, has_measure=measure is not None)
        return MergeMethod(
            id=function.__name__,
            label=label,
            formula=formula,
            source=source,
            inputs=inputs,
            params=params,
            function=function,
            doc=inspect.getdoc(function) or "",
            result=_read_result(function, inputs, where),
            over=over,
            halo=halo,
            measure=measure,
            n_passes=n_passes if measure is not None else 0,
            workspace=workspace,
            wants_place="place" in extras,
            hides_base=hides_base,
            is_idempotent=is_idempotent,
        )

    return declare


_EXTRAS = ("place", "measured")


def _read_signature(
    function: Callable[..., Any],
) -> tuple[tuple[InputSpec, ...], tuple[ParamSpec, ...], tuple[str, ...]]:
    hints = get_type_hints(function, include_extras=True)
    inputs: list[InputSpec] = []
    params: list[ParamSpec] = []
    extras: list[str] = []
    for name, argument in inspect.signature(function).parameters.items():
        where = f"{function.__module__}.{function.__name__}, argument '{name}'"
        if name in _EXTRAS and argument.kind is inspect.Parameter.KEYWORD_ONLY:
            extras.append(name)
        elif argument.kind is inspect.Parameter.KEYWORD_ONLY:
            params.append(_read_param(name, argument.default, hints[name], where))
        else:
            inputs.append(_read_input(name, hints.get(name), where))
    return tuple(inputs), tuple(params), tuple(extras)


def _needs_hidden_base(inputs: tuple[InputSpec, ...]) -> bool:
    has_delta = any(spec.space is Space.DELTA for spec in inputs)
    return has_delta and (inputs[0].name != _BASE)


def _check(
    where: str,
    inputs: tuple[InputSpec, ...],
    extras: tuple[str, ...],
    *,
    over: Over,
    has_measure: bool,
) -> None:
    if not inputs or any(spec.is_pool for spec in inputs[:-1]):
        raise DeclarationError(
            f"{where}: a method takes at least one input, and only the last may be a "
            "pool."
        )
    if has_measure != ("measured" in extras):
        raise DeclarationError(
            f"{where}: `measure=` and the argument `measured` go together."
        )
    if over is Over.TENSOR and inputs[-1].is_pool:
        raise DeclarationError(
            f"{where}: a pool of whole tensors has no bound in memory; merge the pool "
            "first and let this method work on the result."
        )


def _read_result(
    function: Callable[..., Any], inputs: tuple[InputSpec, ...], where: str
) -> Space:
    hint = get_type_hints(function, include_extras=True).get("return")
    for mark in getattr(hint, "__metadata__", ()):
        if mark is Space.DELTA and not any(s.space is Space.DELTA for s in inputs):
            break
        if isinstance(mark, Space):
            return mark
    raise DeclarationError(
        f"{where}: return Weight, or Delta where an input is a delta."
    )


def _read_input(name: str, hint: Any, where: str) -> InputSpec:
    is_pool = get_origin(hint) is not None and issubclass(_origin_class(hint), Iterable)
    inner = get_args(hint)[0] if is_pool else hint
    for mark in getattr(inner, "__metadata__", ()):
        if isinstance(mark, Space):
            return InputSpec(name, mark, is_pool)
    raise DeclarationError(
        f"{where}: type it Weight, Delta, Iterable[Weight] or Iterable[Delta]."
    )


def _origin_class(hint: Any) -> type:
    origin = get_origin(hint)
    return origin if isinstance(origin, type) else object


def _read_param(name: str, default: Any, hint: Any, where: str) -> ParamSpec:
    marks = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Param)]
    if get_origin(hint) is not Annotated or len(marks) != 1:
        raise DeclarationError(f"{where}: type it Annotated[float, Param(low, high)].")
    if marks[0].per_model and isinstance(default, tuple) and len(default) == 1:
        default = default[0]
    if not isinstance(default, (int, float)):
        raise DeclarationError(f"{where}: give it a number as default.")
    spec = ParamSpec(name, float(default), marks[0])
    if not marks[0].low <= spec.default <= marks[0].high:
        raise DeclarationError(f"{where}: the default {default} is out of its limits.")
    return spec
