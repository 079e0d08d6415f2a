"""How a merge method declares itself: one decorated function, read by its signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from lib_merge.core.method import BASE, InputSpec, Measure, MergeMethod, Workspace
from lib_merge.core.params import Param, ParamSpec
from lib_merge.core.runs import Over
from lib_merge.core.spaces import Space
from lib_merge.errors import DeclarationError


def merge_method(
    *,
    label: str,
    formula: str,
    source: str,
    over: Over = Over.ELEMENTS,
    halo: int = 0,
    measure: Measure | None = None,
    n_passes: int = 1,
    workspace: Workspace = 0.0,
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
        workspace: For `Over.TENSOR`, in tensors of the result's size, or the bytes as a
            function of the shape and the bytes of one value.
        is_idempotent: False where, at the defaults, models that are all equal do not
            come back as they are; the docstring says what they become.

    Raises:
        DeclarationError: At import, when the signature says anything else.
    """

    def declare(function: Callable[..., Any]) -> MergeMethod:
        inputs, params, extras = _read_signature(function)
        hides_base = _needs_hidden_base(inputs)
        if hides_base:
            inputs = (InputSpec(BASE, Space.WEIGHT, is_pool=False), *inputs)
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
    return has_delta and (inputs[0].name != BASE)


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
