"""The standalone app on the demo models, over real HTTP: merges, a study, events."""

from __future__ import annotations

import hashlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lib_merge.api import attach
from lib_merge.core.ports import RenderRequest
from lib_merge.demo import MODELS_DIR
from lib_merge.ui.app import launch_app
from lib_merge.ui.workspace import workspace_of

pytestmark = pytest.mark.slow

SHOT = RenderRequest(prompt="a red circle", seed=11, steps=4, width=32, height=32)
BODY = {
    "method": "weighted_sum",
    "models": ["demo_a.safetensors", "demo_b.safetensors"],
    "values": {"alpha": 0.5},
}
STUDY = {
    "name": "by-http",
    "models": ["demo_a.safetensors", "demo_b.safetensors"],
    "payloads": [
        {"prompt": "a red circle", "seed": 1, "steps": 4, "width": 32, "height": 32},
    ],
    "scorers": ["demo_judge"],
    "n_trials": 3,
    "n_seeds": 2,
    "sampler": "random",
    "n_without_gain": 0,
    "n_held_out": 1,
    "n_finalists": 1,
}


class Server:
    """Asks a running app over HTTP, as curl would.

    Args:
        address: Of the app.
        host: What it serves.
    """

    def __init__(self, address: str, host: Any) -> None:
        self.base = f"{address.rstrip('/')}/mergelab/v1"
        self.host = host

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a good answer."""
        with self.open(method, path, body) as answer:
            return json.load(answer)

    def open(self, method: str, path: str, body: Any = None) -> Any:
        """An answer to read from."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, method=method)
        if data is not None:
            request.add_header("Content-Type", "application/json")
        return urllib.request.urlopen(request, timeout=300)

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """Each event, as it comes."""
        with self.open("GET", path) as answer:
            for line in answer:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

    def done(self, path: str, body: Any = None) -> dict[str, Any]:
        """A job that is started and watched to its end."""
        job = self.ask("POST", path, body)
        *_, last = self.events(f"/jobs/{job['id']}/events")
        assert last["state"] == "done", last["message"]
        return last

    def picture(self) -> str:
        """The digest of a picture with what is loaded now."""
        (image,) = self.host.renderer.render([SHOT])
        return hashlib.sha256(image.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app with its routes, as `app` starts it."""
    from lib_merge.hosts.diffusers import DiffusersHost

    out: Path = tmp_path_factory.mktemp("out")
    host = DiffusersHost([MODELS_DIR], out / "models", out)
    running = launch_app(host)
    attach(running.app, host, demo=running.blocks)
    yield Server(running.address, host)
    workspace_of(host).studies.stop_and_wait(60)
    running.close()


def test_merge_changes_the_picture_and_restore_gives_it_back(server: Server) -> None:
    server.host.loader.load(MODELS_DIR / "demo_a.safetensors")
    before = server.picture()
    job = server.done("/merge/load", BODY)
    health = server.ask("GET", "/health")
    assert health["host"] == "diffusers"
    assert (health["is_merge"], health["recipe"]) == (True, job["result"]["recipe"])
    merged = server.picture()
    assert merged != before
    server.done("/restore")
    assert server.picture() == before
    saved = server.done("/merge/save", {**BODY, "file": "half"})["result"]
    path = Path(saved["path"])
    assert hashlib.sha256(path.read_bytes()).hexdigest() == saved["sha256"]
    server.host.loader.load(path)
    assert server.picture() == merged


def test_study_is_streamed_stopped_and_resumed(server: Server) -> None:
    server.host.loader.load(MODELS_DIR / "demo_a.safetensors")
    before = server.picture()
    assert server.ask("POST", "/studies", STUDY)["is_active"]
    last: dict[str, Any] = {}
    for last in server.events("/studies/by-http/events"):
        if last["trial"] >= 1 and last["state"] == "running":
            server.ask("POST", "/studies/by-http/stop")
            break
    while server.ask("GET", "/studies/by-http")["is_active"]:
        time.sleep(0.1)
    stopped = server.ask("GET", "/studies/by-http")
    assert stopped["state"] == "stopped"
    assert 1 <= stopped["trial"] < 3
    assert server.picture() == before
    server.ask("POST", "/studies/by-http/resume")
    *_, last = server.events("/studies/by-http/events")
    assert (last["state"], last["trial"]) == ("complete", 3)
    trials = server.ask("GET", "/studies/by-http/trials")
    assert [len(trial["images"]) for trial in trials if trial["images"]] == [2] * 3
    file = trials[0]["images"][0]["file"]
    with server.open("GET", f"/studies/by-http/trials/0/images/{file}") as answer:
        assert answer.read(4) == b"\x89PNG"
    with server.open("GET", "/studies/by-http/report") as answer:
        assert b"by-http" in answer.read()
    assert server.picture() == before


def test_strangers_are_refused_by_the_running_app(server: Server) -> None:
    request = urllib.request.Request(f"{server.base}/restore", method="POST")
    request.add_header("Origin", "http://evil.example")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=20)
    host, _, port = server.base.split("/")[2].partition(":")
    request = urllib.request.Request(f"{server.base}/restore", method="POST")
    request.add_header("Host", f"evil.example:{port}")
    request.add_header("Origin", f"http://evil.example:{port}")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=20)
    assert host == "127.0.0.1"
