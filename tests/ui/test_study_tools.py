"""What the AutoMBW page does with trials, whole studies and tournaments."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lib_merge.autombw import checks, dashboard
from lib_merge.autombw.scorers.person import DESK
from lib_merge.core.recipe import MergeNode, Recipe
from lib_merge.formats.autombw_csv import read_history, read_recipe_txt
from lib_merge.ui.study_choices import NO_STUDY, TOURNAMENTS
from lib_merge.ui.tabs import _study_controls, _study_reading
from lib_merge.ui.tabs._study_panels import EXPORTS
from tests.formats.test_autombw_csv import OWN
from tests.support.checkpoints import write_tiny
from tests.ui.fakes import FakeHost
from tests.ui.test_study_page import Page


def only_fake_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    """One scorer, which nobody has to install."""
    labels = {"Fake scorer": "demo_judge"}
    for module in (_study_controls, _study_reading):
        monkeypatch.setattr(module, "scorer_labels", lambda: labels)
    monkeypatch.setattr(checks, "_scorer_faults", lambda _: iter(()))


@pytest.fixture
def page(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A page ready to start; a study that still runs at the end is stopped."""
    only_fake_scorer(monkeypatch)
    opened = Page(host)
    yield opened
    opened.desk.stop_and_wait(30)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models and the study 'tiny' of four trials; copied, never written to."""
    folder = tmp_path_factory.mktemp("done") / "models"
    folder.mkdir()
    for seed, name in enumerate("abc"):
        write_tiny(folder / f"{name}.safetensors", "sd1", seed)
    payloads = folder / "data" / "payloads"
    payloads.mkdir(parents=True)
    payload = {"prompt": "a red circle", "seed": 7, "width": 32, "height": 32}
    (payloads / "circle.json").write_text(json.dumps(payload), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        only_fake_scorer(patch)
        page = Page(FakeHost(folder))
        page.start()
        page.until(lambda: not page.desk.is_running)
    return folder


@pytest.fixture
def done(page: Page, finished: Path) -> Page:
    """A page whose study 'tiny' of four trials is complete."""
    home = page.host.catalog.data_dir() / "studies" / "tiny"
    shutil.copytree(finished / "data" / "studies" / "tiny", home)
    settings = home / "settings.json"
    text = settings.read_text(encoding="utf-8")
    here = json.dumps(str(page.host.catalog.folder))[1:-1]
    settings.write_text(
        text.replace(json.dumps(str(finished))[1:-1], here), encoding="utf-8"
    )
    return page


def test_check_tells_what_a_study_takes_and_keeps_nothing(page: Page) -> None:
    assert page.page.on_check(page.values) == ""
    page.until(lambda: not page.workspace.merging.is_busy)
    assert "One picture takes" in page.live()
    assert page.desk.names() == []
    assert page.host.loader.written == {}
    page.choose(space="IN99=1")
    assert "is no block" in page.page.on_check(page.values)


def test_any_trial_goes_to_the_sliders(done: Page) -> None:
    watch, merging = done.watch, done.merging
    values = {control: control.value for control in merging.inputs}
    values |= {watch.study: "tiny", watch.trial: "3"}
    found = done.page.tools.on_sliders(values)
    assert "sliders show this trial" in found[0]
    by_control = dict(zip(done.page.tools.slid, found[1:], strict=True))
    point = done.desk.study("tiny").records()[3].point
    assert f"M00={point['M00']:.6g}" in by_control[merging.weights]
    assert by_control[merging.use_blocks] is True
    assert by_control[merging.singles[1]]["value"] == "b.safetensors"
    assert (
        "no finished trial 9"
        in done.page.tools.on_sliders({**values, watch.trial: "9"})[0]
    )


def test_sliders_give_the_recipe_of_the_trial(done: Page) -> None:
    merging = done.merging
    values = {control: control.value for control in merging.inputs}
    values |= {done.watch.study: "tiny", done.watch.trial: "3"}
    done.page.tools.on_sliders(values)
    node = merging._recipe(values).nodes[-1]
    wanted = done.desk.recipe("tiny", 3).nodes[-1]
    assert isinstance(node, MergeNode)
    assert isinstance(wanted, MergeNode)
    mine = dict(node.params[0][1].blocks)
    theirs = dict(wanted.params[0][1].blocks)
    assert mine == pytest.approx(theirs, abs=1e-6)


def test_a_trial_is_merged_into_the_loaded_model(done: Page) -> None:
    assert done.page.tools.on_load("tiny", "1") == ""
    done.until(lambda: not done.workspace.merging.is_busy)
    assert "the loaded model is now the merge" in done.live("tiny")
    assert done.host.loader.written
    assert "no trial&#x27;s number" in done.page.tools.on_load("tiny", "x")


def test_continue_sets_up_a_study_that_starts_from_the_trial(done: Page) -> None:
    found = done.page.tools.on_go_on("tiny", "3")
    assert "starts from this trial" in found[0]
    study, trial = found[-2], found[-1]
    done.choose(start_study=study["value"], start_trial=trial["value"], name="next")
    done.start()
    done.until(lambda: not done.desk.is_running)
    record = done.desk.study("next").records()[3]
    assert record.label.endswith("trial 3 of tiny")
    old = done.desk.study("tiny").records()[3].point
    assert record.point == old


def test_files_are_written_in_every_form(done: Page) -> None:
    message, files = done.page.tools.on_export("tiny", "3", list(EXPORTS))
    assert "Wrote 5 files" in message
    paths = [Path(path) for path in files["value"]]
    assert len({path.name for path in paths}) == 5
    recipe = Recipe.from_json(json.loads(paths[0].read_text(encoding="utf-8")))
    assert recipe == done.desk.recipe("tiny", 3)
    point = done.desk.study("tiny").records()[3].point
    txt = read_recipe_txt(paths[1])
    assert txt.weights["M00"] == pytest.approx(point["M00"], abs=1e-6)
    assert read_history(paths[4])[0].output == "tiny"
    assert "No file is ticked" in done.page.tools.on_export("tiny", "", [])[0]


def test_studies_are_cloned_raised_compared_and_deleted(done: Page) -> None:
    shelf = done.page.shelf
    message, listed = shelf.on_clone("tiny", "copy")
    assert "Cloned tiny as copy" in message
    assert listed["value"] == "copy"
    assert "no name" in shelf.on_clone("tiny", " ")[0]
    assert "has 6 trials now" in shelf.on_extend("copy", 6)
    assert "raised, not lowered" in shelf.on_extend("copy", 2)
    assert done.watch.on_resume("copy") == ""
    done.until(lambda: not done.desk.is_running)
    assert len(done.desk.study("copy").records()) == 6
    shown = shelf.on_compare("tiny", "copy")
    assert "First winner minus second" in shown
    assert "n_trials" in shown
    assert "No other study" in shelf.on_compare("tiny", NO_STUDY)
    assert "Tick" in shelf.on_delete("copy", False)[0]
    message, listed, tick = shelf.on_delete("copy", True)
    assert "Deleted copy" in message
    assert (listed["value"], tick["value"]) == ("tiny", False)
    assert done.desk.names() == ["tiny"]
    assert "copy" not in done.poll()["shelf"]


def test_old_runs_are_imported_from_uploads(page: Page, tmp_path: Path) -> None:
    files = [Path(shutil.copy(path, tmp_path)) for path in sorted(OWN.iterdir())]
    message, listed = page.page.shelf.on_import([str(file) for file in files])
    assert "28 trials, best 0.5745 (trial 0)" in message
    assert "are not among the models" in message
    assert listed["value"] == "10b-AstolfoMix-_17a_18a"
    assert "imported" in page.poll()["shelf"]
    again, _ = page.page.shelf.on_import([str(file) for file in files])
    assert "exists" in again
    assert "No table" in page.page.shelf.on_import([])[0]


def test_report_is_written_at_any_time_and_the_dashboard_says_what_it_needs(
    done: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "report" in done.page.shelf.on_report("tiny")
    monkeypatch.setattr(dashboard.importlib.util, "find_spec", lambda _: None)
    assert "pip install" in done.page.shelf.on_dashboard("tiny")


def test_generation_data_and_txt2img_become_payloads(page: Page) -> None:
    text = (
        "a cat\nNegative prompt: dog\nSteps: 9, Sampler: Euler, CFG scale: 5, Seed: 4"
    )
    update, _, message = page.page.on_infotext(text, [])
    assert message == ""
    (name,) = update["value"]
    kept = json.loads((page.desk.payload_dir() / name).read_text(encoding="utf-8"))
    assert (kept["prompt"], kept["steps"]) == ("a cat", 9)
    settings = {"prompt": "a dog", "steps": 7, "sampler_name": "Euler", "seed": -1}
    update, _, message = page.page.on_txt2img(json.dumps(settings), [name])
    assert message == ""
    assert "no txt2img page here" in page.page.on_txt2img("", [])[2]


def test_a_person_is_asked_and_answers(page: Page) -> None:
    import threading

    pictures = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    answers: list[str] = []

    def ask() -> None:
        answers.append(DESK.ask("a cat", *pictures, lambda: None))

    thread = threading.Thread(target=ask)
    thread.start()
    page.until(lambda: DESK.question() is not None)
    found = page.poll()
    assert "Which picture is better for: a cat" in found["question"]
    assert found["question"].count("data:image/jpeg") == 2
    assert found["column"]["visible"] is True
    right = page.watch._answering("right")
    right("|||999|")
    assert DESK.question() is not None
    assert right(found["seen"])[1]["visible"] is False
    thread.join(10)
    assert answers == ["right"]


def settings_for(page: Page, **chosen: Any) -> dict[Any, Any]:
    """The set-up of a tournament of three models."""
    models = ["a.safetensors", "b.safetensors", "c.safetensors"]
    page.choose(contestants=models, name="cup", **chosen)
    return page.values


def test_tournament_is_planned_run_and_shown(page: Page) -> None:
    values = settings_for(page)
    plan = page.page.tournament.on_plan(values)
    assert "round 1: cup-1.1 = a + b" in plan
    assert "2 studies of at most 4 trials" in plan
    assert page.workspace.tournaments.names() == []
    message, listed = page.page.tournament.on_start(values)
    assert message == ""
    assert listed["value"] == "cup"
    assert "The tournament &#x27;cup&#x27; is running" in page.page.on_start(values)[0]
    page.until(lambda: not page.workspace.tournaments.is_running)
    shown = page.workspace.tournaments.show("cup")
    assert "Done: the last winner is" in shown
    assert "round 2: cup-2.1" in shown
    folder = page.host.catalog.data_dir() / "tournaments" / "cup"
    assert len(list(folder.glob("*.safetensors"))) == 2
    assert sorted(page.desk.names()) == ["cup-1.1", "cup-2.1"]


def test_tournament_that_was_stopped_goes_on(page: Page) -> None:
    page.host.renderer.pause_s = 0.02
    values = settings_for(page, n_trials=5)
    assert page.page.tournament.on_start(values)[0] == ""
    page.until(lambda: page.desk.is_running)
    page.until(lambda: page.desk.snapshot().trial >= 2)
    assert page.watch.on_stop() == ""
    page.until(lambda: not page.workspace.tournaments.is_running)
    assert "Stopped" in page.workspace.tournaments.show("cup")
    page.host.renderer.pause_s = 0.0
    assert page.page.tournament.on_resume("cup") == ""
    page.until(lambda: not page.workspace.tournaments.is_running)
    assert "Done: the last winner" in page.workspace.tournaments.show("cup")


def test_tournament_of_two_or_of_strangers_is_refused(page: Page) -> None:
    values = settings_for(page)
    page.choose(contestants=["a.safetensors"])
    assert "three models or more" in page.page.tournament.on_plan(values)
    page.choose(contestants=["a.safetensors", "b.safetensors", "xl.safetensors"])
    assert "merge-bad" in page.page.tournament.on_plan(values)
    assert "No tournament is chosen" in page.page.tournament.on_resume(None)


def test_pool_tournament_is_one_study_over_weights(page: Page) -> None:
    pool = next(label for label, kind in TOURNAMENTS.items() if kind == "pool")
    values = settings_for(page, tournament_kind=pool)
    plan = page.page.tournament.on_plan(values)
    assert "cup-1.1 = a + b + c" in plan
    assert "1 study of at most" in plan
