"""Holds answers against the OpenAPI text: just as much of JSON Schema as it uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def misfits(data: Any, schema: dict[str, Any], document: dict[str, Any]) -> list[str]:
    """What of some data is not as a schema says, with its place."""
    return list(_misfits(data, schema, document, "answer"))


def resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """A schema with its reference followed."""
    if "$ref" not in schema:
        return schema
    found: Any = document
    for part in schema["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return found


def _misfits(
    data: Any, schema: dict[str, Any], document: dict[str, Any], where: str
) -> Iterator[str]:
    schema = resolved(schema, document)
    if not _is_of(data, schema.get("type")):
        yield f"{where} is {data!r:.60}, not {schema['type']}"
        return
    if data is not None and data not in schema.get("enum", [data]):
        yield f"{where} is {data!r:.60}, none of {schema['enum']}"
    if isinstance(data, list) and "items" in schema:
        for number, one in enumerate(data):
            yield from _misfits(one, schema["items"], document, f"{where}[{number}]")
    if isinstance(data, dict):
        yield from _misfits_of_object(data, schema, document, where)


def _misfits_of_object(
    data: dict[str, Any], schema: dict[str, Any], document: dict[str, Any], where: str
) -> Iterator[str]:
    known = schema.get("properties", {})
    rest = schema.get("additionalProperties", True)
    for name in schema.get("required", ()):
        if name not in data:
            yield f"{where} lacks {name}"
    for name, value in data.items():
        if name in known:
            yield from _misfits(value, known[name], document, f"{where}.{name}")
        elif rest is False:
            yield f"{where} has an undeclared {name}"
        elif isinstance(rest, dict):
            yield from _misfits(value, rest, document, f"{where}.{name}")


def _is_of(data: Any, kind: str | list[str] | None) -> bool:
    if kind is None:
        return True
    kinds = [kind] if isinstance(kind, str) else kind
    if isinstance(data, bool):
        return "boolean" in kinds
    return any(isinstance(data, TYPES[name]) for name in kinds)
