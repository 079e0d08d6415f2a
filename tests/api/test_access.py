"""Logins and origins, with real Gradio apps: who gets in, and who does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from lib_merge.api import attach
from lib_merge.api.access import origins_of, read_logins
from lib_merge.ui import compat
from tests.ui.fakes import FakeHost

HEALTH = "/mergelab/v1/health"
RESTORE = "/mergelab/v1/restore"

MakeApp = Callable[..., tuple[Any, Any]]


@pytest.fixture
def served() -> Iterator[MakeApp]:
    """Launches Gradio apps, with logins if wanted; gives the Blocks and the app."""
    made: list[Any] = []

    def make(auth: Any = None) -> tuple[Any, Any]:
        with gr.Blocks(analytics_enabled=False) as blocks:
            gr.Textbox("hello")
        options: dict[str, Any] = {"prevent_thread_lock": True, "quiet": True}
        if compat.MAJOR >= 6:
            options["ssr_mode"] = False
        blocks.launch(auth=auth, server_name="127.0.0.1", inbrowser=False, **options)
        made.append(blocks)
        return blocks, compat.served_app(blocks)

    yield make
    for blocks in made:
        blocks.close(verbose=False)


def _client(app: Any, **options: Any) -> TestClient:
    return TestClient(app, **options)


def test_without_any_login_all_is_open(served: MakeApp, host: FakeHost) -> None:
    blocks, app = served()
    attach(app, host, demo=blocks)
    assert _client(app).get(HEALTH).status_code == 200


def test_gradios_login_is_asked_for_and_its_cookie_counts(
    served: MakeApp, host: FakeHost
) -> None:
    blocks, app = served(auth=[("anna", "secret")])
    attach(app, host, demo=blocks)
    client = _client(app)
    refused = client.get(HEALTH)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic ")
    assert refused.json()["error"] == "login_required"
    wrong = client.post("/login", data={"username": "anna", "password": "guess"})
    assert wrong.status_code == 400
    assert client.get(HEALTH).status_code == 401
    client.post("/login", data={"username": "anna", "password": "secret"})
    assert client.get(HEALTH).status_code == 200
    assert client.post(RESTORE).status_code == 202
    client.cookies.clear()
    assert client.get(HEALTH).status_code == 401


def test_every_route_asks_for_the_login(served: MakeApp, host: FakeHost) -> None:
    blocks, app = served(auth=("anna", "secret"))
    attach(app, host, demo=blocks)
    client = _client(app)
    ours = [
        (method, route.path)
        for route in app.router.routes
        if str(getattr(route, "name", "")).startswith("mergelab_")
        for method in route.methods - {"HEAD"}
    ]
    assert len(ours) > 40
    found = {
        client.request(method, path.replace("{", "").replace("}", "")).status_code
        for method, path in ours
    }
    assert found == {401}


def test_forged_cookies_are_no_login(served: MakeApp, host: FakeHost) -> None:
    blocks, app = served(auth=("anna", "secret"))
    attach(app, host, demo=blocks)
    for name in ("access-token", "access-token-unsecure", "access-token-x"):
        for value in ("anna", "None", ""):
            client = _client(app, cookies={name: value})
            assert client.get(HEALTH).status_code == 401


@pytest.mark.parametrize(
    "auth",
    [
        [("anna", "secret")],
        lambda user, password: (user, password) == ("anna", "secret"),
    ],
    ids=["list", "function"],
)
def test_gradios_logins_count_as_basic_ones(
    served: MakeApp, host: FakeHost, auth: Any
) -> None:
    blocks, app = served(auth=auth)
    attach(app, host, demo=blocks)
    client = _client(app)
    assert client.get(HEALTH, auth=("anna", "secret")).status_code == 200
    assert client.get(HEALTH, auth=("anna", "guess")).status_code == 401
    assert client.get(HEALTH, auth=("otto", "secret")).status_code == 401


def test_either_login_opens_where_both_are_set(served: MakeApp, host: FakeHost) -> None:
    blocks, app = served(auth=[("anna", "secret")])
    attach(app, host, demo=blocks, api_auth="bot:one,other:two")
    client = _client(app)
    assert client.get(HEALTH).status_code == 401
    for login in (("bot", "one"), ("other", "two"), ("anna", "secret")):
        assert client.get(HEALTH, auth=login).status_code == 200
    client.post("/login", data={"username": "anna", "password": "secret"})
    assert client.get(HEALTH).status_code == 200


def _plain(host: FakeHost, **options: Any) -> TestClient:
    app = FastAPI()
    attach(app, host, **options)
    return TestClient(app)


@pytest.mark.parametrize(
    "header",
    ["", "Basic", "Basic !!!", "Basic Ym90", "Bearer Ym90Om9uZQ==", "Basic Ym90Og=="],
)
def test_api_auth_is_asked_for_without_a_page(host: FakeHost, header: str) -> None:
    client = _plain(host, api_auth="bot:one")
    headers = {"Authorization": header} if header else {}
    assert client.get(HEALTH, headers=headers).status_code == 401
    assert client.get(HEALTH, auth=("bot", "one")).status_code == 200


def test_unusable_api_auth_locks_instead_of_opening(host: FakeHost) -> None:
    client = _plain(host, api_auth=" , ")
    assert client.get(HEALTH).status_code == 401
    assert client.get(HEALTH, auth=("", "")).status_code == 401


def test_page_logins_count_without_a_page(host: FakeHost) -> None:
    client = _plain(host, logins=[("anna", "se:cret")])
    assert client.get(HEALTH).status_code == 401
    assert client.get(HEALTH, auth=("anna", "se:cret")).status_code == 200


def _by_header(request: Any) -> str | None:
    found: str | None = request.headers.get("x-user")
    return found


async def _by_header_later(request: Any) -> str | None:
    return _by_header(request)


@pytest.mark.parametrize("dependency", [_by_header, _by_header_later])
def test_login_of_an_app_around_gradio_counts(host: FakeHost, dependency: Any) -> None:
    app = FastAPI()
    app.auth_dependency = dependency  # type: ignore[attr-defined]
    attach(app, host)
    client = TestClient(app)
    assert client.get(HEALTH).status_code == 401
    assert client.get(HEALTH, headers={"x-user": "anna"}).status_code == 200


STRANGERS: list[dict[str, str]] = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://testserver.evil.example"},
    {"Origin": "https://testserver:81"},
]


@pytest.mark.parametrize("headers", STRANGERS, ids=str)
def test_page_of_another_origin_can_neither_change_nor_read(
    host: FakeHost, headers: dict[str, str]
) -> None:
    client = _plain(host)
    for method, path in (("POST", RESTORE), ("GET", HEALTH)):
        found = client.request(method, path, headers=headers)
        assert found.status_code == 403
        assert "another origin" in found.json()["problems"][0]
    assert client.get("/mergelab/v1/jobs").json() == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://testserver"},
        {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://proxy.example", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
def test_own_page_and_programs_may(host: FakeHost, headers: dict[str, str]) -> None:
    assert _plain(host).post(RESTORE, headers=headers).status_code == 202


def test_origins_that_the_host_allows_may(host: FakeHost) -> None:
    client = _plain(
        host,
        origins=["http://good.example, http://other.example/"],
        origin_pattern=r"https://.*\.mine\.example",
    )
    for origin in (
        "http://good.example",
        "http://other.example",
        "https://a.mine.example",
    ):
        headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
        assert client.get(HEALTH, headers=headers).status_code == 200
    headers = {"Origin": "https://mine.example.evil.example"}
    assert client.get(HEALTH, headers=headers).status_code == 403


def test_star_allows_no_page(host: FakeHost) -> None:
    client = _plain(host, origins=["*"])
    headers = {"Origin": "http://evil.example"}
    assert client.post(RESTORE, headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("name", "status"),
    [("evil.example", 403), ("localhost", 202), ("127.0.0.1", 202), ("[::1]", 202)],
)
def test_page_that_rebinds_its_name_to_this_machine_cannot_change_anything(
    host: FakeHost, name: str, status: int
) -> None:
    app = FastAPI()
    attach(app, host)

    async def local(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "server": ("127.0.0.1", 7860)}, receive, send)

    client = TestClient(local)
    own = {"Host": f"{name}:7860"}
    headers = {**own, "Origin": f"http://{name}:7860"}
    assert client.post(RESTORE, headers=headers).status_code == status
    assert client.post(RESTORE, headers=own).status_code == 202


def test_body_must_say_that_it_is_json(host: FakeHost) -> None:
    client = _plain(host)
    text = '{"method": "weighted_sum", "models": ["a", "b"]}'
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        headers = {"Content-Type": kind}
        found = client.post("/mergelab/v1/merge/load", content=text, headers=headers)
        assert found.status_code == 400
        assert "application/json" in found.json()["problems"][0]


def test_texts_of_logins_and_origins_are_read() -> None:
    assert read_logins("a:b, c:d:e,") == {"a": "b", "c": "d:e"}
    assert origins_of(["", "*", "http://a/,http://b"]) == ("http://a", "http://b")
