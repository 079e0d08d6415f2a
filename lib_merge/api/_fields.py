"""Fields of requests and answers: declared once, for checking and for OpenAPI."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Kind(Enum):
    """What a field holds, in words for people."""

    TEXT = "text"
    WHOLE = "a whole number"
    NUMBER = "a number"
    FLAG = "true or false"
    TEXTS = "a list of texts"
    NUMBERS = "a list of numbers"
    VALUES = "an object of numbers or texts"
    OBJECT = "an object"
    MIXED = "a list of texts or objects"
    ONE = "an object of its own kind"
    MANY = "a list of objects of their own kind"


@dataclass(frozen=True)
class Field:
    """One named value of a request or an answer.

    Attributes:
        name: Its name in JSON or in the query.
        kind: What it holds.
        help: What it means, one sentence or less.
        default: What it is when it is not given.
        is_required: Whether a request must give it; of an answer: never null.
        choices: The texts that are allowed; empty for any.
        low: The least number.
        of: The answer's shape inside, for ONE and MANY.
    """

    name: str
    kind: Kind
    help: str
    default: Any = None
    is_required: bool = False
    choices: tuple[str, ...] = ()
    low: float | None = None
    of: str = ""


def read_body(fields: Sequence[Field], data: Mapping[str, Any]) -> dict[str, Any]:
    """Values by field, absent ones by their defaults.

    Args:
        fields: What may be given.
        data: A JSON object.

    Raises:
        ValueError: Its `args` are all problems, a sentence each.
    """
    known = {field.name: field for field in fields}
    problems = [
        f"There is no field '{name:.60}'; known: {', '.join(known) or 'none'}."
        for name in data
        if name not in known
    ]
    values: dict[str, Any] = {}
    for name, field in known.items():
        value = data.get(name)
        if value is None:
            if field.is_required:
                problems.append(f"'{name}' is missing: {field.help}.")
            values[name] = field.default
            continue
        problem = _problem(field, value)
        if problem:
            problems.append(problem)
        values[name] = value
    if problems:
        raise ValueError(*problems)
    return values


def read_query(fields: Sequence[Field], data: Mapping[str, str]) -> dict[str, Any]:
    """As `read_body`, of a query's texts.

    Raises:
        ValueError: Its `args` are all problems, a sentence each.
    """
    kinds = {field.name: field.kind for field in fields}
    return read_body(
        fields, {name: _parsed(kinds.get(name), text) for name, text in data.items()}
    )


def _parsed(kind: Kind | None, text: str) -> Any:
    """A query's text as what is meant; a text that is no number stays a text."""
    try:
        if kind is Kind.WHOLE:
            return int(text)
        if kind is Kind.NUMBER:
            return float(text)
    except ValueError:
        return text
    if kind is Kind.FLAG:
        return {"true": True, "1": True, "false": False, "0": False}.get(text, text)
    return text


def _problem(field: Field, value: Any) -> str:
    if not _CHECKS[field.kind](value):
        return f"'{field.name}' is {_shown(value)}; it must be {field.kind.value}."
    if field.choices:
        given = value if isinstance(value, list) else [value]
        wrong = [one for one in given if one not in field.choices]
        if wrong:
            return (
                f"'{field.name}' is {_shown(wrong[0])}; use one of: "
                f"{', '.join(map(repr, field.choices))}."
            )
    if field.low is not None and value < field.low:
        return f"'{field.name}' is {value}; it must be at least {field.low:g}."
    return ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_number(value: Any) -> bool:
    is_plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_plain and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _all(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_values(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _is_number(one) or _is_text(one) for one in value.values()
    )


_CHECKS: Mapping[Kind, Callable[[Any], bool]] = {
    Kind.TEXT: _is_text,
    Kind.WHOLE: _is_whole,
    Kind.NUMBER: _is_number,
    Kind.FLAG: lambda value: isinstance(value, bool),
    Kind.TEXTS: _all(_is_text),
    Kind.NUMBERS: _all(_is_number),
    Kind.VALUES: _is_values,
    Kind.OBJECT: _is_object,
    Kind.MIXED: _all(lambda value: _is_text(value) or _is_object(value)),
    Kind.ONE: _is_object,
    Kind.MANY: _all(_is_object),
}
