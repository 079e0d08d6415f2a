"""The routes inside real apps: before all others, in place of old ones, no crash."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.testclient import TestClient

from lib_merge.api import attach, mount
from lib_merge.ui import compat
from lib_merge.ui.workspace import workspace_of
from tests.api.conftest import SUM, Api
from tests.ui.fakes import FakeHost

PREFIX = "/mergelab/v1"


def test_routes_come_before_a_catch_all(host: FakeHost) -> None:
    app = FastAPI()

    @app.get("/{rest:path}")
    def everything(rest: str) -> str:
        return rest

    attach(app, host)
    client = TestClient(app)
    assert client.get(f"{PREFIX}/health").json()["host"] == "fake"
    assert client.get("/other").json() == "other"


def test_routes_that_are_put_in_twice_are_there_once(host: FakeHost) -> None:
    app = FastAPI()
    attach(app, host)
    n_routes = len(app.router.routes)
    attach(app, host)
    assert len(app.router.routes) == n_routes


def test_reload_of_the_ui_gives_a_new_app_the_same_jobs(host: FakeHost) -> None:
    first, second = FastAPI(), FastAPI()
    attach(first, host)
    workspace_of(host).merging.start("Slow", lambda progress: time.sleep(0.3) or "ok")
    attach(second, FakeHost(host.catalog.folder))
    (job,) = TestClient(second).get(f"{PREFIX}/jobs").json()
    assert (job["title"], job["is_active"]) == ("Slow", True)
    workspace_of(host).merging.job.wait(10)


def test_page_and_routes_live_side_by_side(host: FakeHost) -> None:
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.Textbox("hello")
    options: dict[str, Any] = {"ssr_mode": False} if compat.MAJOR >= 6 else {}
    _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True, **options)
    try:
        attach(compat.served_app(blocks), host, demo=blocks)
        base = address.rstrip("/")
        with urllib.request.urlopen(f"{base}{PREFIX}/health", timeout=20) as answer:
            assert json.load(answer)["host"] == "fake"
        with urllib.request.urlopen(f"{base}/", timeout=20) as answer:
            assert b"gradio" in answer.read().lower()
    finally:
        blocks.close(verbose=False)


def test_closing_the_page_is_not_held_up_by_an_open_stream(host: FakeHost) -> None:
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.Textbox("hello")
    options: dict[str, Any] = {"ssr_mode": False} if compat.MAJOR >= 6 else {}
    _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True, **options)
    attach(compat.served_app(blocks), host, demo=blocks)
    go_on = threading.Event()
    slot = workspace_of(host).merging
    slot.start("Long", lambda _: "done" if go_on.wait(60) else "late")
    try:
        url = f"{address.rstrip('/')}{PREFIX}/jobs/merge-1/events"
        with urllib.request.urlopen(url, timeout=20) as answer:
            assert answer.readline() == b"event: job\n"
            began = time.monotonic()
            closer = threading.Thread(target=blocks.close, args=(False,), daemon=True)
            closer.start()
            closer.join(20)
            assert not closer.is_alive()
            assert time.monotonic() - began < 4.5
            assert slot.is_busy
            answer.read()
    finally:
        go_on.set()
        slot.job.wait(10)


def test_events_are_not_held_back_by_compression(host: FakeHost) -> None:
    app = FastAPI()
    app.add_middleware(GZipMiddleware, minimum_size=10)
    attach(app, host)
    workspace_of(host).merging.start("Short", lambda progress: "done")
    headers = {"Accept-Encoding": "gzip"}
    with TestClient(app).stream(
        "GET", f"{PREFIX}/jobs/merge-1/events", headers=headers
    ) as answer:
        assert answer.headers["content-encoding"] == "identity"
        assert next(iter(answer.iter_lines())) == "event: job"


def test_stream_of_what_does_not_change_says_so(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mount, "QUIET_S", 0.05)
    monkeypatch.setattr(mount, "POLL_S", 0.03)
    monkeypatch.setattr(mount, "STREAM_S", 0.5)
    app = FastAPI()
    attach(app, host)
    path = host.catalog.data_dir() / "studies"
    assert not path.exists() or not any(path.iterdir())
    go_on = threading.Event()
    slot = workspace_of(host).merging
    slot.start("Long", lambda _: "done" if go_on.wait(60) else "late")
    monkeypatch.setattr(
        "lib_merge.api.jobs.job_json",
        lambda slot, job: {"id": "merge-1", "is_active": job.is_active},
    )
    with TestClient(app).stream("GET", f"{PREFIX}/jobs/merge-1/events") as answer:
        lines = list(answer.iter_lines())
    go_on.set()
    slot.job.wait(10)
    assert lines.count("event: job") == 1
    assert ": nothing new" in lines


def test_unknown_places_and_methods_are_answered_in_words(api: Api) -> None:
    assert "openapi.json" in api.refused("GET", "/nothing", status=404)
    assert "use GET" in api.refused("POST", "/health", status=405)
    assert "use POST" in api.refused("GET", "/merge/load", status=405)
    assert "use GET, POST" in api.refused("DELETE", "/studies", status=405)
    assert api.client.post(PREFIX + "/health").headers["allow"] == "GET"


def test_bug_is_an_answer_and_no_crash(
    api: Api, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("no cable")

    monkeypatch.setattr(host.catalog, "checkpoints", broken)
    monkeypatch.setattr(api.workspace.host.catalog, "checkpoints", broken)
    assert "RuntimeError: no cable" in api.refused("GET", "/models", status=500)


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "no JSON"), ("[1]", "must be a JSON object"), ("NaN", "JSON object")],
)
def test_body_that_is_no_object_is_refused(api: Api, text: str, words: str) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    found = api.client.post(f"{PREFIX}/merge/plan", content=text, headers=headers)
    assert found.status_code == 400
    assert words in found.json()["problems"][0]


def test_body_of_any_size_is_not_read(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mount, "LIMIT_BYTES", 1 << 20)
    told = api.refused("POST", "/recipes/read", {"text": "x" * (2 << 20)}, status=413)
    assert "larger than 1 MiB" in told


def test_numbers_that_json_does_not_know_are_null() -> None:
    data = {"a": [float("inf"), float("nan"), 1.5], "b": ({"c": -float("inf")},)}
    assert mount._finite(data) == {"a": [None, None, 1.5], "b": [{"c": None}]}


def test_only_one_of_many_simultaneous_merges_is_started(
    api: Api, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge = api.workspace.live.merge

    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(1.0)
        return merge(*args, **options)

    monkeypatch.setattr(api.workspace.live, "merge", slow)
    found: list[int] = []

    def load() -> None:
        answer = api.client.post(f"{PREFIX}/merge/load", json=SUM)
        found.append(answer.status_code)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [202, 409, 409, 409]
    api.workspace.merging.job.wait(30)


def test_head_of_a_stream_does_not_wait_for_its_end(api: Api) -> None:
    go_on = threading.Event()
    slot = api.workspace.merging
    slot.start("Long", lambda _: "done" if go_on.wait(60) else "late")
    assert api.client.head(f"{PREFIX}/jobs/merge-1/events").status_code == 405
    assert api.client.head(f"{PREFIX}/jobs").status_code == 200
    go_on.set()
    slot.job.wait(10)
