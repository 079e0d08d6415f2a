"""Studies by HTTP: they run, stop and go on, and the tab shows the very same ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from lib_merge.autombw.runner import StudyRunner
from lib_merge.ui import study_view
from lib_merge.ui.tabs._study_watch import StudyWatch
from lib_merge.ui.tabs.autombw import StudyPage
from lib_merge.ui.tabs.merge import MergePage
from tests.api.conftest import STUDY, Api
from tests.ui.fakes import FakeHost

PNG = b"\x89PNG"


def _finished(api: Api, **changes: Any) -> dict[str, Any]:
    """A study of three trials at its end."""
    api.post("/studies", {**STUDY, **changes}, status=202)
    return api.study_at("tiny", "complete")


def test_study_runs_to_its_end_and_is_told_by_events(api: Api, host: FakeHost) -> None:
    host.renderer.pause_s = 0.05
    begun = api.post("/studies", STUDY, status=202)
    assert begun["is_active"]
    found = api.events("/studies/tiny/events")
    assert {one["name"] for one in found} == {"tiny"}
    trials = [one["trial"] for one in found if one["state"] == "running"]
    assert trials == sorted(trials)
    assert (found[-1]["state"], found[-1]["trial"]) == ("complete", 3)
    assert not found[-1]["is_active"]
    assert found[-1]["has_report"]
    (line,) = api.get("/studies")
    assert (line["state"], line["n_complete"]) == ("complete", 3)
    assert host.loader.written == {}


def test_trials_tell_scores_and_show_their_pictures(api: Api) -> None:
    _finished(api)
    trials = api.get("/studies/tiny/trials")
    assert [trial["number"] for trial in trials] == [0, 1, 2]
    assert api.get("/studies/tiny/trials?after=0") == trials[1:]
    assert api.get("/studies/tiny/trials/1") == trials[1]
    image = trials[1]["images"][0]
    assert (image["prompt"], set(image["raws"])) == ("a red circle", {"image_reward"})
    path = f"/studies/tiny/trials/1/images/{image['file']}"
    assert api.get(path).startswith(PNG)
    assert api.get("/studies/tiny/picture").startswith(PNG)
    for wrong in (
        "/studies/tiny/trials/9",
        "/studies/tiny/trials/1/images/record.json",
        "/studies/tiny/trials/1/images/..%2f..%2fsettings.json",
        "/studies/tiny/trials/%2e%2e%2f0001",
    ):
        api.refused("GET", wrong, status=404)


def test_settings_result_and_report_are_given(api: Api) -> None:
    api.refused("GET", "/studies/tiny/result", status=404)
    _finished(api)
    settings = api.get("/studies/tiny/settings")
    assert settings["n_trials"] == 3
    assert settings["payloads"][0]["prompt"] == "a red circle"
    result = api.get("/studies/tiny/result")
    assert {"A", "B"} <= {one["label"] for one in result["candidates"]}
    assert b"AutoMBW study tiny" in api.get("/studies/tiny/report")
    Path(api.post("/studies/tiny/report", status=201)["path"]).unlink()
    assert "POST" in api.refused("GET", "/studies/tiny/report", status=404)


def test_trial_is_loaded_and_saved(api: Api, host: FakeHost) -> None:
    _finished(api)
    recipe = api.get("/studies/tiny/recipe?trial=1")
    assert recipe["format"] == "mergelab-recipe"
    job = api.done(api.post("/studies/tiny/load", {"trial": 1}, status=202))
    assert job["state"] == "done", job["message"]
    body = {"trial": 1, "file": "winner"}
    job = api.done(api.post("/studies/tiny/save", body, status=202))
    assert Path(job["result"]["path"]) == host.catalog.folder / "winner.safetensors"
    api.refused("GET", "/studies/tiny/recipe?trial=77", status=404)
    out = {"trial": 1, "file": "../winner"}
    api.refused("POST", "/studies/tiny/save", out, status=403)


def test_study_is_stopped_and_resumed(api: Api, host: FakeHost) -> None:
    host.renderer.pause_s = 0.2
    api.post("/studies", STUDY, status=202)
    api.study_at("tiny", "running")
    api.post("/studies/tiny/stop")
    stopped = api.study_at("tiny", "stopped")
    assert not stopped["is_active"]
    assert stopped["trial"] < 3
    assert "not running" in api.refused("POST", "/studies/tiny/stop", status=409)
    host.renderer.pause_s = 0.0
    assert api.post("/studies/tiny/resume", status=202)["is_active"]
    assert api.study_at("tiny", "complete")["trial"] == 3


def test_study_is_paused_and_goes_on(api: Api, host: FakeHost) -> None:
    host.renderer.pause_s = 0.1
    api.post("/studies", STUDY, status=202)
    api.study_at("tiny", "running")
    api.post("/studies/tiny/pause")
    assert api.study_at("tiny", "paused")["is_active"]
    time.sleep(0.3)
    assert api.get("/studies/tiny")["state"] == "paused"
    host.renderer.pause_s = 0.0
    api.post("/studies/tiny/resume", status=202)
    api.study_at("tiny", "complete")


@pytest.fixture
def page(api: Api) -> StudyPage:
    """The tab's page over the same workspace."""
    with gr.Blocks():
        return StudyPage(api.workspace, MergePage(api.workspace))


def test_tab_shows_what_the_api_began_and_stops_it(
    api: Api, host: FakeHost, page: StudyPage
) -> None:
    host.renderer.pause_s = 0.2
    api.post("/studies", STUDY, status=202)
    watch: StudyWatch = page.watch
    assert page.desk.names() == ["tiny"]
    assert "tiny" in study_view.current(page.desk, "tiny")
    assert watch.on_pause() == ""
    api.study_at("tiny", "paused")
    assert watch.on_stop() == ""
    api.study_at("tiny", "stopped")


def test_api_shows_what_the_tab_began_and_stops_it(
    api: Api, host: FakeHost, page: StudyPage
) -> None:
    host.renderer.pause_s = 0.2
    values = {control: control.value for control in page.inputs}
    values[page.name], values[page.sampler] = "tabs", "Random points"
    assert page.on_start(values)[0] == ""
    assert api.study_at("tabs", "running")["is_active"]
    told = api.refused("POST", "/studies", STUDY, status=409)
    assert "Study 'tabs' is running" in told
    api.post("/studies/tabs/stop")
    api.study_at("tabs", "stopped")


def test_running_study_keeps_merges_out(api: Api, host: FakeHost) -> None:
    host.renderer.pause_s = 0.2
    api.post("/studies", STUDY, status=202)
    body = {"method": "weighted_sum", "models": ["a", "b"]}
    told = api.refused("POST", "/merge/load", body, status=409)
    assert "study is using the loaded model" in told
    api.refused("DELETE", "/studies/tiny", status=409)
    checks = {check["id"]: check["state"] for check in api.get("/health")["checks"]}
    assert (checks["merge_and_load"], checks["studies"]) == ("busy", "busy")


def test_study_of_another_process_is_watched_to_its_end(
    api: Api, host: FakeHost
) -> None:
    _finished(api)
    api.workspace.studies.forget("tiny")
    (found,) = api.events("/studies/tiny/events")
    assert found["state"] == "complete"
    assert not found["is_active"]


def test_study_is_extended_and_deleted(api: Api) -> None:
    _finished(api)
    assert api.post("/studies/tiny/extend", {"n_trials": 5})["n_trials"] >= 3
    assert api.get("/studies/tiny/settings")["n_trials"] == 5
    api.refused("POST", "/studies/tiny/extend", {"n_trials": 2}, status=409)
    api.ask("DELETE", "/studies/tiny")
    assert api.get("/studies") == []
    api.refused("GET", "/studies/tiny", status=404)


def test_check_is_a_job_that_says_what_is_missing_and_keeps_nothing(api: Api) -> None:
    body = {**STUDY, "scorers": ["http_judge"]}
    job = api.done(api.post("/studies/check", body, status=202))
    assert (job["title"], job["state"]) == ("Check and time a picture", "failed")
    assert "The option url is ''" in job["message"]
    assert api.get("/studies") == []


def test_whole_payloads_are_taken_as_objects(api: Api) -> None:
    inline = {"prompt": "a blue square", "seed": 3, "width": 32, "height": 32}
    _finished(api, payloads=["circle.json", inline])
    prompts = [p["prompt"] for p in api.get("/studies/tiny/settings")["payloads"]]
    assert prompts == ["a red circle", "a blue square"]
    assert [one["name"] for one in api.get("/payloads")] == ["circle.json"]


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"payloads": ["none.json"]}, 400, "no payload 'none.json'; known: circle"),
        ({"payloads": [{"prompt": 3}]}, 400, "prompt"),
        ({"payloads": []}, 400, "No payload is chosen"),
        ({"models": ["a"]}, 400, "No model B is chosen"),
        ({"models": ["a", "/etc/b.safetensors"]}, 403, "none of the host's model"),
        ({"n_trials": 0}, 400, "at least 1"),
        ({"sampler": "dice"}, 400, "use one of"),
        ({"start_study": "none"}, 404, "no study 'none'"),
        ({"storage": "journal:/tmp/x.log"}, 403, "lies outside"),
        ({"storage": "sqlite:////tmp/x.db"}, 403, "lies outside"),
        ({"storage": "ftp://x"}, 400, "is no storage"),
        (
            {"judge_lines": "image_reward: file=/etc/passwd"},
            403,
            "outside the host's folders",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_study_is_refused_in_words(
    api: Api, change: dict[str, Any], status: int, words: str
) -> None:
    assert words in api.refused("POST", "/studies", {**STUDY, **change}, status=status)
    assert api.get("/studies") == []


def test_second_study_of_a_name_is_refused(api: Api) -> None:
    _finished(api)
    assert "exists" in api.refused("POST", "/studies", STUDY, status=409)


def test_no_other_folder_is_taken_for_a_study(
    api: Api, host: FakeHost, tmp_path: Path
) -> None:
    _finished(api)
    folder = api.workspace.studies.study("tiny").folder
    outside = tmp_path / "elsewhere"
    folder.rename(outside)
    for name in (str(outside), "..%2f..%2felsewhere", "%2e%2e", "elsewhere"):
        assert api.client.get(f"/mergelab/v1/studies/{name}").status_code == 404


def test_study_in_a_storage_is_joined_by_a_machine_that_has_not_seen_it(
    api: Api, host: FakeHost
) -> None:
    storage = f"journal:{host.catalog.data_dir() / 'shared.log'}"
    api.post("/studies", {**STUDY, "storage": storage}, status=202)
    api.study_at("tiny", "complete")
    api.ask("DELETE", "/studies/tiny")
    joined = api.post("/studies/join", {"storage": storage}, status=202)
    assert joined["name"] == "tiny"
    assert api.study_at("tiny", "complete")["n_trials"] >= 3
    api.refused("POST", "/studies/join", {}, status=400)


def test_runner_is_the_desks_own(api: Api, host: FakeHost) -> None:
    host.renderer.pause_s = 0.1
    api.post("/studies", STUDY, status=202)
    runner = api.workspace.studies._runner
    assert isinstance(runner, StudyRunner)
    assert runner.snapshot().name == api.get("/studies/tiny")["name"]


def test_scorers_tell_what_they_lack(api: Api) -> None:
    found = {one["id"]: one for one in api.get("/scorers")}
    assert "image_reward" in found
    assert all(one["is_available"] == (one["reason"] == "") for one in found.values())
