"""Values of a method's parameters as text: numbers, choices, one a model."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

from lib_merge.core.method import MergeMethod
from lib_merge.core.params import ParamSpec, split_name
from lib_merge.errors import InputError


def read_value(
    text: str, spec: ParamSpec, where: str, problems: list[str]
) -> float | None:
    """A number within its limits, or the name of a choice."""
    named = spec.value_of(text)
    if named is not None:
        return named
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        kind = "number; write e.g. 0.5"
        if spec.param.choices:
            kind = f"choice of {spec.name}; use one of: {', '.join(spec.param.choices)}"
        problems.append(f"{where}: '{text.strip()}' is no {kind}.")
        return None
    try:
        spec.check(value, where)
    except InputError as fault:
        problems.append(str(fault))
        return None
    return value


def read_values(
    texts: Iterable[str], method: MergeMethod, where: str, problems: list[str]
) -> dict[str, float]:
    """Values of whole settings, "density=0.2, elect=count, weight@2=0.3".

    Args:
        texts: Each with any number of pairs.
        method: Whose parameters are meant.
        where: For messages.
        problems: Gets a sentence for every pair that cannot be used.
    """
    found: dict[str, float] = {}
    for part in split_pairs(texts):
        name, equals, value = (field.strip() for field in part.partition("="))
        if not name or not equals:
            problems.append(f"{where}: '{part}' is no NAME=VALUE pair.")
            continue
        spec = method.param(split_name(name)[0])
        if spec is None:
            known = ", ".join(p.name for p in method.params) or "none"
            problems.append(
                f"{where}: {method.id} has no parameter '{name}'; it has: {known}."
            )
        elif name in found:
            problems.append(f"{where}: {name} is given twice; give it once.")
        else:
            read = read_value(value, spec, f"{where} {name}", problems)
            found[name] = 0.0 if read is None else read
    return found


def read_each(
    text: str, method: MergeMethod, n_pool: int, where: str, problems: list[str]
) -> dict[str, float]:
    """One number for each model of the pool, "0.5, 0.3, 0.2".

    Args:
        text: The numbers in the pool's order.
        method: Whose per-model parameter is meant, `weight` if it has several.
        n_pool: How many models the pool has.
        where: For messages.
        problems: Gets a sentence for everything that cannot be used.
    """
    specs = [s for s in method.params if s.param.per_model]
    spec = next((s for s in specs if s.name == "weight"), next(iter(specs), None))
    if spec is None:
        problems.append(f"{where}: {method.id} has no number for each model.")
        return {}
    return read_numbers(text, spec, n_pool, where, problems)


def read_numbers(
    text: str, spec: ParamSpec, n_pool: int, where: str, problems: list[str]
) -> dict[str, float]:
    """As `read_each`, for a parameter that is known."""
    numbers = split_numbers(text)
    if len(numbers) != n_pool:
        problems.append(
            f"{where}: {_count(len(numbers), 'number')} for "
            f"{_count(n_pool, 'model')}; give one number a model, in their order."
        )
        return {}
    found = {}
    for index, number in enumerate(numbers, 1):
        value = read_value(number, spec, f"{where}, number {index}", problems)
        found[f"{spec.name}@{index}"] = 0.0 if value is None else value
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def split_pairs(texts: Iterable[str]) -> Iterator[str]:
    """The parts of texts, with commas, semicolons or line ends between."""
    for text in texts:
        yield from (p.strip() for p in re.split(r"[,;\n]+", text) if p.strip())


def split_numbers(text: str) -> list[str]:
    """The parts of a text with commas or spaces between."""
    return [part for part in re.split(r"[,;\s]+", text) if part]
