"""The OpenAPI description, made from the table of routes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lib_merge import __version__
from lib_merge.api._call import Endpoint
from lib_merge.api._fields import Field, Kind
from lib_merge.api.shapes import SHAPES

_PLAIN: dict[Kind, dict[str, Any]] = {
    Kind.TEXT: {"type": "string"},
    Kind.WHOLE: {"type": "integer"},
    Kind.NUMBER: {"type": "number"},
    Kind.FLAG: {"type": "boolean"},
    Kind.TEXTS: {"type": "array", "items": {"type": "string"}},
    Kind.NUMBERS: {"type": "array", "items": {"type": "number"}},
    Kind.VALUES: {
        "type": "object",
        "additionalProperties": {"type": ["number", "string"]},
    },
    Kind.OBJECT: {"type": "object"},
    Kind.MIXED: {"type": "array", "items": {"type": ["string", "object"]}},
    Kind.ONE: {"type": "object"},
    Kind.MANY: {"type": "array", "items": {"type": "object"}},
}

_ALWAYS = (400, 401, 403)
_MEANINGS = {
    400: "The request cannot be used",
    401: "The host asks for a login",
    403: "A page of another origin, or a path outside the host's folders",
    404: "There is none of this name",
    409: "What the host or a study is doing does not allow it now",
}


def describe(endpoints: Sequence[Endpoint], prefix: str) -> dict[str, Any]:
    """The whole document.

    Args:
        endpoints: The table of routes.
        prefix: What their paths begin with.
    """
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operations = paths.setdefault(prefix + endpoint.path, {})
        operations[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "MergeLab",
            "version": __version__,
            "description": (
                "Merging Stable Diffusion models and AutoMBW. Work runs in the "
                "background: requests that start it answer at once with a job or a "
                "study, which is polled or watched by server-sent events."
            ),
        },
        "paths": paths,
        "components": {
            "schemas": {name: _shape(fields) for name, fields in SHAPES.items()},
            "securitySchemes": {
                "login": {"type": "http", "scheme": "basic"},
            },
        },
        "security": [{}, {"login": []}],
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", endpoint.path)
    found: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "tags": [endpoint.path.split("/")[1]],
        "parameters": [
            *(_path_parameter(name) for name in names),
            *(_query_parameter(field) for field in endpoint.query),
        ],
        "responses": _responses(endpoint, has_names=bool(names)),
    }
    if endpoint.body:
        body = {"schema": _shape(endpoint.body, is_request=True)}
        is_needed = any(field.is_required for field in endpoint.body)
        found["requestBody"] = {
            "required": is_needed,
            "content": {"application/json": body},
        }
    return found


def _path_parameter(name: str) -> dict[str, Any]:
    schema = {"type": "string"}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameter(field: Field) -> dict[str, Any]:
    return {
        "name": field.name,
        "in": "query",
        "required": field.is_required,
        "description": field.help,
        "schema": _schema(field, is_request=True),
    }


def _responses(endpoint: Endpoint, *, has_names: bool) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if endpoint.answer:
        content["schema"] = _answer(endpoint)
    good = {
        "description": endpoint.summary,
        "content": {endpoint.media_type: content},
    }
    statuses = {*_ALWAYS, *endpoint.errors, *((404,) if has_names else ())}
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    bad = {
        str(status): {
            "description": _MEANINGS[status],
            "content": {"application/json": problem},
        }
        for status in sorted(statuses)
    }
    return {str(endpoint.status): good, **bad}


def _answer(endpoint: Endpoint) -> dict[str, Any]:
    one = {"$ref": f"#/components/schemas/{endpoint.answer}"}
    return {"type": "array", "items": one} if endpoint.is_list else one


def _shape(fields: Sequence[Field], *, is_request: bool = False) -> dict[str, Any]:
    if not fields:
        return {"type": "object"}
    # Answers have every field, null where there is nothing to say.
    needed = [f.name for f in fields if f.is_required or not is_request]
    found: dict[str, Any] = {
        "type": "object",
        "properties": {f.name: _schema(f, is_request=is_request) for f in fields},
        "additionalProperties": False,
    }
    return {**found, "required": needed} if needed else found


def _schema(field: Field, *, is_request: bool) -> dict[str, Any]:
    found = dict(_PLAIN[field.kind])
    if field.of:
        one = {"$ref": f"#/components/schemas/{field.of}"}
        found = one if field.kind is Kind.ONE else {"type": "array", "items": one}
    if field.choices:
        choices = {"enum": list(field.choices)}
        if "items" in found:
            found["items"] = {**found["items"], **choices}
        else:
            found |= choices
    if field.low is not None:
        found["minimum"] = field.low
    if not field.is_required and "type" in found and not field.choices:
        found["type"] = [found["type"], "null"]
    if is_request and field.default is not None:
        found["default"] = field.default
    return {**found, "description": field.help}
