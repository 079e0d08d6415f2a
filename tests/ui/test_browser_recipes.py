"""The Recipes and the Settings page in a real browser, on whichever Gradio is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_merge.core.blocks import BlockId
from lib_merge.core.recipe import Recipe, Setting, simple_recipe
from lib_merge.core.user_settings import read_settings
from lib_merge.formats.files import write
from lib_merge.formats.short_form import picture_fields
from lib_merge.ui.workspace import workspace_of
from tests.ui import test_browser as base
from tests.ui.fakes import FakeHost
from tests.ui.test_browser import _choose, _shows, _type, _until, _value

pytestmark = base.pytestmark

browser, address, page = base.browser, base.address, base.page

SHOTS = os.environ.get("MERGELAB_SCREENSHOTS")


def _shot(page: Any, name: str) -> None:
    """Pictures of the page in both themes, where the environment asks for them."""
    if not SHOTS:
        return
    for theme in ("light", "dark"):
        script = "is => document.body.classList.toggle('dark', is)"
        page.evaluate(script, theme == "dark")
        page.wait_for_timeout(300)
        page.screenshot(path=str(Path(SHOTS) / f"{name}-{theme}.png"), full_page=True)
    page.evaluate("document.body.classList.remove('dark')")


def _open(page: Any, name: str, label: str, seen: str) -> None:
    tab = page.locator(f"#merge-page-{name}-button")
    if not tab.count():
        tab = page.locator("#merge-pages button", has_text=label)
    tab.first.click()
    page.wait_for_selector(f"{seen}:visible")


def _open_recipes(page: Any) -> None:
    _open(page, "recipes", "Recipes", "#merge-rec-open")


def _recipe(host: FakeHost, alpha: float, method: str = "weighted_sum") -> Recipe:
    n_models = 3 if method == "ties" else 2
    paths = [str(host.catalog.folder / f"{n}.safetensors") for n in "abc"[:n_models]]
    name = "density" if method == "ties" else "alpha"
    setting = Setting(alpha, ((BlockId("IN04"), 0.9),))
    return simple_recipe(method, tuple(paths), {name: setting})


def _pick(page: Any, name: str) -> None:
    page.locator("#merge-rec-table [data-merge-pick]", has_text=name).first.click()
    _shows(page, "merge-rec-details", name)


def _drop(page: Any, path: Path) -> None:
    page.locator("#merge-rec-drop input[type=file]").first.set_input_files(str(path))


def test_recipe_is_searched_compared_opened_and_run(page: Any, host: FakeHost) -> None:
    workspace = workspace_of(host)
    workspace.save_recipe(_recipe(host, 0.25), "soft")
    workspace.save_recipe(_recipe(host, 0.4, "ties"), "election")
    _open_recipes(page)
    _shows(page, "merge-rec-table", "election")
    _type(page, "merge-rec-search", "soft")
    _shows(page, "merge-rec-table", "1 entry")
    _pick(page, "soft")
    _type(page, "merge-rec-search", "")
    _shows(page, "merge-rec-table", "2 entries")
    fold = "#merge-rec-compare-fold button, #merge-rec-compare-fold .label-wrap"
    page.locator(fold).first.click()
    _choose(page, "merge-rec-other", "election")
    _shows(page, "merge-rec-difference", "They differ in")
    _shot(page, "recipes")
    page.click("#merge-rec-load")
    _shows(page, "merge-rec-live", "the loaded model is now the merge")
    _shows(page, "merge-rec-table", "merged and loaded")
    _pick(page, "election")
    page.click("#merge-rec-open")
    page.wait_for_selector("#merge-do-save:visible")
    _shows(page, "merge-outlook", "TIES of 3 models")
    assert _value(page, "merge-weights") == "IN04=0.9"
    number = page.locator("#merge-param-0 input[type=number]").first.input_value()
    assert float(number) == 0.4
    page.click("#merge-do-save")
    _shows(page, "merge-status", f"recipe {_full(host, 'ties')}")


def _full(host: FakeHost, method: str) -> str:
    """What the Merge page makes of the recipe: all parameters are named there."""
    from lib_merge.ui.form import recipe_of
    from lib_merge.ui.recipe_form import form_of

    recipe = _recipe(host, 0.4, method)
    return recipe_of(form_of(recipe, host.catalog), host.catalog).digest()


def test_recipe_is_kept_exported_and_deleted(page: Any, host: FakeHost) -> None:
    workspace = workspace_of(host)
    workspace.save_recipe(_recipe(host, 0.25), "soft")
    _open_recipes(page)
    _shows(page, "merge-rec-table", "soft")
    _pick(page, "soft")
    _type(page, "merge-rec-name", "softer")
    page.click("#merge-rec-keep")
    _shows(page, "merge-rec-message", "softer.json")
    fold = "#merge-rec-export-fold button, #merge-rec-export-fold .label-wrap"
    page.locator(fold).first.click()
    _choose(page, "merge-rec-format", "sd-mecha")
    page.click("#merge-rec-export")
    _shows(page, "merge-rec-export-told", "softer.mecha")
    assert (host.catalog.data_dir() / "exports" / "softer.mecha").is_file()
    page.click("#merge-rec-delete")
    _shows(page, "merge-rec-message", "Moved to")
    names = [item.name for item in workspace.recipes.items()]
    assert names == ["softer"]


def test_dropped_files_are_kept_and_a_picture_opens_its_recipe(
    page: Any, host: FakeHost, tmp_path: Path
) -> None:
    recipe = _recipe(host, 0.35)
    path = tmp_path / "theirs.mecha"
    path.write_text(write(_recipe(host, 0.1), "mecha"), encoding="utf-8")
    _open_recipes(page)
    _drop(page, path)
    _shows(page, "merge-rec-message", "sd-mecha recipe")
    _shows(page, "merge-rec-details", "theirs")
    info = PngInfo()
    fields = ", ".join(f'{k}: "{v}"' for k, v in picture_fields(recipe).items())
    info.add_text("parameters", f"a cat\nSteps: 1, {fields}, Version: 1")
    picture = tmp_path / "made.png"
    Image.new("RGB", (8, 8)).save(picture, pnginfo=info)
    page.locator("#merge-rec-drop button[aria-label]").first.click()
    _drop(page, picture)
    _shows(page, "merge-rec-message", "not among")
    workspace_of(host).history.add(recipe, "loaded", "x")
    page.locator("#merge-rec-drop button[aria-label]").first.click()
    _drop(page, picture)
    page.wait_for_selector("#merge-do-save:visible")
    _until(
        page, lambda: _value(page, "merge-weights") == "IN04=0.9", "the block weights"
    )


def test_settings_are_checked_stored_and_shown_again(
    page: Any, host: FakeHost, tmp_path: Path
) -> None:
    _open(page, "settings", "Settings", "#merge-set-save")
    _type(page, "merge-set-memory-mb", "3")
    _type(page, "merge-set-merge-device", "gpu")
    page.click("#merge-set-save")
    _shows(page, "merge-set-told", "at least 64")
    _shows(page, "merge-set-told", "no device")
    _shot(page, "settings")
    _type(page, "merge-set-memory-mb", "512")
    _type(page, "merge-set-merge-device", "cpu")
    _type(page, "merge-set-storage-url", f"journal:{tmp_path / 'log'}")
    page.click("#merge-set-save")
    _shows(page, "merge-set-told", "Saved")
    assert read_settings(host.settings.read())[0].memory_mb == 512
    page.reload()
    page.wait_for_selector("#merge-do-save", timeout=60_000)
    _open(page, "settings", "Settings", "#merge-set-save")
    _until(page, lambda: _value(page, "merge-set-memory-mb") == "512", "512 MB again")
    assert _value(page, "merge-set-merge-device") == "cpu"


@pytest.mark.parametrize("width", [1280, 1920])
def test_nothing_is_wider_than_the_window(
    page: Any, host: FakeHost, width: int
) -> None:
    workspace = workspace_of(host)
    workspace.save_recipe(_recipe(host, 0.25), "a recipe with a rather long name " * 3)
    page.set_viewport_size({"width": width, "height": 1000})
    _open_recipes(page)
    _shows(page, "merge-rec-table", "rather long")
    _pick(page, "rather long")
    for name, label, seen in (
        ("recipes", "Recipes", "#merge-rec-open"),
        ("settings", "Settings", "#merge-set-save"),
    ):
        _open(page, name, label, seen)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
