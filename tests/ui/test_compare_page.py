"""The Compare page's handlers, on every Gradio, with real small checkpoints."""

from __future__ import annotations

import json
import re
import shutil
from typing import Any

import gradio as gr
import pytest

from lib_merge.methods import methods
from lib_merge.ui.tabs.compare import ComparePage
from lib_merge.ui.tabs.merge import MergePage
from lib_merge.ui.workspace import Workspace
from tests.ui.fakes import FakeHost


class Page:
    """Both pages with values set as a user would.

    Args:
        host: What they work on.
    """

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.workspace = Workspace(host)
        with gr.Blocks():
            self.merging = MergePage(self.workspace)
            inputs = self.merging.pool_inputs
            self.page = ComparePage(self.workspace, self.merging.take_pool, inputs)
        controls = (
            *(self.page.models, self.page.base, self.page.predict, self.page.filter),
            *(self.page.part, self.page.layout, *self.page.pair, self.page.picked),
            *(self.page.seen, *inputs),
        )
        self.values: dict[Any, Any] = {c: c.value for c in controls}

    def set(self, **chosen: Any) -> Page:
        """Set controls by their names."""
        for name, value in chosen.items():
            self.values[getattr(self.page, name)] = value
        return self

    def compare(self, *titles: str) -> list[Any]:
        """Compare to the end; what the page is then told."""
        self.set(models=list(titles))
        message, _ = self.page.on_start(self.values)
        assert message == ""
        self.workspace.comparisons.job.job.wait(60)
        return self.poll()

    def poll(self) -> list[Any]:
        """What is new; the page takes over the values that it is given."""
        news = self.page.on_poll(self.values)
        if isinstance(news[0], str):
            self.set(seen=news[0])
        if isinstance(news[2], dict) and news[2].get("value"):
            self.set(part=news[2]["value"])
        return news

    def pair(self, one: str, two: str) -> Page:
        """Choose two models to look at."""
        self.values[self.page.pair[0]] = one
        self.values[self.page.pair[1]] = two
        return self


@pytest.fixture
def page(host: FakeHost) -> Page:
    return Page(host)


THREE = ("a.safetensors", "b.safetensors", "c.safetensors")


def test_view_shows_every_model_and_the_map_after_comparing(page: Page) -> None:
    *_, view = page.compare(*THREE)
    assert [f'data-merge-tick="{i}"' in view for i in range(3)] == [True] * 3
    assert view.count("<svg") == 3
    assert "classical MDS" in view


def test_poll_changes_nothing_when_nothing_is_new(page: Page) -> None:
    page.compare(*THREE)
    assert page.poll() == [gr.update()] * 6


def test_problem_is_said_when_one_model_is_chosen(page: Page) -> None:
    page.set(models=["a.safetensors"])
    message, _ = page.page.on_start(page.values)
    assert "merge-bad" in message
    assert page.workspace.comparisons.job.job is None


def test_problem_is_said_when_architectures_differ(page: Page) -> None:
    page.set(models=["a.safetensors", "xl.safetensors"])
    message, _ = page.page.on_start(page.values)
    assert "xl" in message


def test_copies_are_named_when_two_files_are_equal(page: Page) -> None:
    folder = page.host.catalog.folder
    shutil.copyfile(folder / "a.safetensors", folder / "d.safetensors")
    *_, view = page.compare(*THREE, "d.safetensors")
    assert "Equal in every value: a, d." in view


def test_ticked_models_go_to_the_pool_and_choose_a_pool_method(page: Page) -> None:
    page.compare(*THREE)
    page.set(picked="0,2")
    told, method, pool = page.page.on_send(page.values)
    assert "2 models sent" in told
    assert method["value"] == methods().get("uniform_soup").label
    assert pool["value"] == ["a.safetensors", "c.safetensors"]


def test_pool_method_stays_when_models_are_sent_to_it(page: Page) -> None:
    page.compare(*THREE)
    page.set(picked="1")
    page.values[page.merging.method] = methods().get("tsd").label
    _, method, pool = page.page.on_send(page.values)
    assert "value" not in method
    assert pool["value"] == ["b.safetensors"]


def test_nothing_is_sent_when_nothing_is_ticked(page: Page) -> None:
    page.compare(*THREE)
    told, method, pool = page.page.on_send(page.values)
    assert "No model is ticked" in told
    assert "value" not in method
    assert "value" not in pool


def test_sending_names_models_that_the_host_lost(page: Page) -> None:
    page.compare(*THREE)
    (page.host.catalog.folder / "b.safetensors").unlink()
    page.set(picked="0,1")
    told, *_ = page.page.on_send(page.values)
    assert "Not among this host" in told
    assert "b" in told


def test_ticks_stay_when_another_part_is_looked_at(page: Page) -> None:
    page.compare(*THREE)
    view = page.page.on_look(page.set(part="IN04", picked="1").values)
    assert re.findall(r'data-merge-tick="(\d)" checked', view) == ["1"]
    assert "IN04" in view


def test_pair_is_drawn_block_by_block_when_two_are_chosen(page: Page) -> None:
    page.compare(*THREE)
    view = page.page.on_look(page.pair("a", "c").values)
    assert "Relative L2 distance by block: a and c" in view


def test_histogram_is_drawn_of_one_block_of_the_pair(page: Page) -> None:
    page.compare(*THREE)
    page.pair("a", "b").set(part="IN04")
    message, _ = page.page.on_histogram(page.values)
    assert message == ""
    page.workspace.comparisons.job.job.wait(60)
    *_, view = page.poll()
    assert "IN04: b less a" in view


@pytest.mark.parametrize(
    ("part", "pair", "said"),
    [
        ("unet", ("a", "b"), "is of one block"),
        ("IN04", (None, None), "Choose the two models"),
        ("IN04", ("a", "a"), "two different models"),
    ],
    ids=["component", "no_pair", "same_model"],
)
def test_histogram_says_what_is_missing(
    page: Page, part: str, pair: tuple[Any, Any], said: str
) -> None:
    page.compare(*THREE)
    message, _ = page.page.on_histogram(page.pair(*pair).set(part=part).values)
    assert said in message


def test_missing_library_is_said_where_the_map_would_be(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.compare(*THREE)
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    view = page.page.on_look(page.set(layout="neighbourhoods (UMAP)").values)
    assert "merge-bad" in view
    assert "umap" in view


def test_export_is_opened_again_with_the_same_distances(page: Page) -> None:
    page.compare(*THREE)
    before = page.workspace.comparisons.result().part("unet").l2()
    assert "Saved in" in page.page.on_export(page.values)
    folder = next((page.host.catalog.data_dir() / "comparisons").iterdir())
    names = {path.name for path in folder.iterdir()}
    charts = {f"{c}{s}" for c in ("map", "distances", "base") for s in (".svg", ".png")}
    assert names == charts | {"comparison.json", "comparison.csv"}
    message, _ = page.page.on_open(str(folder / "comparison.json"))
    assert message == ""
    after = page.workspace.comparisons.result().part("unet").l2()
    assert after.tolist() == before.tolist()


def test_file_that_is_no_comparison_is_refused_and_the_old_one_stays(
    page: Page, tmp_path: Any
) -> None:
    page.compare(*THREE)
    shown = page.workspace.comparisons.comparison
    (tmp_path / "x.json").write_text(json.dumps({"a": 1}), encoding="utf-8")
    message, _ = page.page.on_open(str(tmp_path / "x.json"))
    assert "merge-bad" in message
    assert page.workspace.comparisons.comparison is shown


def test_filter_adds_to_what_is_chosen(page: Page) -> None:
    page.set(models=["xl.safetensors"], filter="b.")
    assert page.page.on_add(page.values)["value"] == ["xl.safetensors", "b.safetensors"]


def test_predictions_are_shown_when_asked_for(page: Page) -> None:
    page.set(predict="on all values (exact)")
    *_, view = page.compare(*THREE)
    assert "Where a merge of these models would lie" in view
    assert "uniform_soup" in view
