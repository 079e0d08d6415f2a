"""Merges by HTTP: the same jobs as the tab's, and only inside the host's folders."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from lib_merge.core.recipe import Recipe
from lib_merge.ui.form import MergeForm, recipe_of
from tests.api.conftest import SUM, Api
from tests.support.checkpoints import write_tiny
from tests.ui.fakes import FakeHost


def _tabs_recipe(host: FakeHost, alpha: float = 0.25) -> Recipe:
    models = ("a.safetensors", "b.safetensors")
    form = MergeForm("weighted_sum", models, (("alpha", alpha),))
    return recipe_of(form, host.catalog)


def test_health_tells_host_versions_and_what_works(api: Api) -> None:
    found = api.get("/health")
    assert (found["host"], found["label"], found["device"]) == (
        "fake",
        "fake host",
        "cpu",
    )
    assert {"MergeLab", "Python", "torch", "gradio"} <= set(found["versions"])
    assert (found["loaded"], found["is_merge"], found["recipe"]) == (None, False, None)
    states = {check["id"]: check["state"] for check in found["checks"]}
    assert states["merge_and_save"] == "works"
    assert states["merge_and_load"] == "unknown"
    assert states["studies"] == "works"


def test_health_tells_why_quantised_weights_are_refused(
    api: Api, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.loader.load(host.catalog.folder / "a.safetensors")
    reason = "The loaded model is stored quantised (fp8); choose full precision."
    monkeypatch.setattr(host.loader, "refusal", lambda: reason)
    checks = {check["id"]: check for check in api.get("/health")["checks"]}
    assert checks["merge_and_load"]["state"] == "refused"
    assert checks["merge_and_load"]["words"] == reason


def test_models_are_the_hosts_and_are_looked_for_again(
    api: Api, host: FakeHost
) -> None:
    host.loader.load(host.catalog.folder / "b.safetensors")
    found = {model["title"]: model for model in api.get("/models")}
    assert found["b.safetensors"]["is_loaded"]
    assert not found["a.safetensors"]["is_loaded"]
    shutil.copy(
        host.catalog.folder / "a.safetensors", host.catalog.folder / "d.safetensors"
    )
    assert "d.safetensors" in [m["title"] for m in api.post("/models/refresh")]
    assert host.catalog.n_refreshes == 1


def test_methods_tell_their_parameters(api: Api) -> None:
    found = {method["id"]: method for method in api.get("/methods")}
    assert found["weighted_sum"] == api.get("/methods/weighted_sum")
    assert [p["name"] for p in found["weighted_sum"]["params"]] == ["alpha"]
    assert "did you mean 'ties'" in api.refused("GET", "/methods/tiez", status=404)


def test_plan_says_what_a_merge_would_do(api: Api, host: FakeHost) -> None:
    found = api.post("/merge/plan", SUM)
    assert found["recipe"] == _tabs_recipe(host).digest()
    assert found["sentence"].startswith("Weighted sum of 2 models")
    assert found["architecture"] == "sd1"
    assert found["n_merged"] > found["n_copied"] > 0
    assert host.loader.n_loads == 0
    assert api.get("/jobs") == []


def test_load_is_the_tabs_own_merge_and_restore_takes_it_back(
    api: Api, host: FakeHost
) -> None:
    host.loader.load(host.catalog.folder / "c.safetensors")
    job = api.done(api.post("/merge/load", SUM, status=202))
    assert job["state"] == "done", job["message"]
    assert job["result"]["recipe"] == _tabs_recipe(host).digest()
    health = api.get("/health")
    assert (health["is_merge"], health["recipe"]) == (True, job["result"]["recipe"])
    assert "merged in memory" in api.workspace.live_state()
    by_api = dict(host.loader.written)
    assert api.done(api.post("/restore", status=202))["state"] == "done"
    assert not api.get("/health")["is_merge"]
    assert api.get("/health")["loaded"].endswith("c.safetensors")
    api.workspace.load(_tabs_recipe(host))
    api.workspace.merging.job.wait(30)
    assert host.loader.written == by_api


@pytest.mark.parametrize("way", ["title", "stem", "path"])
def test_models_are_named_by_title_file_or_path(
    api: Api, host: FakeHost, way: str
) -> None:
    folder = host.catalog.folder
    names = {
        "title": ["a.safetensors", "b.safetensors"],
        "stem": ["a", "b"],
        "path": [str(folder / "a.safetensors"), str(folder / "b.safetensors")],
    }
    body = {**SUM, "models": names[way]}
    assert api.post("/merge/plan", body)["recipe"] == _tabs_recipe(host).digest()


def test_all_of_the_form_reaches_the_recipe(api: Api) -> None:
    body = {
        "method": "weighted_mean",
        "models": ["a", "b", "c"],
        "values": {"weight": "1, 2, 3"},
        "compute_dtype": "float64",
        "save_dtype": "keep",
        "parts": ["UNet", "VAE"],
        "keep_ema": True,
        "is_missing_ok": True,
        "non_finite": "leave_out",
    }
    recipe = api.post("/merge/plan", body)["recipe_json"]
    assert recipe["compute_dtype"] == "float64"
    assert recipe["save_dtype"] == "keep"
    assert recipe["keep_ema"]
    assert recipe["is_missing_ok"]
    assert recipe["on_non_finite"] == "leave_out"
    merge = recipe["nodes"][-1]
    assert merge["components"] == ["unet", "vae"]
    assert merge["params"]["weight@3"]["value"] == 3


def test_blocks_and_rules_reach_the_recipe(api: Api) -> None:
    body = {**SUM, "weights": "IN04=0.7", "rules": ["OUT03:attn:0.4"]}
    alpha = api.post("/merge/plan", body)["recipe_json"]["nodes"][-1]["params"]["alpha"]
    assert alpha["blocks"] == {"IN04": 0.7}
    assert alpha["rules"][0]["value"] == 0.4


def test_save_writes_what_the_tab_would(api: Api, host: FakeHost) -> None:
    body = {**SUM, "file": "mine"}
    job = api.done(api.post("/merge/save", body, status=202))
    saved = Path(job["result"]["path"])
    assert saved == host.catalog.folder / "mine.safetensors"
    assert saved.is_file()
    assert host.catalog.registered == [saved]
    api.workspace.save(
        _tabs_recipe(host), host.catalog.folder / "tab.safetensors", overwrite=False
    )
    api.workspace.merging.job.wait(30)
    assert saved.read_bytes() == (host.catalog.folder / "tab.safetensors").read_bytes()
    assert "exists" in api.refused("POST", "/merge/save", body, status=409)
    again = {**body, "overwrite": True}
    assert api.done(api.post("/merge/save", again, status=202))["state"] == "done"


@pytest.mark.parametrize(
    "name",
    ["../mine", "/tmp/mine", "..\\mine", ".hidden/mine", "a/../../mine", "C:mine"],
)
def test_output_stays_inside_the_output_folder(api: Api, name: str) -> None:
    api.refused("POST", "/merge/save", {**SUM, "file": name}, status=403)
    assert api.get("/jobs") == []


def test_output_does_not_follow_a_link_out_of_the_folder(
    api: Api, host: FakeHost, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (host.catalog.folder / "link").symlink_to(outside)
    body = {**SUM, "file": "link/mine"}
    assert "by a link" in api.refused("POST", "/merge/save", body, status=403)
    assert list(outside.iterdir()) == []


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A model that is no host's."""
    folder = tmp_path / "private"
    folder.mkdir()
    write_tiny(folder / "secret.safetensors", "sd1", 5)
    return folder / "secret.safetensors"


def test_inputs_come_from_the_hosts_folders_only(
    api: Api, host: FakeHost, stranger: Path
) -> None:
    by_form = {**SUM, "models": ["a.safetensors", str(stranger)]}
    dotted = host.catalog.folder / ".." / "private" / "secret.safetensors"
    for body in (
        by_form,
        {**SUM, "models": ["a.safetensors", str(dotted)]},
        {**SUM, "models": ["a.safetensors", "../private/secret.safetensors"]},
        {"recipe_json": _recipe_of(host, str(stranger))},
        {"recipe_json": _recipe_of(host, str(dotted))},
        {"recipe_json": _recipe_of(host, "/no/such/file.safetensors")},
    ):
        for place in ("/merge/plan", "/merge/load"):
            told = api.refused("POST", place, body, status=403)
            assert "none of the host's model folders" in told
    assert host.loader.n_loads == 0


def test_relative_path_is_not_looked_for_in_the_working_folder(
    api: Api, host: FakeHost, stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stranger.parent)
    body = {"recipe_json": _recipe_of(host, "secret.safetensors")}
    api.refused("POST", "/merge/plan", body, status=403)


def _recipe_of(host: FakeHost, other: str) -> dict[str, Any]:
    data = _tabs_recipe(host).to_json()
    data["nodes"][1]["model"] = other
    return data


def test_recipe_by_name_is_run_whole(api: Api, host: FakeHost) -> None:
    api.post("/recipes", {**SUM, "name": "kept"}, status=201)
    job = api.done(api.post("/merge/load", {"recipe": "kept"}, status=202))
    assert job["result"]["recipe"] == _tabs_recipe(host).digest()
    api.refused("POST", "/merge/load", {"recipe": "none"}, status=404)
    api.refused("POST", "/merge/load", {"recipe": "../data/x"}, status=404)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"values": {"beta": 1}}, "has no 'beta'; it has: alpha"),
        ({"values": {"alpha": "much"}}, "'much' is no number"),
        ({"models": ["a.safetensors"]}, "No model B is chosen"),
        ({"models": ["a.safetensors", "nobody"]}, "no longer in the list"),
        ({"models": ["a.safetensors", "xl.safetensors"]}, "of different architectures"),
        ({"method": "wsum"}, "Unknown merge method 'wsum'"),
        ({"weights": "IN99=1"}, "IN99"),
        ({"save_dtype": "int4"}, "use one of"),
        ({"recipe": "kept"}, "Give one of"),
        ({"colour": "red"}, "There is no field 'colour'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_wrong_request_is_refused_in_words(
    api: Api, change: dict[str, Any], words: str
) -> None:
    assert words in api.refused("POST", "/merge/load", {**SUM, **change}, status=400)
    assert api.get("/jobs") == []


def test_second_merge_is_refused_and_the_first_can_be_cancelled(
    api: Api, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(progress: Any) -> str:
        while True:
            progress.check()

    api.workspace.merging.start("Long", slow)
    running = api.get("/jobs?is_active=true")
    assert [job["title"] for job in running] == ["Long"]
    assert "still running" in api.refused("POST", "/merge/load", SUM, status=409)
    assert api.get("/health")["checks"][1]["state"] == "busy"
    api.post(f"/jobs/{running[0]['id']}/cancel")
    assert api.done(running[0])["state"] == "stopped"
    told = api.refused("POST", f"/jobs/{running[0]['id']}/cancel", status=409)
    assert "has ended already" in told
    assert api.get("/jobs?is_active=true") == []


def test_jobs_of_the_tab_are_seen_and_past_ones_are_remembered(api: Api) -> None:
    for number in range(3):
        api.workspace.merging.start(f"Job {number}", lambda _: "done.")
        api.workspace.merging.job.wait(10)
    assert {job["title"] for job in api.get("/jobs")} == {"Job 0", "Job 1", "Job 2"}
    assert api.get("/jobs/merge-1")["title"] == "Job 0"
    for wanted in ("merge-9", "merge", "nothing-1", "merge-x"):
        api.refused("GET", f"/jobs/{wanted}", status=404)


def test_failed_job_says_why(api: Api, host: FakeHost) -> None:
    def broken(path: Path) -> None:
        raise RuntimeError("the cable is out")

    host.loader.load = broken  # type: ignore[method-assign]
    job = api.done(api.post("/merge/load", SUM, status=202))
    assert job["state"] == "failed"
    assert "the cable is out" in job["message"]


def test_events_of_a_job_end_with_it(api: Api) -> None:
    job = api.post("/merge/load", SUM, status=202)
    found = api.events(f"/jobs/{job['id']}/events")
    assert [one["id"] for one in found] == [job["id"]] * len(found)
    assert found[-1]["state"] == "done"
    assert all(one["is_active"] for one in found[:-1])
