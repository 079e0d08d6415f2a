"""The table of routes, what is mounted, and what OpenAPI says are one and the same."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from fastapi import FastAPI

from lib_merge.api import attach
from lib_merge.api._fields import read_body
from lib_merge.api.shapes import SHAPES
from lib_merge.api.table import ENDPOINTS, PREFIX
from tests.api.conftest import DOCUMENT, Api
from tests.api.schema import misfits, resolved
from tests.ui.fakes import FakeHost


def _declared() -> set[tuple[str, str]]:
    return {
        (method.upper(), path)
        for path, operations in DOCUMENT["paths"].items()
        for method in operations
    }


def test_served_description_is_the_tables(api: Api) -> None:
    assert api.get("/openapi.json") == json.loads(json.dumps(DOCUMENT))


def test_every_mounted_route_is_declared_and_the_other_way_round(
    host: FakeHost,
) -> None:
    app = FastAPI()
    attach(app, host)
    mounted = {
        (method, route.path)
        for route in app.router.routes
        if str(getattr(route, "name", "")).startswith("mergelab_")
        and route.name != "mergelab_unknown"
        for method in route.methods - {"HEAD"}
    }
    assert mounted == _declared()
    assert len(mounted) == len(ENDPOINTS)


def test_names_and_places_are_unique() -> None:
    names = Counter(endpoint.name for endpoint in ENDPOINTS)
    places = Counter((endpoint.method, endpoint.path) for endpoint in ENDPOINTS)
    assert [name for name, n in (names + places).items() if n > 1] == []


def test_every_reference_leads_to_a_shape_and_every_shape_is_used() -> None:
    text = json.dumps(DOCUMENT)
    used = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert used == set(SHAPES)


def test_every_default_passes_its_own_check() -> None:
    for endpoint in ENDPOINTS:
        for field in (*endpoint.query, *endpoint.body):
            if field.default is not None:
                assert read_body([field], {field.name: field.default})


def test_every_path_parameter_is_declared() -> None:
    for path, operations in DOCUMENT["paths"].items():
        for operation in operations.values():
            declared = [p["name"] for p in operation["parameters"] if p["in"] == "path"]
            assert declared == re.findall(r"\{(\w+)\}", path)


def test_writes_are_all_that_is_no_get() -> None:
    assert {e.method for e in ENDPOINTS if e.is_write} == {"POST", "DELETE"}
    assert all(not endpoint.body for endpoint in ENDPOINTS if not endpoint.is_write)


def test_checker_finds_what_does_not_fit() -> None:
    schema: dict[str, Any] = {"$ref": "#/components/schemas/Kept"}
    assert resolved(schema, DOCUMENT)["required"] == ["path"]
    assert misfits({"path": "x"}, schema, DOCUMENT) == []
    assert misfits({}, schema, DOCUMENT) == ["answer lacks path"]
    assert misfits({"path": 1, "b": 2}, schema, DOCUMENT) == [
        "answer.path is 1, not string",
        "answer has an undeclared b",
    ]


def test_prefix_is_versioned() -> None:
    assert PREFIX == "/mergelab/v1"
