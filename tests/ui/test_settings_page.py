"""The Settings page's handlers, and that every setting is really used."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from lib_merge.autombw.scorers import use_cache
from lib_merge.autombw.scorers._caches import hub_caches, own_folder
from lib_merge.autombw.scorers.image_reward import default_weights
from lib_merge.core.recipe import Setting, simple_recipe
from lib_merge.core.user_settings import NAMES, UserSettings, read_settings
from lib_merge.engine.run import RunOptions
from lib_merge.errors import InputError
from lib_merge.ui.preferences import Preferences, SettledMerger
from lib_merge.ui.tabs.autombw import StudyPage
from lib_merge.ui.tabs.merge import MergePage
from lib_merge.ui.tabs.settings import SECTIONS, SettingsPage
from lib_merge.ui.workspace import Workspace
from tests.ui.fakes import FakeHost


@pytest.fixture(autouse=True)
def _usual_cache() -> Iterator[None]:
    yield
    use_cache(None)


class Page:
    """The page, with values set as a user would."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.workspace = Workspace(host)
        with gr.Blocks():
            self.page = SettingsPage(self.workspace)

    def save(self, **chosen: Any) -> str:
        """Press the button; the message."""
        stored = self.workspace.preferences.current
        values = [chosen.get(name, getattr(stored, name)) for name in NAMES]
        return str(self.page.on_save(*values)[0])


@pytest.fixture
def page(host: FakeHost) -> Page:
    return Page(host)


def _recipe(host: FakeHost) -> Any:
    paths = tuple(str(host.catalog.folder / f"{n}.safetensors") for n in "ab")
    return simple_recipe("weighted_sum", paths, {"alpha": Setting(0.5)})


def test_every_setting_is_on_the_page_once() -> None:
    assert sorted(name for _, names in SECTIONS for name in names) == sorted(NAMES)


def test_saved_values_hold_and_are_shown_to_the_next_page(page: Page) -> None:
    assert "merge-good" in page.save(memory_mb=512, merge_device="cpu")
    assert read_settings(page.host.settings.read())[0].memory_mb == 512
    again = Page(page.host).page
    shown = dict(zip(NAMES, again.controls, strict=True))
    assert shown["memory_mb"].value == 512
    *values, storage = again.on_open()
    assert [value["value"] for value in values][NAMES.index("memory_mb")] == 512
    assert storage["value"] == ""


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"memory_mb": 5}, "at least 64"),
        ({"merge_device": "cuda:77"}, "Device &#x27;cuda:77&#x27; cannot be used"),
        ({"storage_url": "ftp://x"}, "is no storage"),
        ({"studies_dir": "models.txt/below"}, "cannot be made"),
    ],
    ids=["memory", "device", "storage", "folder"],
)
def test_nothing_is_stored_while_one_value_cannot_be_used(
    page: Page, chosen: dict[str, Any], said: str
) -> None:
    (page.host.catalog.data_dir() / "models.txt").write_text("", encoding="utf-8")
    message = page.save(recipes_dir="kept", **chosen)
    assert "merge-bad" in message
    assert said in message
    assert page.host.settings.read() == {}


def test_two_faults_are_told_together(page: Page) -> None:
    message = page.save(memory_mb=5, storage_url="ftp://x")
    assert message.count("merge-line") == 2


def test_memory_and_device_reach_the_merge(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.save(memory_mb=96, merge_device="cpu")
    seen: list[RunOptions] = []
    done = threading.Event()

    def merge(*args: Any, options: RunOptions, **more: Any) -> Any:
        seen.append(options)
        done.set()
        raise InputError("enough")

    workspace = page.workspace
    monkeypatch.setattr("lib_merge.engine.save.merge_to_file", merge)
    monkeypatch.setattr(workspace.live, "merge", merge)
    recipe = _recipe(page.host)
    workspace.save(recipe, workspace.output_path("x"), overwrite=False)
    assert done.wait(20)
    assert workspace.merging.job is not None
    workspace.merging.job.wait(20)
    workspace.load(recipe)
    workspace.merging.job.wait(20)
    merger = SettledMerger(workspace.live, workspace.preferences)
    with pytest.raises(InputError, match="enough"):
        merger.merge(recipe)
    assert [one.budget_bytes for one in seen] == [96 << 20] * 3
    assert [one.device for one in seen] == ["cpu"] * 3


def test_a_setting_that_cannot_hold_stops_a_merge_before_it_begins(
    page: Page,
) -> None:
    page.host.settings.write(UserSettings(merge_device="cuda:77"))
    with pytest.raises(InputError, match="cuda:77"):
        page.workspace.load(_recipe(page.host))
    assert page.workspace.merging.job is None
    assert "cuda:77" in page.page.on_undo()[0]


def test_folders_are_those_that_were_set(page: Page, tmp_path: Path) -> None:
    page.save(recipes_dir=str(tmp_path / "mine"), studies_dir="deep/er")
    workspace = page.workspace
    saved = workspace.save_recipe(_recipe(page.host), "one")
    assert saved == tmp_path / "mine" / "one.json"
    data = page.host.catalog.data_dir()
    assert workspace.studies.data_dir() == (data / "deep" / "er").resolve()
    assert workspace.studies.names() == []
    assert workspace.tournaments.names() == []


def test_storage_is_offered_on_the_autombw_page(page: Page, tmp_path: Path) -> None:
    address = f"journal:{tmp_path / 'log'}"
    page.save(storage_url=address)
    with gr.Blocks():
        study = StudyPage(page.workspace, MergePage(page.workspace))
    assert study.storage.value == address


def test_scorers_look_and_download_where_the_user_says(
    page: Page, tmp_path: Path
) -> None:
    page.save(scorer_cache=str(tmp_path / "weights"))
    assert own_folder() == tmp_path / "weights"
    assert hub_caches()[0] == tmp_path / "weights"
    assert default_weights() == tmp_path / "weights" / "ImageReward.pt"
    page.save(scorer_cache="")
    assert own_folder() is None


def test_scorers_run_on_the_chosen_device(host: FakeHost) -> None:
    preferences = Preferences(host)
    assert preferences.scorer_device() == host.device()
    host.settings.write(UserSettings(scorer_device="cuda:3"))
    assert preferences.scorer_device() == "cuda:3"
