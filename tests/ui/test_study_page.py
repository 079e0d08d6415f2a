"""The AutoMBW page's handlers, on every Gradio, with a study that really runs."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from lib_merge.autombw.old_runs import OldRow, OldSource, import_run
from lib_merge.core.block_orders import CSV_ORDER
from lib_merge.core.recipe import Recipe
from lib_merge.ui.study_choices import GROUPS, searchable_methods
from lib_merge.ui.tabs import _study_controls, _study_reading
from lib_merge.ui.tabs.autombw import StudyPage
from lib_merge.ui.tabs.merge import MergePage
from lib_merge.ui.workspace import Workspace
from tests.ui.fakes import FakeHost, FakeScorer


class Page:
    """The page with values set as a user would.

    Args:
        host: What it works on.
    """

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.workspace = Workspace(host)
        self.desk = self.workspace.studies
        self.desk.scorer = FakeScorer()
        with gr.Blocks():
            self.merging = MergePage(self.workspace)
            self.page = StudyPage(self.workspace, self.merging)
        self.watch = self.page.watch
        self.values: dict[Any, Any] = {c: c.value for c in self.page.inputs}
        # One block: the fewer tensors a trial changes, the faster it is.
        self.choose(n_trials=4, name="tiny", sampler="Random points", groups=["M"])
        self.choose(n_without_gain=0)

    def choose(self, **chosen: Any) -> Page:
        """Set controls by their names."""
        for name, value in chosen.items():
            self.values[getattr(self.page, name)] = value
        return self

    def start(self) -> None:
        """Press Start; nothing may be wrong."""
        assert self.page.on_start(self.values)[0] == ""

    def live(self, name: str | None = None) -> str:
        """The live view."""
        return str(self.poll("", name)["live"])

    def poll(
        self, seen: str = "", name: str | None = None, look: str = "Trials"
    ) -> dict[str, Any]:
        """What a refresh brings, by the control's name."""
        found = self.watch.on_poll(seen, name, look, "", None)
        names = ["seen", "study", "live", "view", "gallery", "report"]
        names += ["question", "column", "shelf", "bracket", "other", "start"]
        return dict(zip(names, found, strict=True))

    def until(self, is_there: Callable[[], bool]) -> None:
        """Wait for something, half a minute at most."""
        end = time.monotonic() + 30
        while not is_there():
            assert time.monotonic() < end, self.live()
            time.sleep(0.02)


@pytest.fixture
def page(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A page ready to start; a study that still runs at the end is stopped."""
    labels = {"Fake scorer": "demo_judge"}
    for module in (_study_controls, _study_reading):
        monkeypatch.setattr(module, "scorer_labels", lambda: labels)
    opened = Page(host)
    yield opened
    opened.desk.stop_and_wait(30)


def test_page_opens_ready_to_start(page: Page) -> None:
    assert "Searches 28 blocks in 80 trials, 1 pictures each" in page.page.outlook.value
    assert "No study yet" in page.watch.live.value


def test_a_study_runs_to_its_end_and_shows_its_result(page: Page) -> None:
    page.choose(groups=list(GROUPS)).start()
    page.until(lambda: not page.desk.is_running)
    found = page.poll()
    live, table = found["live"], found["view"]
    assert Path(found["report"]["value"]).read_text(encoding="utf-8").startswith("<!")
    assert "complete" in live
    assert "Parent A" in live
    assert "0.5 merge" in live
    assert "<svg" in live
    assert "data:image/jpeg;base64," in live
    assert "On seeds that the search never saw" in table
    pictures = page.poll("", None, "Pictures")["gallery"]["value"]
    assert pictures[0][1].startswith("circle: ")
    assert page.host.loader.written == {}


def test_a_page_opened_later_shows_the_running_study_at_once(page: Page) -> None:
    page.host.renderer.pause_s = 0.05
    page.choose(n_trials=60).start()
    page.until(lambda: page.desk.snapshot().trial >= 2)
    with gr.Blocks():
        reloaded = StudyPage(page.workspace, MergePage(page.workspace))
    assert "tiny" in reloaded.watch.live.value
    shown = reloaded.watch.on_poll("", None, "Trials", "", None)
    assert shown[1]["value"] == "tiny"
    assert "running" in shown[2]


def test_pause_waits_and_resume_goes_on(page: Page) -> None:
    page.host.renderer.pause_s = 0.02
    page.choose(n_trials=40).start()
    page.until(lambda: page.desk.snapshot().trial >= 1)
    assert page.watch.on_pause() == ""
    page.until(lambda: page.desk.is_paused)
    n_done = page.desk.snapshot().trial
    time.sleep(0.3)
    assert page.desk.snapshot().trial == n_done
    assert page.watch.on_resume("tiny") == ""
    page.until(lambda: page.desk.snapshot().trial > n_done)


def test_stop_keeps_everything_and_resume_ends_the_study(page: Page) -> None:
    page.host.renderer.pause_s = 0.02
    page.choose(n_trials=8).start()
    page.until(lambda: page.desk.snapshot().trial >= 3)
    assert page.watch.on_stop() == ""
    page.until(lambda: not page.desk.is_running)
    assert "stopped" in page.live("tiny")
    n_done = len(page.desk.study("tiny").records())
    assert page.watch.on_resume("tiny") == ""
    page.until(lambda: not page.desk.is_running)
    study = page.desk.study("tiny")
    assert len([r for r in study.records() if r.is_complete]) == 8
    assert len(study.records()) >= n_done
    assert study.result() is not None


def test_best_is_saved_as_recipe_and_as_checkpoint(page: Page) -> None:
    page.start()
    page.until(lambda: not page.desk.is_running)
    assert "Saved the recipe" in page.page.tools.on_save_recipe("tiny", "", "winner")
    path = page.host.catalog.data_dir() / "recipes" / "winner.json"
    recipe = Recipe.from_json(json.loads(path.read_text(encoding="utf-8")))
    assert recipe == page.desk.recipe("tiny")
    assert "exists" in page.page.tools.on_save_recipe("tiny", "", "winner")
    assert page.page.tools.on_save_file("tiny", "", "") == ""
    job = page.workspace.merging.job
    assert job is not None
    job.wait(60)
    assert (page.host.catalog.folder / "tiny-best.safetensors").exists()
    assert "saved tiny-best.safetensors" in page.live("tiny")


def test_a_name_that_is_taken_is_refused(page: Page) -> None:
    page.start()
    page.until(lambda: not page.desk.is_running)
    message = page.page.on_start(page.values)[0]
    assert "exists" in message


def test_live_merging_is_refused_while_a_study_runs(page: Page) -> None:
    page.host.renderer.pause_s = 0.05
    page.choose(n_trials=60).start()
    from lib_merge.errors import InputError

    with pytest.raises(InputError, match="AutoMBW study is using the loaded model"):
        page.workspace.restore()
    assert "using the loaded model" in page.workspace.live_state()


def test_every_problem_is_listed_before_a_study_begins(page: Page) -> None:
    page.choose(space="IN99=3", payloads=[])
    page.values[page.page.singles[1]] = None
    message = page.page.on_start(page.values)[0]
    assert message.count("merge-line") == 3
    assert page.desk.names() == []


def test_a_model_against_itself_is_refused(page: Page) -> None:
    page.values[page.page.singles[1]] = "a.safetensors"
    assert "nothing to search" in page.page.on_start(page.values)[0]


def test_uploaded_payloads_are_read_first_and_kept(page: Page, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text('{"prompt": "a blue square"}', encoding="utf-8")
    bad.write_text('{"steps": 3}', encoding="utf-8")
    update, _, message = page.page.on_upload([str(good)], ["circle.json"])
    assert message == ""
    assert update["value"] == ["circle.json", "good.json"]
    _, _, message = page.page.on_upload([str(bad)], [])
    assert "no &#x27;prompt&#x27;" in message
    assert not (page.desk.payload_dir() / "bad.json").exists()


def test_poll_sends_nothing_when_nothing_changed(page: Page) -> None:
    page.start()
    page.until(lambda: not page.desk.is_running)
    token = page.poll()["seen"]
    again = page.poll(token, "tiny").values()
    assert all("value" not in u and "choices" not in u for u in again)


@pytest.mark.parametrize("look", ["Trials", "Leaderboard", "Axes"])
def test_refresh_of_a_study_of_1000_trials_is_small(
    page: Page, look: str, long_run: Path
) -> None:
    studies = page.host.catalog.data_dir() / "studies"
    shutil.copytree(long_run, studies / "long")
    found = page.poll("", "long", look)
    sent = [str(value) for value in found.values()]
    assert "Score of 1000 trials; best 0.7000" in found["live"]
    assert sum(map(len, sent)) < 200_000


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study of 1,000 trials without pictures."""
    draw = random.Random(4)
    rows = []
    for _ in range(1000):
        weights = {str(block): draw.random() for block in CSV_ORDER}
        rows.append(OldRow(weights, 0.7 - (weights["M00"] - 0.3) ** 2))
    source = OldSource("long.csv", ("a.safetensors", "b.safetensors"), "sd1")
    return import_run(tmp_path_factory.mktemp("runs"), "long", rows, source).folder


def test_studies_search_single_models_from_0_to_1() -> None:
    found = searchable_methods()
    assert {"weighted_sum", "slerp", "iso_z"} <= {method.id for method in found}
    for method in found:
        spec = method.block_param
        assert spec is not None
        assert spec.param.low <= 0 < 1 <= spec.param.high
        assert not method.is_pool
    # A pool, a rank, one model alone, and a number of each model.
    left_out = {"uniform_soup", "truncate_rank", "scale", "weighted_mean"}
    assert not left_out & {method.id for method in found}


def test_methods_over_whole_tensors_are_told_to_be_slow(page: Page) -> None:
    from lib_merge.methods import methods

    page.choose(method=methods().get("iso_z").label)
    shown = page.page.on_method(page.values)
    assert shown[0]["label"] == "Base"
    note = shown[-2]
    assert "searches z (" in note
    assert "lam 1, conv on" in note
    assert "Slow: it works on whole tensors" in note
    page.choose(method=methods().get("weighted_sum").label)
    assert "Slow" not in page.page.on_method(page.values)[-2]
