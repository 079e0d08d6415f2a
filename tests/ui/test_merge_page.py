"""The Merge page's handlers, on every Gradio, with real small checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from safetensors.torch import load_file

from lib_merge.core.ports import CheckpointEntry
from lib_merge.core.recipe import Setting, simple_recipe
from lib_merge.engine.save import merge_to_file
from lib_merge.methods import methods
from lib_merge.ui.form import MergeForm, titles_of
from lib_merge.ui.tabs.merge import MergePage, suggested_name
from lib_merge.ui.workspace import Workspace
from tests.ui.fakes import FakeHost


class Page:
    """The page with values set as a user would.

    Args:
        host: What it works on.
    """

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.workspace = Workspace(host)
        with gr.Blocks():
            self.page = MergePage(self.workspace)
        self.values: dict[Any, Any] = {c: c.value for c in self.page.inputs}
        self.values |= {self.page.name: "", self.page.overwrite: False}

    def choose(self, **chosen: Any) -> Page:
        """Set controls by their names; a and b are the model lists."""
        for name, value in chosen.items():
            place = "abc".find(name)
            control = self.page.singles[place] if place >= 0 else None
            control = control or getattr(self.page, name)
            self.values[control] = value
        return self

    def alpha(self, value: float) -> Page:
        """Move the first slider."""
        self.values[self.page.sliders[0]] = value
        return self

    def finished(self) -> str:
        """Wait for the job; what the page shows then."""
        job = self.workspace.merging.job
        assert job is not None
        job.wait(60)
        assert not job.is_active
        return str(self.page.on_poll("")[1])


@pytest.fixture
def page(host: FakeHost) -> Page:
    """A page with A and B chosen."""
    return Page(host).choose(a="a.safetensors", b="b.safetensors")


def _same_tensors(first: Path, second: Path) -> bool:
    one, other = load_file(first), load_file(second)
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and one[key].equal(other[key]) for key in one
    )


def test_page_opens_with_the_first_model_and_asks_for_the_second(
    host: FakeHost,
) -> None:
    opened = Page(host)
    assert opened.page.singles[0].value == "a.safetensors"
    assert "Choose model B" in opened.page.outlook.value
    assert "No model is loaded yet" in opened.page.status.value


def test_outlook_tells_in_one_sentence_what_will_happen(page: Page) -> None:
    shown = page.page.on_change(page.values)
    assert "Weighted sum of 2 models (Stable Diffusion 1.x; A = a, B = b)" in shown
    assert "computes in float32, stores float16" in shown


def test_outlook_lists_every_problem_at_once(page: Page) -> None:
    page.choose(use_blocks=True, weights="IN99=1, M00=7", rules="OUT03", parts=[])
    shown = page.page.on_change(page.values)
    assert shown.count("merge-line") == 4
    for part in ("IN99", "M00", "lacks a field", "Nothing is chosen"):
        assert part in shown


def test_outlook_names_mixed_architectures(page: Page) -> None:
    shown = page.choose(b="xl.safetensors").page.on_change(page.values)
    assert 'role="alert"' in shown
    assert "xl.safetensors" in shown


def test_outlook_says_when_a_file_is_truncated(page: Page) -> None:
    path = page.host.catalog.folder / "b.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    shown = page.page.on_change(page.values)
    assert 'role="alert"' in shown
    assert "b.safetensors" in shown


def test_rules_are_counted_while_they_are_typed(page: Page) -> None:
    page.choose(rules="IN01:attn2.to_k.weight:0.4\nIN01:no such key:1")
    shown = page.page.on_change(page.values)
    assert "Rule 1 catches 1 tensor." in shown
    assert "Rule 2 catches 0 tensors." in shown


def test_saved_file_equals_the_engine_result(page: Page, tmp_path: Path) -> None:
    page.choose(use_blocks=True, weights="IN04=0.7, M00=0.1", name="mine").alpha(0.3)
    message, _ = page.page.on_save(page.values)
    assert message == ""
    assert "saved mine.safetensors" in page.finished()
    folder = page.host.catalog.folder
    setting = Setting(0.3, (("IN04", 0.7), ("M00", 0.1)))  # type: ignore[arg-type]
    recipe = simple_recipe(
        "weighted_sum",
        (str(folder / "a.safetensors"), str(folder / "b.safetensors")),
        {"alpha": setting},
    )
    expected = merge_to_file(recipe, tmp_path / "expected.safetensors")
    assert _same_tensors(folder / "mine.safetensors", expected.path)
    assert page.host.catalog.registered == [folder / "mine.safetensors"]


def test_saved_file_appears_in_the_lists(page: Page) -> None:
    token = page.page.on_poll("")[0]
    page.choose(name="mine").page.on_save(page.values)
    page.finished()
    update = page.page.on_poll(token)[2]
    titles = [c if isinstance(c, str) else c[0] for c in update["choices"]]
    assert "mine.safetensors" in titles


def test_saving_over_a_file_needs_the_tick(page: Page) -> None:
    page.choose(name="c")
    before = (page.host.catalog.folder / "c.safetensors").read_bytes()
    page.page.on_save(page.values)
    assert 'role="alert"' in page.finished()
    assert (page.host.catalog.folder / "c.safetensors").read_bytes() == before
    page.choose(overwrite=True).page.on_save(page.values)
    assert "saved c.safetensors" in page.finished()


@pytest.mark.parametrize(
    "name", ["../evil", "/tmp/evil", "a\\b", "x:y", "..", ".safetensors"]
)
def test_file_names_stay_in_the_output_folder(page: Page, name: str) -> None:
    message, _ = page.choose(name=name).page.on_save(page.values)
    assert 'role="alert"' in message
    assert page.workspace.merging.job is None


def test_an_empty_name_becomes_one_that_tells_the_merge(page: Page) -> None:
    page.alpha(0.25).page.on_save(page.values)
    page.finished()
    name = "a-b-weighted_sum-0.25.safetensors"
    assert (page.host.catalog.folder / name).exists()


def test_name_of_a_large_pool_stays_short() -> None:
    form = MergeForm("uniform_soup", tuple(f"{n}.safetensors" for n in "abcdefg"))
    assert suggested_name(form) == "a-6-more-uniform_soup"


def test_merge_and_load_writes_no_file_and_restore_undoes_it(page: Page) -> None:
    files = sorted(page.host.catalog.folder.glob("*"))
    message, _ = page.page.on_load(page.values)
    assert message == ""
    shown = page.finished()
    assert "merged in memory (recipe" in shown
    assert page.host.loader.written
    assert sorted(page.host.catalog.folder.glob("*")) == files
    page.page.on_restore()
    assert "as it is on disk" in page.finished()
    assert page.host.loader.n_restores == 1


def test_poll_sends_nothing_when_nothing_changed(page: Page) -> None:
    token, *_ = page.page.on_poll("")
    again = page.page.on_poll(token)
    assert all("value" not in u and "choices" not in u for u in again)


def test_cancel_without_a_job_says_so(page: Page) -> None:
    message, _ = page.page.on_cancel()
    assert "Nothing is running" in message


def test_another_method_shows_its_inputs_and_limits(page: Page) -> None:
    page.choose(method=methods().get("add_difference").label)
    shown = page.page.on_method(page.values)
    models, slider = shown[1:4], shown[5]
    assert [update["visible"] for update in models] == [True, True, True]
    assert (slider["minimum"], slider["maximum"], slider["value"]) == (-2.0, 2.0, 1.0)
    assert "Choose model C" in shown[-1]


def test_a_pool_takes_any_number_of_models(page: Page) -> None:
    names = ["a.safetensors", "b.safetensors", "c.safetensors"]
    page.choose(method=methods().get("uniform_soup").label, pool=names)
    shown = page.page.on_method(page.values)
    assert [update["visible"] for update in shown[1:5]] == [False, False, False, True]
    assert "Uniform soup of 3 models" in shown[-1]
    page.choose(name="soup").page.on_save(page.values)
    assert "saved soup.safetensors" in page.finished()


def test_editor_is_drawn_for_the_architecture_of_model_a(page: Page) -> None:
    page.choose(use_blocks=True, a="xl.safetensors")
    column, editor, _ = page.page.on_use_blocks(page.values)
    assert column["visible"] is True
    assert 'data-block="LABEL_EMB"' in editor
    assert 'data-block="IN09"' not in editor


def test_a_title_keeps_its_model_when_the_host_learns_its_hash(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = page.host.catalog.checkpoints()
    hashed = tuple(replace(e, title=f"{e.title} [0123456789]") for e in entries)
    monkeypatch.setattr(page.host.catalog, "checkpoints", lambda: hashed)
    assert "Weighted sum of 2 models" in page.page.on_change(page.values)


def test_equal_titles_are_told_apart_by_their_folders() -> None:
    entries = (
        CheckpointEntry("m.safetensors", Path("one/m.safetensors")),
        CheckpointEntry("m.safetensors", Path("two/m.safetensors")),
    )
    shown = titles_of(entries)
    assert list(shown) == ["m.safetensors (one)", "m.safetensors (two)"]


def test_an_unexpected_error_is_shown_with_its_type(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(page.host.catalog, "checkpoints", broken)
    message, _ = page.page.on_load(page.values)
    assert "OSError: the disk is on fire" in message
