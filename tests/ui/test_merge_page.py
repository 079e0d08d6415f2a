"""The Merge page's handlers, on every Gradio, with real small checkpoints."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from safetensors.torch import load_file

from lib_merge.core.ports import CheckpointEntry
from lib_merge.core.recipe import NonFinite, Setting, simple_recipe
from lib_merge.engine.save import merge_to_file
from lib_merge.methods import methods
from lib_merge.ui.form import MergeForm, titles_of
from lib_merge.ui.tabs.merge import MergePage, matching, suggested_name
from lib_merge.ui.widgets import Kind, kind_of, method_by_label, placed
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

    def use(self, method: str) -> list[Any]:
        """Choose a method by its id; what the page then shows."""
        self.choose(method=methods().get(method).label)
        return self.page.on_method(self.values)[1:]

    def param(self, name: str, value: Any) -> Page:
        """Set the control of one of the method's parameters."""
        self.values[self.control(name)] = value
        return self

    def control(self, name: str) -> Any:
        """The control of one of the method's parameters."""
        method = method_by_label(self.values[self.page.method])
        spec = method.param(name)
        assert spec is not None
        kind = kind_of(spec)
        return self.page.params[kind][placed(method, kind).index(spec)]

    def shown(self, name: str) -> dict[str, Any]:
        """How the control of a parameter is dressed after its method was chosen."""
        method = method_by_label(self.values[self.page.method])
        updates = dict(zip(self.outputs(), self.page.on_method(self.values)))  # noqa: B905
        assert method.param(name) is not None
        return dict(updates[self.control(name)])

    def outputs(self) -> list[Any]:
        """The controls that a change of method sets, in order."""
        page = self.page
        params = [control for kind in Kind for control in page.params[kind]]
        head = [page.taken, page.explanation, *page.singles, page.pool_column]
        return [*head, *params, page.block_param, page.editor, page.outlook]

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
    page.choose(use_blocks=True, weights="IN04=0.7, M00=0.1", name="mine")
    page.param("alpha", 0.3)
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
    page.param("alpha", 0.25).page.on_save(page.values)
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
    shown = page.use("add_difference")
    assert [update["visible"] for update in shown[1:4]] == [True, True, True]
    slider = page.shown("alpha")
    assert (slider["minimum"], slider["maximum"], slider["value"]) == (-2.0, 2.0, 1.0)
    assert "Choose model C" in shown[-1]


def test_controls_fit_choices_seeds_and_numbers_of_each_model(page: Page) -> None:
    page.use("tensor_sum")
    names = [c if isinstance(c, str) else c[0] for c in page.control("axis").choices]
    assert (names, page.shown("axis")["value"]) == (["rows", "columns"], "rows")
    page.use("comparative_interpolation")
    assert page.control("seed") in page.page.params[Kind.NUMBER]
    assert page.shown("seed")["value"] == 0
    page.use("stack")
    assert page.control("eps") in page.page.params[Kind.NUMBER]
    assert page.shown("eps")["value"] == 1e-6
    page.use("weighted_mean")
    assert page.shown("weight")["visible"] is True
    shown = dict(zip(page.outputs(), page.use("weighted_sum")))  # noqa: B905
    controls = [c for kind in Kind for c in page.page.params[kind]]
    hidden = [c for c in controls if c is not page.control("alpha")]
    assert {shown[control]["visible"] for control in hidden} == {False}


def test_a_choice_and_a_seed_reach_the_recipe(page: Page) -> None:
    page.use("comparative_interpolation")
    page.param("favour", "difference").param("seed", 2**32 - 1)
    node = page.page._recipe(page.values).nodes[-1]
    values = {name: setting.value for name, setting in node.params}
    assert (values["favour"], values["seed"]) == (1.0, 2.0**32 - 1)
    page.param("seed", -1)
    assert "outside 0 to" in page.page.on_change(page.values)


def test_values_of_the_method_before_do_no_harm(page: Page) -> None:
    page.use("cosine_a")
    page.param("alpha", None).param("stretch", "likeness")
    node = page.page._recipe(page.values).nodes[-1]
    assert [setting.value for _, setting in node.params] == [0.5, 1.0]


def test_a_base_is_told_at_its_list(page: Page) -> None:
    shown = page.choose(b=None).use("amplify_difference")
    assert shown[1]["label"] == "Base"
    assert shown[1]["info"] == "Deltas are taken from this model"
    assert shown[2]["label"] == "Model B"
    assert "Choose model B" in shown[-1]
    shown = page.choose(a=None).use("amplify_difference")
    assert "Choose the base and model B" in shown[-1]
    assert "No base is chosen" in page.page.on_save(page.values)[0]


def test_a_pool_takes_any_number_of_models(page: Page) -> None:
    names = ["c.safetensors", "a.safetensors", "b.safetensors"]
    page.choose(pool=names)
    shown = page.use("uniform_soup")
    places = [update["visible"] for update in shown[1 : len(page.page.singles) + 2]]
    assert places == [False] * len(page.page.singles) + [True]
    assert "Uniform soup of 3 models" in shown[-1]
    assert "1 = c, 2 = a, 3 = b" in shown[-1]
    page.choose(name="soup").page.on_save(page.values)
    assert "saved soup.safetensors" in page.finished()


def test_a_pool_may_be_one_model_but_not_empty(page: Page) -> None:
    page.choose(pool=["a.safetensors"]).use("uniform_soup")
    assert "pool of one model" in page.page.on_change(page.values)
    page.choose(pool=[])
    shown = page.page.on_change(page.values)
    assert "Choose any model of the pool" in shown


def test_models_are_added_by_a_part_of_name_or_folder(page: Page) -> None:
    page.use("uniform_soup")
    page.choose(pool=["b.safetensors"])
    page.values[page.page.pool_filter] = "c.s*"
    names = ["b.safetensors", "c.safetensors"]
    assert page.page.on_pool_add(page.values)["value"] == names
    page.values[page.page.pool_filter] = ""
    page.choose(pool=names)
    every = [*names, "a.safetensors", "xl.safetensors"]
    assert page.page.on_pool_add(page.values)["value"] == every
    assert page.page.on_pool_clear()["value"] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("MIX", ["one/mix.safetensors", "two/mix2.safetensors"]),
        ("two/", ["two/mix2.safetensors", "two/x[1].safetensors"]),
        ("[1]", ["two/x[1].safetensors"]),
        ("?[1]", ["two/x[1].safetensors"]),
        ("one/*mix*", ["one/mix.safetensors"]),
    ],
)
def test_filter_finds_titles_and_paths(text: str, found: list[str]) -> None:
    titles = ["one/mix.safetensors", "two/mix2.safetensors", "two/x[1].safetensors"]
    entries = {t: CheckpointEntry(t, Path("/m") / t) for t in titles}
    assert matching(entries, text) == found


def test_each_model_of_a_pool_has_its_number(page: Page) -> None:
    names = ["a.safetensors", "b.safetensors"]
    page.choose(pool=names).use("weighted_mean")
    page.param("weight", "0.5, 0.3")
    node = page.page._recipe(page.values).nodes[-1]
    assert node.params == (("weight@1", Setting(0.5)), ("weight@2", Setting(0.3)))
    page.param("weight", "1, 2, 3")
    assert "3 numbers for 2 models" in page.page.on_change(page.values)
    page.param("weight", "2")
    assert page.page._recipe(page.values).nodes[-1].params == (("weight", Setting(2)),)
    page.param("weight", " ")
    assert page.page._recipe(page.values).nodes[-1].params == ()


def test_block_weights_may_be_of_any_parameter(page: Page) -> None:
    page.choose(c="c.safetensors", use_blocks=True)
    update = page.use("sum_twice")[-3]
    assert (update["choices"], update["value"]) == (["alpha", "beta"], "alpha")
    assert update["visible"] is True
    page.choose(block_param="beta", weights="IN04=0.7; beta: IN05=0.9")
    shown = page.page.on_block_param(page.values)
    assert 'data-param="beta" data-first="alpha"' in shown
    assert shown.count("merge-own") == 1
    assert 'merge-own" data-block="IN05"' in shown
    params = dict(page.page._recipe(page.values).nodes[-1].params)
    assert params["alpha"].blocks == (("IN04", 0.7),)
    assert params["beta"].blocks == (("IN05", 0.9),)


def test_block_weights_of_one_model_of_a_pool_are_shown(page: Page) -> None:
    page.choose(pool=["a.safetensors", "b.safetensors"], use_blocks=True)
    update = page.use("weighted_mean")[-3]
    assert update["choices"] == ["weight@1", "weight@2"]
    page.param("weight", "1, 3").choose(block_param="weight@2", weights="")
    shown = page.page.on_block_param(page.values)
    assert 'data-param="weight@2" data-first="" data-main="3"' in shown


def test_steps_give_parts_to_other_methods_and_models(page: Page) -> None:
    page.choose(steps="BASE : uniform_soup\nVAE = c.safetensors")
    shown = page.page.on_change(page.values)
    assert "BASE from Uniform soup, VAE from c: blends" in shown
    page.choose(name="parts").page.on_save(page.values)
    assert "saved parts.safetensors" in page.finished()
    found = load_file(page.host.catalog.folder / "parts.safetensors")
    other = load_file(page.host.catalog.folder / "c.safetensors")
    key = "first_stage_model.decoder.conv_in.weight"
    assert found[key].equal(other[key])
    page.choose(steps="VAE = gone.safetensors\nIN99 : uniform_soup")
    shown = page.page.on_change(page.values)
    assert "no model &#x27;gone.safetensors&#x27;" in shown
    assert "no block or component &#x27;IN99&#x27;" in shown


def test_what_happens_to_nan_is_chosen(page: Page) -> None:
    assert page.page._recipe(page.values).on_non_finite is NonFinite.STOP
    page.choose(non_finite="Keep them")
    assert page.page._recipe(page.values).on_non_finite is NonFinite.KEEP


def test_name_tells_values_that_differ_from_their_defaults() -> None:
    values = (("alpha", 0.3), ("beta", 0.0), ("axis", 1.0))
    form = MergeForm("tensor_sum", ("a.safetensors", "b.safetensors"), values)
    assert suggested_name(form) == "a-b-tensor_sum-0.3-axis-columns"


@pytest.fixture(scope="module")
def full_page(model_files: Path) -> Page:
    """A page with all models chosen, over files that nothing is written to."""
    models = {name: f"{name}.safetensors" for name in "abc"}
    pool = ["b.safetensors", "c.safetensors"]
    return Page(FakeHost(model_files)).choose(**models, pool=pool, use_blocks=True)


@pytest.mark.parametrize("method", list(methods()), ids=lambda m: m.id)
def test_every_method_can_be_chosen_and_planned(full_page: Page, method: Any) -> None:
    shown = full_page.use(method.id)
    assert "merge-bad" not in shown[-1], shown[-1]
    assert f"{method.label} of " in html.unescape(shown[-1])


def test_editor_is_drawn_for_the_architecture_of_model_a(page: Page) -> None:
    page.choose(use_blocks=True, a="xl.safetensors")
    column, _, editor, _ = page.page.on_use_blocks(page.values)
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
