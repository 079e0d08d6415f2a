"""What the Merge page's controls hold for a form that another page has sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lib_merge.core.method import MergeMethod
from lib_merge.ui.form import MergeForm


@dataclass(frozen=True)
class PageValues:
    """A form as values of controls.

    Attributes:
        singles: Titles of the models with a list of their own; None where none.
        pool: Titles of the pool.
        plain: Values of block weights' switch and text, rules, steps, precision, save
            type, parts, EMA, lacking keys and bad values.
        numbers: Values of parameters, by name.
    """

    singles: tuple[str | None, ...]
    pool: tuple[str, ...]
    plain: tuple[Any, ...]
    numbers: Mapping[str, Any]


def page_values(form: MergeForm, method: MergeMethod, n_single: int) -> PageValues:
    """A form as values of controls.

    Args:
        form: What the page shall say.
        method: The form's.
        n_single: How many lists for single models the page has.
    """
    singles: list[str | None] = [*form.models[: method.n_single]]
    singles += [None] * (n_single - len(singles))
    return PageValues(
        singles=tuple(singles),
        pool=form.models[method.n_single :],
        plain=(
            bool(form.weights),
            form.weights,
            form.rules,
            form.steps,
            form.compute_dtype,
            form.save_dtype,
            list(form.parts),
            form.keep_ema,
            form.is_missing_ok,
            form.non_finite,
        ),
        numbers=_numbers(method, form.values, form.each),
    )


def packed(form: MergeForm) -> str:
    """The parameters' values as text, for the page's hidden field."""
    return json.dumps([form.method, dict(form.values), dict(form.each)])


def numbers_of(text: Any, method: MergeMethod) -> Mapping[str, Any]:
    """What `packed` has written, if it is for this method; else nothing."""
    try:
        method_id, values, each = json.loads(str(text or ""))
    except ValueError:
        return {}
    if method_id != method.id:
        return {}
    return _numbers(method, tuple(values.items()), tuple(each.items()))


def _numbers(
    method: MergeMethod,
    values: tuple[tuple[str, float], ...],
    each: tuple[tuple[str, str], ...],
) -> dict[str, Any]:
    """Values as controls show them: choices by name, whole numbers whole."""
    found: dict[str, Any] = dict(each)
    for name, value in values:
        spec = method.param(name)
        if spec is None:
            continue
        if spec.param.choices:
            found[name] = spec.text_of(value)
        else:
            found[name] = int(value) if spec.param.is_integer else value
    return found
