"""The README's curl lines are requests that the routes take."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from lib_merge.api._fields import read_body
from lib_merge.api.mount import _fits
from lib_merge.api.table import ENDPOINTS, PREFIX
from tests.api.conftest import Api

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def _requests() -> list[tuple[str, str, Any]]:
    """(method, path below the prefix, body) of every curl command."""
    block = README.split("## For programs: HTTP")[1].split("```")[1]
    commands = block.replace("\\\n", " ").split("\ncurl ")
    return [_request(shlex.split(text)) for text in commands if text.strip()]


def _request(words: list[str]) -> tuple[str, str, Any]:
    (address,) = [word for word in words if word.startswith("http://127.0.0.1:")]
    path = address.partition(PREFIX)[2]
    body = json.loads(words[words.index("-d") + 1]) if "-d" in words else None
    if body is not None:
        assert "Content-Type: application/json" in words
    method = (
        words[words.index("-X") + 1] if "-X" in words else "POST" if body else "GET"
    )
    return method, path, body


@pytest.mark.parametrize(
    ("method", "path", "body"), _requests(), ids=lambda value: str(value)[:24]
)
def test_curl_line_fits_a_route(method: str, path: str, body: Any) -> None:
    (endpoint,) = [e for e in ENDPOINTS if e.method == method and _fits(e.path, path)]
    if body is not None:
        assert read_body(endpoint.body, body)


def test_there_are_as_many_lines_as_the_section_shows() -> None:
    assert len(_requests()) == 7


def test_curl_lines_work_one_after_the_other(api: Api) -> None:
    for method, path, body in _requests():
        found = api.client.request(
            method, PREFIX + path, **({} if body is None else {"json": body})
        )
        assert found.status_code in (200, 202), found.text
        if path.startswith("/merge") or path == "/restore":
            api.done(found.json())
    assert api.study_at("night", "stopped", "complete")["n_trials"] >= 3
