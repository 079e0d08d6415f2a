"""scripts/merge_api.py inside the fake WebUIs, as the WebUI runs it."""

from __future__ import annotations

import runpy
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.hosts.conftest import FAKES, MakeFake, case_of, make_fake, tiny_files
from tests.hosts.test_traps import unet_weight

__all__ = ["make_fake", "tiny_files"]

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "merge_api.py"
PREFIX = "/mergelab/v1"


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the script and gives the callback that it leaves with the WebUI."""

    def run(**options: Any) -> Any:
        left: list[Any] = []
        callbacks = types.ModuleType("modules.script_callbacks")
        callbacks.on_app_started = left.append  # type: ignore[attr-defined]
        modules = sys.modules["modules"]
        monkeypatch.setitem(sys.modules, callbacks.__name__, callbacks)
        monkeypatch.setattr(modules, "script_callbacks", callbacks, raising=False)
        shared = sys.modules["modules.shared"]
        for name, value in options.items():
            monkeypatch.setattr(shared.cmd_opts, name, value, raising=False)
        runpy.run_path(str(SCRIPT))
        (callback,) = left
        return callback

    return run


@pytest.mark.parametrize("host_id", FAKES)
def test_routes_work_in_every_webui_and_come_back_after_a_reload(
    host_id: str, make_fake: MakeFake, run_script: Callable[..., Any]
) -> None:
    fake = make_fake(host_id)
    first, second = FastAPI(), FastAPI()
    run_script()(None, first)
    body = {"method": "weighted_sum", "models": ["a", "b"], "values": {"alpha": 0.5}}
    client = TestClient(first)
    job = client.post(f"{PREFIX}/merge/load", json=body).json()
    run_script()(None, second)
    after = TestClient(second)
    while job["is_active"]:
        job = after.get(f"{PREFIX}/jobs/{job['id']}").json()
    assert job["state"] == "done", job["message"]
    health = after.get(f"{PREFIX}/health").json()
    assert health["host"] == host_id
    assert health["loaded"] == str((fake.models / "a.safetensors").resolve())
    assert (health["is_merge"], health["recipe"]) == (True, job["result"]["recipe"])
    checks = {check["id"]: check["state"] for check in health["checks"]}
    assert checks["merge_and_load"] == "works"
    restored = after.post(f"{PREFIX}/restore").json()
    while restored["is_active"]:
        restored = after.get(f"{PREFIX}/jobs/{restored['id']}").json()
    assert not after.get(f"{PREFIX}/health").json()["is_merge"]


@pytest.mark.parametrize("host_id", FAKES)
def test_health_tells_that_quantised_weights_are_refused(
    host_id: str, make_fake: MakeFake, run_script: Callable[..., Any]
) -> None:
    fake = make_fake(host_id)
    case = case_of(fake)
    case.host.loader.load(case.a)
    with torch.inference_mode():
        weight = unet_weight(fake)
        weight.data = weight.data.to(torch.float8_e4m3fn)
    app = FastAPI()
    run_script()(None, app)
    checks = TestClient(app).get(f"{PREFIX}/health").json()["checks"]
    (found,) = [check for check in checks if check["id"] == "merge_and_load"]
    assert found["state"] == "refused"
    assert "stored quantised" in found["words"]
    assert "Diffusion in Low Bits" in found["words"]


def test_hosts_own_logins_and_origins_are_taken_over(
    make_fake: MakeFake,
    run_script: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_fake("a1111")
    logins = types.ModuleType("modules.initialize_util")
    logins.get_gradio_auth_creds = lambda: iter([("anna", "secret")])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, logins.__name__, logins)
    monkeypatch.setattr(
        sys.modules["modules"], "initialize_util", logins, raising=False
    )
    app = FastAPI()
    run_script(api_auth="bot:one", cors_allow_origins="http://good.example")(None, app)
    client = TestClient(app)
    assert client.get(f"{PREFIX}/health").status_code == 401
    for login in (("bot", "one"), ("anna", "secret")):
        assert client.get(f"{PREFIX}/health", auth=login).status_code == 200
    for origin, status in (("http://good.example", 200), ("http://bad.example", 403)):
        found = client.get(
            f"{PREFIX}/health", auth=("bot", "one"), headers={"Origin": origin}
        )
        assert found.status_code == status


def test_loras_may_come_from_the_hosts_folder_of_loras(
    make_fake: MakeFake, run_script: Callable[..., Any], tmp_path: Path
) -> None:
    make_fake("a1111")
    loras = tmp_path / "Lora"
    loras.mkdir()
    app = FastAPI()
    run_script(lora_dir=str(loras))(None, app)
    client = TestClient(app)
    for folder, status in ((loras, 400), (tmp_path, 403)):
        data = _recipe_with_lora(client, folder / "style.safetensors")
        found = client.post(f"{PREFIX}/merge/plan", json={"recipe_json": data})
        assert found.status_code == status, found.text


def _recipe_with_lora(client: TestClient, path: Path) -> dict[str, Any]:
    body = {"method": "weighted_sum", "models": ["a", "b"]}
    plan = client.post(f"{PREFIX}/merge/plan", json=body).json()["recipe_json"]
    plan["nodes"].append(
        {
            "lora": str(path),
            "sha256": None,
            "base": len(plan["nodes"]) - 1,
            "strength": {"value": 0.5},
        }
    )
    return plan
