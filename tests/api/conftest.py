"""A served app over the tab's fake host; every answer is held against OpenAPI."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from lib_merge.api import attach
from lib_merge.api.mount import _fits
from lib_merge.api.openapi import describe
from lib_merge.api.table import ENDPOINTS, PREFIX
from lib_merge.ui.workspace import Workspace, workspace_of
from tests.api.schema import misfits
from tests.ui.conftest import host, model_files
from tests.ui.fakes import FakeHost, FakeScorer

__all__ = ["api", "host", "model_files"]

DOCUMENT = describe(ENDPOINTS, PREFIX)

STUDY: dict[str, Any] = {
    "name": "tiny",
    "models": ["a.safetensors", "b.safetensors"],
    "payloads": ["circle.json"],
    "n_trials": 3,
    "sampler": "random",
    "groups": ["M"],
    "n_without_gain": 0,
}
"""A study of one block: the fewer tensors a trial changes, the faster it is."""

SUM: dict[str, Any] = {
    "method": "weighted_sum",
    "models": ["a.safetensors", "b.safetensors"],
    "values": {"alpha": 0.25},
}


class Api:
    """Asks as a program would.

    Args:
        app: What is served.
        workspace: Of the host.
    """

    def __init__(self, app: FastAPI, workspace: Workspace) -> None:
        self.client = TestClient(app)
        self.workspace = workspace

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        status: int = 200,
        **more: Any,
    ) -> Any:
        """An answer; its status is the wanted one and its JSON is as declared."""
        options: dict[str, Any] = {} if body is None else {"json": body}
        found = self.client.request(method, PREFIX + path, **options, **more)
        assert found.status_code == status, found.text
        if not found.headers["content-type"].startswith("application/json"):
            return found.content
        data = found.json()
        assert misfits(data, _schema(method, path, status), DOCUMENT) == []
        return data

    def get(self, path: str, **more: Any) -> Any:
        """As `ask`."""
        return self.ask("GET", path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> Any:
        """As `ask`."""
        return self.ask("POST", path, body, **more)

    def refused(self, method: str, path: str, body: Any = None, *, status: int) -> str:
        """The sentences of a refusal."""
        return "\n".join(self.ask(method, path, body, status=status)["problems"])

    def events(self, path: str) -> list[dict[str, Any]]:
        """Every event of a stream, until it ends by itself."""
        found = []
        with self.client.stream("GET", PREFIX + path) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    found.append(json.loads(line.removeprefix("data: ")))
        return found

    def done(self, job: dict[str, Any]) -> dict[str, Any]:
        """A job at its end."""
        for _ in range(600):
            job = self.get(f"/jobs/{job['id']}")
            if not job["is_active"]:
                return job
            time.sleep(0.05)
        raise AssertionError(f"{job['title']} does not end")

    def study_at(self, name: str, *states: str) -> dict[str, Any]:
        """A study as soon as it is in one of some states."""
        for _ in range(1200):
            study = self.get(f"/studies/{name}")
            if study["state"] in states:
                return study
            time.sleep(0.05)
        raise AssertionError(f"{name} is {study['state']}: {study['message']}")


def _schema(method: str, path: str, status: int) -> dict[str, Any]:
    problem = {"$ref": "#/components/schemas/Problem"}
    if status >= 400:
        return problem
    path = path.partition("?")[0]
    # A name that is spelled out comes before one in braces.
    fitting = [e for e in ENDPOINTS if e.method == method and _fits(e.path, path)]
    endpoint = min(fitting, key=lambda e: e.path.count("{"))
    operation = DOCUMENT["paths"][PREFIX + endpoint.path][method.lower()]
    content = operation["responses"][str(status)]["content"]
    return content["application/json"]["schema"]


@pytest.fixture
def api(host: FakeHost) -> Iterator[Api]:
    """The routes in a plain app, over a host of their own."""
    app = FastAPI()
    attach(app, host)
    workspace = workspace_of(host)
    workspace.studies.scorer = FakeScorer()
    yield Api(app, workspace)
    workspace.studies.stop_and_wait(20)
