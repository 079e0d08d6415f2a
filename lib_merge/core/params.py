"""How a merge method declares itself: one decorated function, read by its signature."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from lib_merge.core.spaces import Space
from lib_merge.errors import DeclarationError, InputError


@dataclass(frozen=True)
class Param:
    """Limits of one number, written as `Annotated[float, Param(0, 1)]`.

    Attributes:
        low: Smallest allowed value.
        high: Largest allowed value.
        step: What a slider moves by; values between steps are allowed.
        per_block: Whether it may differ from block to block.
        help: What it does, with its effect at both ends.
    """

    low: float
    high: float
    step: float = 0.01
    per_block: bool = True
    help: str = ""


@dataclass(frozen=True)
class ParamSpec:
    """A declared parameter: its name, default and limits."""

    name: str
    default: float
    param: Param

    def check(self, value: float, where: str) -> None:
        """Raise unless the value is a finite number within the limits.

        Raises:
            InputError: Not finite, or outside [low, high].
        """
        low, high = self.param.low, self.param.high
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            raise InputError(f"{self.name}={value!r} ({where}) is no finite number.")
        if not low <= value <= high:
            raise InputError(
                f"{self.name}={value:g} ({where}) is outside {low:g} to {high:g}; "
                "choose a value in that range."
            )


@dataclass(frozen=True)
class InputSpec:
    """A declared input: one model, or any number of them.

    Attributes:
        name: The argument's name (a, b, c, models ...).
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
        inputs: In order; a pool stands last.
        params: In order of declaration.
        function: Pure: tensors in, one tensor out, same shape and dtype.
    """

    id: str
    label: str
    formula: str
    source: str
    inputs: tuple[InputSpec, ...]
    params: tuple[ParamSpec, ...]
    function: Callable[..., Any]
    doc: str

    def __call__(self, *args: Any, **params: float) -> Any:
        """Run the function itself."""
        return self.function(*args, **params)

    @property
    def is_pool(self) -> bool:
        """Whether it takes any number of models."""
        return any(spec.is_pool for spec in self.inputs)

    @property
    def min_models(self) -> int:
        """The least number of models it works on."""
        return sum(2 if spec.is_pool else 1 for spec in self.inputs)

    def param(self, name: str) -> ParamSpec | None:
        """The declared parameter of this name, or None."""
        return next((spec for spec in self.params if spec.name == name), None)

    def accepts(self, n_models: int) -> bool:
        """Whether this many models may be given."""
        if self.is_pool:
            return n_models >= self.min_models
        return n_models == self.min_models

    def call_with(self, tensors: list[Any], params: dict[str, float]) -> Any:
        """Call with a flat list of tensors, the pool's gathered into one iterable."""
        n_single = sum(not spec.is_pool for spec in self.inputs)
        args: list[Any] = list(tensors[:n_single])
        if self.is_pool:
            args.append(tensors[n_single:])
        return self.function(*args, **params)


def merge_method(
    *, label: str, formula: str, source: str
) -> Callable[[Callable[..., Any]], MergeMethod]:
    """Turn a pure function into a `MergeMethod` by reading its signature.

    Positional arguments typed `Weight` or `Iterable[Weight]` are inputs; keyword-only
    ones typed `Annotated[float, Param(...)]`, each with a default, are parameters.

    Raises:
        DeclarationError: At import, when the signature says anything else.
    """

    def declare(function: Callable[..., Any]) -> MergeMethod:
        inputs, params = _read_signature(function)
        return MergeMethod(
            id=function.__name__,
            label=label,
            formula=formula,
            source=source,
            inputs=inputs,
            params=params,
            function=function,
            doc=inspect.getdoc(function) or "",
        )

    return declare


def _read_signature(
    function: Callable[..., Any],
) -> tuple[tuple[InputSpec, ...], tuple[ParamSpec, ...]]:
    hints = get_type_hints(function, include_extras=True)
    inputs: list[InputSpec] = []
    params: list[ParamSpec] = []
    for name, argument in inspect.signature(function).parameters.items():
        where = f"{function.__module__}.{function.__name__}, argument '{name}'"
        if argument.kind is inspect.Parameter.KEYWORD_ONLY:
            params.append(_read_param(name, argument.default, hints[name], where))
        else:
            inputs.append(_read_input(name, hints.get(name), where))
    if not inputs or any(spec.is_pool for spec in inputs[:-1]):
        raise DeclarationError(
            f"{function.__module__}.{function.__name__}: a method takes at least one "
            "input, and only the last may be a pool."
        )
    return tuple(inputs), tuple(params)


def _read_input(name: str, hint: Any, where: str) -> InputSpec:
    is_pool = get_origin(hint) is not None and issubclass(_origin_class(hint), Iterable)
    inner = get_args(hint)[0] if is_pool else hint
    for mark in getattr(inner, "__metadata__", ()):
        if isinstance(mark, Space):
            return InputSpec(name, mark, is_pool)
    raise DeclarationError(f"{where}: type it Weight or Iterable[Weight].")


def _origin_class(hint: Any) -> type:
    origin = get_origin(hint)
    return origin if isinstance(origin, type) else object


def _read_param(name: str, default: Any, hint: Any, where: str) -> ParamSpec:
    marks = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Param)]
    if get_origin(hint) is not Annotated or len(marks) != 1:
        raise DeclarationError(f"{where}: type it Annotated[float, Param(low, high)].")
    if not isinstance(default, (int, float)):
        raise DeclarationError(f"{where}: give it a number as default.")
    spec = ParamSpec(name, float(default), marks[0])
    if not marks[0].low <= spec.default <= marks[0].high:
        raise DeclarationError(f"{where}: the default {default} is out of its limits.")
    return spec
