"""The Recipes page's handlers, the history, and what comes in and goes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_merge.core.blocks import BlockId
from lib_merge.core.nodes import LoraNode
from lib_merge.core.recipe import ModelNode, Recipe, Setting, simple_recipe
from lib_merge.engine.save import merge_to_file
from lib_merge.formats.files import read_path, write
from lib_merge.formats.short_form import picture_fields
from lib_merge.methods import methods
from lib_merge.ui import recipe_page
from lib_merge.ui.form import recipe_of
from lib_merge.ui.recipe_desk import MAX_IMPORTED
from lib_merge.ui.recipe_graph import MAX_NODES, recipe_graph
from lib_merge.ui.recipe_history import LOADED, History
from lib_merge.ui.recipe_view import details_html, difference_html
from lib_merge.ui.tabs.merge import MergePage
from lib_merge.ui.tabs.recipes import MERGE_PAGE, RecipesPage
from lib_merge.ui.workspace import Workspace
from tests.ui.fakes import FakeHost


class Page:
    """Recipes and Merge page of one host."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.workspace = Workspace(host)
        with gr.Blocks(), gr.Tabs() as tabs, gr.Tab("both"):
            self.merge = MergePage(self.workspace)
            self.page = RecipesPage(self.workspace, self.merge.taker, tabs)
        self.targets = [*self.merge.taker.inputs, tabs]

    def recipe(self, alpha: float = 0.5, **options: Any) -> Recipe:
        """A merge of a and b."""
        paths = tuple(str(self.host.catalog.folder / f"{n}.safetensors") for n in "ab")
        setting = Setting(alpha, ((BlockId("IN04"), 0.7),))
        return simple_recipe("weighted_sum", paths, {"alpha": setting}, **options)

    def keep(self, name: str, recipe: Recipe) -> str:
        """Save a recipe; its key."""
        self.workspace.save_recipe(recipe, name)
        return f"r:{name}"

    def merged(self, updates: list[Any]) -> dict[Any, Any]:
        """What the Merge page's controls hold after updates that were sent to it."""
        values: dict[Any, Any] = {c: c.value for c in self.merge.inputs}
        for control, update in zip(self.targets, updates, strict=True):
            if isinstance(update, dict) and "value" in update:
                values[control] = update["value"]
            elif isinstance(update, str):
                values[control] = update
        return values


@pytest.fixture
def page(host: FakeHost) -> Page:
    return Page(host)


def _wait(workspace: Workspace) -> None:
    job = workspace.merging.job
    assert job is not None
    job.wait(60)
    assert "merge-bad" not in str(job.view().message)


def _picture(folder: Path, text: str) -> Path:
    info = PngInfo()
    info.add_text("parameters", text)
    path = folder / "picture.png"
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def test_every_load_and_save_is_remembered_with_name_hash_and_place(
    page: Page,
) -> None:
    recipe = page.recipe()
    output = page.workspace.output_path("mine")
    page.workspace.save(recipe, output, overwrite=False)
    _wait(page.workspace)
    page.workspace.load(recipe)
    _wait(page.workspace)
    loaded, saved = page.workspace.recipes.items()
    assert (loaded.what, saved.what) == ("loaded", "saved")
    assert saved.name == "mine"
    assert saved.where == str(output)
    assert {loaded.digest, saved.digest} == {recipe.digest()}
    assert page.workspace.recipes.recipe(saved.key) == recipe
    shown = page.page.on_pick(f"1|{saved.key}")
    assert shown[0] == saved.key
    assert f"Saved as {output}" in shown[1]
    again = Workspace(page.host)
    assert [item.name for item in again.recipes.items()] == [loaded.name, "mine"]


def test_a_merge_that_failed_is_not_remembered(page: Page) -> None:
    paths = tuple(str(page.host.catalog.folder / f"{n}.safetensors") for n in "ax")
    page.workspace.load(simple_recipe("weighted_sum", paths, {}))
    job = page.workspace.merging.job
    assert job is not None
    job.wait(30)
    assert page.workspace.recipes.items() == []


def test_a_cut_line_and_a_damaged_recipe_cost_only_themselves(tmp_path: Path) -> None:
    history = History(lambda: tmp_path)
    recipe = Recipe((ModelNode("a.safetensors"),))
    history.add(recipe, LOADED, "first")
    log = tmp_path / "history" / "log.jsonl"
    with log.open("a", encoding="utf-8") as file:
        file.write('{"time": "2026-')
        file.write("\n")
    history.add(recipe, LOADED, "second")
    assert [past.name for past in history.entries()] == ["second", "first"]
    (tmp_path / "history" / f"{recipe.digest()}.json").write_text("{", encoding="utf-8")
    assert history.recipe(recipe.digest()) is None
    assert history.recipe("../../etc") is None


def test_history_on_a_full_disk_does_not_undo_the_merge(tmp_path: Path) -> None:
    (tmp_path / "history").write_text("", encoding="utf-8")
    History(lambda: tmp_path).add(Recipe((ModelNode("a"),)), LOADED, "x")
    assert History(lambda: tmp_path).entries() == ()


def test_search_takes_words_of_names_models_methods_and_hashes(page: Page) -> None:
    first, second = page.recipe(0.25), page.recipe(0.75)
    page.keep("soft cat", first)
    page.keep("hard cat", second)
    table = page.page.on_search("cat soft", "")
    assert "soft cat" in table
    assert "hard cat" not in table
    assert "hard cat" in page.page.on_search(second.digest()[:8], "")
    assert "2 entries" in page.page.on_search("weighted_sum a", "")
    assert "No recipe has these words" in page.page.on_search("dog", "")


def test_opened_recipe_fills_the_merge_page(page: Page) -> None:
    recipe = page.recipe(0.3, save_dtype=None)
    message, *updates = page.page.on_open(page.keep("one", recipe))
    assert message == ""
    values = page.merged(updates)
    form = page.merge.form(values)
    assert recipe_of(form, page.host.catalog).digest() == recipe.digest()
    assert updates[-1]["selected"] == MERGE_PAGE


def test_change_of_method_that_follows_keeps_the_opened_values(page: Page) -> None:
    paths = tuple(str(page.host.catalog.folder / f"{n}.safetensors") for n in "abc")
    given = {"density": Setting(0.4), "weight@1": Setting(0.1), "weight@2": Setting(1)}
    recipe = simple_recipe("ties", paths, given)
    _, *updates = page.page.on_open(page.keep("one", recipe))
    values = page.merged(updates)
    values[page.merge.taken] = updates[0]
    cleared, *_ = page.merge.on_method(values)
    assert cleared == ""
    again = recipe_of(page.merge.form(values), page.host.catalog)
    assert dict(again.nodes[-1].params)["density"].value == 0.4  # type: ignore[union-attr]
    assert dict(again.nodes[-1].params)["weight@1"].value == 0.1  # type: ignore[union-attr]
    values[page.merge.taken] = ""
    page.merge.on_method(values)
    assert page.merge.form(values).values[0] == ("density", 0.2)


def test_values_of_another_method_are_not_taken_over() -> None:
    text = json.dumps(["slerp", {"alpha": 0.9}, {}])
    assert recipe_page.numbers_of(text, methods().get("slerp")) == {"alpha": 0.9}
    assert recipe_page.numbers_of(text, methods().get("weighted_sum")) == {}
    assert recipe_page.numbers_of("{broken", methods().get("slerp")) == {}


def test_recipe_beyond_the_controls_says_so_and_changes_nothing(page: Page) -> None:
    lora = LoraNode("l.safetensors", 2)
    recipe = Recipe((*page.recipe().nodes, lora))
    message, *updates = page.page.on_open(page.keep("deep", recipe))
    assert "merge-bad" in message
    assert all(update == gr.update() for update in updates)


def test_run_again_from_the_page(page: Page) -> None:
    key = page.keep("one", page.recipe())
    assert page.page.on_load(key)[0] == ""
    _wait(page.workspace)
    assert page.workspace.live.is_merged()
    assert page.page.on_save(key, "again")[0] == ""
    _wait(page.workspace)
    assert (page.host.catalog.folder / "again.safetensors").is_file()
    assert "exists" in page.page.on_save(key, "again")[0]
    assert "has no name" in page.page.on_save(key, " ")[0]
    assert "No recipe is chosen" in page.page.on_load("")[0]


def test_kept_and_deleted(page: Page) -> None:
    page.workspace.history.add(page.recipe(), LOADED, "x")
    (item,) = page.workspace.recipes.items()
    message, table = page.page.on_keep(item.key, "kept", "")
    assert "merge-good" in message
    assert "kept" in table
    assert "exists" in page.page.on_keep(item.key, "kept", "")[0]
    message, table = page.page.on_delete("r:kept", "")
    assert "deleted" in message
    assert "kept" not in table
    assert "stays in the history" in page.page.on_delete(item.key, "")[0]


def test_two_recipes_are_compared(page: Page) -> None:
    first, second = page.recipe(0.25), page.recipe(0.75)
    key = page.keep("soft", first)
    page.keep("hard", second)
    label = f"hard [{second.digest()[:10]}]"
    shown = page.page.on_compare(key, label)
    assert "They differ in 1 place" in shown
    assert "<td>0.25</td><td>0.75</td>" in shown
    assert "say the same" in difference_html(first, first, ("a", "b"))
    assert "There is no recipe" in page.page.on_compare(key, "gone [x]")


@pytest.mark.parametrize("title", ["MergeLab recipe", "sd-mecha recipe"])
def test_exported_file_is_read_back(page: Page, title: str) -> None:
    key = page.keep("one", page.recipe())
    message, file = page.page.on_export(key, "", title)
    assert "merge-good" in message
    entry = read_path(Path(file["value"])).entry()
    assert entry.recipe is not None
    assert len(entry.recipe.models()) == 2


def test_a_format_that_cannot_say_it_tells_why(page: Page) -> None:
    models = tuple(f"{n}.safetensors" for n in "abc")
    key = page.keep("pool", simple_recipe("ties", models, {}))
    message, file = page.page.on_export(key, "x", "preset of block weights")
    assert "merge-bad" in message
    assert file["visible"] is False


@pytest.mark.parametrize("format_id", ["mergelab", "mecha"])
def test_dropped_recipe_is_kept_and_shown(
    page: Page, tmp_path: Path, format_id: str
) -> None:
    plain = simple_recipe(
        "weighted_sum", ("a.safetensors", "b.safetensors"), {"alpha": Setting(0.5)}
    )
    path = tmp_path / "from elsewhere.json"
    path.write_text(write(plain, format_id), encoding="utf-8")
    chosen, details, _, message, _, table, *rest = page.page.on_drop(str(path), "")
    assert "merge-good" in message
    assert chosen.startswith("r:from elsewhere")
    assert "Weighted sum" in details
    assert "from elsewhere" in table
    assert all(update == gr.update() for update in rest)
    page.page.on_drop(str(path), "")
    names = [item.name for item in page.workspace.recipes.items()]
    assert names == ["from elsewhere"]


def test_dropped_model_gives_its_recipe(page: Page, tmp_path: Path) -> None:
    saved = merge_to_file(page.recipe(), tmp_path / "merged.safetensors")
    chosen, *_ = page.page.on_drop(str(saved.path), "")
    assert chosen == "r:merged"


def test_weights_without_models_are_told_as_text(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "preset.txt"
    path.write_text("mine\t" + ",".join(["0.5"] * 25), encoding="utf-8")
    shown = page.page.on_drop(str(path), "")
    assert "names no models" in shown[3]
    assert "IN00=0.5" in shown[3]


def test_a_history_of_many_is_cut_and_told(page: Page, tmp_path: Path) -> None:
    lines = [f"n{i}\t" + ",".join(["0.5"] * 25) for i in range(MAX_IMPORTED + 3)]
    path = tmp_path / "presets.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert "3 more recipes" in page.page.on_drop(str(path), "")[3]


def test_what_is_no_recipe_is_said(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[1, 2]", encoding="utf-8")
    assert "no format" in page.page.on_drop(str(path), "")[3]


def test_dropped_picture_opens_its_recipe_on_the_merge_page(
    page: Page, tmp_path: Path
) -> None:
    recipe = page.recipe(0.35)
    page.workspace.history.add(recipe, LOADED, "x")
    fields = ", ".join(f'{k}: "{v}"' for k, v in picture_fields(recipe).items())
    picture = _picture(tmp_path, f"a cat\nSteps: 20, Seed: 1, {fields}, Version: v1")
    chosen, _, _, message, _, _, *updates = page.page.on_drop(str(picture), "")
    assert chosen == f"m:{recipe.digest()}"
    assert "Found recipe" in message
    form = page.merge.form(page.merged(updates))
    assert recipe_of(form, page.host.catalog).digest() == recipe.digest()


def test_picture_of_an_unknown_recipe_says_so(page: Page, tmp_path: Path) -> None:
    text = f"a cat\nSteps: 20, MergeLab recipe: {'ab' * 8}"
    shown = page.page.on_drop(str(_picture(tmp_path, text)), "")
    assert f"{'ab' * 8}, which is not among" in shown[3]
    plain = page.page.on_drop(str(_picture(tmp_path, "a cat\nSteps: 20")), "")
    assert "says nothing of a MergeLab recipe" in plain[3]


def test_poll_has_news_once(page: Page) -> None:
    token, *_ = page.page.on_poll("", "", "")
    assert page.page.on_poll(token, "", "") == [gr.update()] * 4
    page.keep("new", page.recipe())
    again, _, table, others = page.page.on_poll(token, "", "")
    assert again != token
    assert "new" in table
    assert len(others["choices"]) == 1


def test_names_are_escaped(page: Page) -> None:
    recipe = simple_recipe("weighted_sum", ("<b>x</b>", "y"), {"alpha": Setting(0.5)})
    shown = details_html(recipe, "<script>", ())
    assert "<script>" not in shown
    assert "<b>x" not in shown


def test_graph_has_every_node_and_gives_up_on_hundreds() -> None:
    recipe = simple_recipe("ties", ("a", "b", "c"), {})
    drawing = recipe_graph(recipe)
    assert drawing is not None
    titles = [getattr(shape, "title", "") for shape in drawing.shapes]
    assert {"a", "b", "c"} <= set(titles)
    many = simple_recipe("uniform_soup", tuple(map(str, range(MAX_NODES))), {})
    assert recipe_graph(many) is None
    assert "Too many nodes" in details_html(many, "many", ())


def test_two_thousand_entries_are_listed_in_a_small_table(page: Page) -> None:
    recipe = page.recipe()
    for number in range(300):
        page.workspace.history.add(recipe, LOADED, f"merge {number}")
    table = page.page.on_search("", "")
    assert "300 entries" in table
    assert len(table) < 200_000
