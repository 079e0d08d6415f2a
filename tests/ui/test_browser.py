"""The tab in a real browser: what a user clicks, on whichever Gradio is installed."""

from __future__ import annotations

import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from lib_merge.checkpoint.metadata import read_recipe
from lib_merge.core.blocks import BlockId
from lib_merge.core.recipe import MergeNode, Setting, simple_recipe
from lib_merge.engine.save import merge_to_file
from lib_merge.formats.request import MergeRequest, Part, Step, recipe_of_request
from lib_merge.methods import methods
from lib_merge.ui import compat
from lib_merge.ui.app import launch_app
from lib_merge.ui.tabs import _study_controls, _study_reading
from lib_merge.ui.widgets import Kind, placed
from lib_merge.ui.workspace import workspace_of
from tests.ui.fakes import FakeHost, FakeScorer

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
playwright_api = pytest.importorskip(
    "playwright.sync_api", reason="browser tests need the playwright package"
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One headless Chromium for all tests of this file."""
    with playwright_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield found
        found.close()


@pytest.fixture
def address(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The standalone app over the fake host; its scorer likes red."""
    labels = {"Fake scorer": "demo_judge"}
    for module in (_study_controls, _study_reading):
        monkeypatch.setattr(module, "scorer_labels", lambda: labels)
    workspace_of(host).studies.scorer = FakeScorer()
    running = launch_app(host, _free_port())
    yield running.address
    workspace_of(host).studies.stop_and_wait(30)
    running.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The tab, opened; a script error or a foreign request fails the test."""
    opened = browser.new_page(viewport={"width": 1280, "height": 1000})
    faults: list[str] = []
    opened.on("pageerror", lambda fault: faults.append(str(fault)))
    opened.on("request", lambda request: faults.extend(_foreign(request.url)))
    opened.goto(address)
    opened.wait_for_selector("#merge-do-save", timeout=60_000)
    yield opened
    opened.close()
    assert faults == []


def _foreign(url: str) -> list[str]:
    """Requests that leave the machine; Gradio 3 and 4 load one script by themselves."""
    is_ours = "127.0.0.1" in url or url.startswith(("data:", "blob:"))
    is_gradios_own = compat.MAJOR < 6 and "iframeResizer" in url
    return [] if is_ours or is_gradios_own else [url]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _choose(page: Any, control: str, text: str) -> None:
    page.click(f"#{control} input")
    # Gradio 3 gives its options another role.
    options = "[role=option]:visible, [data-testid=dropdown-option]:visible"
    page.locator(options, has_text=text).first.click()


def _type(page: Any, control: str, text: str) -> None:
    page.locator(f"#{control} textarea, #{control} input").first.fill(text)


def _value(page: Any, control: str) -> str:
    return str(page.locator(f"#{control} textarea, #{control} input").input_value())


def _open_autombw(page: Any) -> None:
    tab = page.locator("#merge-page-autombw-button")
    if not tab.count():
        tab = page.locator("#merge-pages button", has_text="AutoMBW")
    tab.first.click()
    page.wait_for_selector("#merge-mbw-start:visible")


def _until(
    page: Any, is_there: Callable[[], bool], what: str, timeout_s: float = 60
) -> None:
    end = time.monotonic() + timeout_s
    while not is_there():
        assert time.monotonic() < end, f"never seen: {what}"
        page.wait_for_timeout(100)


def _shows(page: Any, control: str, text: str, timeout_s: float = 60) -> None:
    def is_shown() -> bool:
        # Gradio 3 gives a view's id to two nested elements.
        place = page.locator(f"#{control}")
        return bool(place.count()) and text in place.first.inner_text()

    _until(page, is_shown, f"'{text}' in #{control}", timeout_s)


def _set_block(page: Any, block: str, value: str) -> None:
    cell = f".merge-cell[data-block={block}] input[type=number]"
    page.fill(cell, value)
    page.press(cell, "Tab")


def _use_blocks(page: Any) -> None:
    _choose(page, "merge-model-b", "b.safetensors")
    page.click("#merge-use-blocks input")
    page.wait_for_selector(".merge-cell[data-block=IN04]")


def test_merge_and_save_gives_the_file_of_the_engine(
    page: Any, host: FakeHost, tmp_path: Path
) -> None:
    _use_blocks(page)
    page.locator("#merge-param-0 input[type=number]").fill("0.3")
    _set_block(page, "IN04", "0.7")
    _set_block(page, "M00", "0.1")
    _shows(page, "merge-outlook", "Weighted sum of 2 models")
    assert _value(page, "merge-weights") == "IN04=0.7, M00=0.1"
    _type(page, "merge-name", "from_browser")
    page.click("#merge-do-save")
    _shows(page, "merge-status", "saved from_browser.safetensors")
    folder = host.catalog.folder
    setting = Setting(0.3, ((BlockId("IN04"), 0.7), (BlockId("M00"), 0.1)))
    paths = (str(folder / "a.safetensors"), str(folder / "b.safetensors"))
    recipe = simple_recipe("weighted_sum", paths, {"alpha": setting})
    expected = load_file(merge_to_file(recipe, tmp_path / "expected.safetensors").path)
    found = load_file(folder / "from_browser.safetensors")
    assert found.keys() == expected.keys()
    assert all(found[key].equal(expected[key]) for key in expected)


def test_merge_and_load_then_restore(page: Any, host: FakeHost) -> None:
    _choose(page, "merge-model-b", "b.safetensors")
    page.click("#merge-do-load")
    _shows(page, "merge-status", "merged in memory (recipe")
    page.click("#merge-do-restore")
    _shows(page, "merge-status", "as it is on disk")
    assert host.loader.n_restores == 1


def test_block_editor_and_text_follow_each_other(page: Any) -> None:
    _use_blocks(page)
    _type(page, "merge-weights", "IN00-IN01=0.25, BASE=1")
    number = ".merge-cell[data-block={}] input[type=number]"
    assert page.input_value(number.format("IN01")) == "0.25"
    assert page.input_value(number.format("CLIP_L")) == "1"
    page.click("[data-action=mirror]")
    assert page.input_value(number.format("OUT11")) == "0.25"
    mirrored = "CLIP_L=1, IN00=0.25, IN01=0.25, OUT10=0.25, OUT11=0.25"
    assert _value(page, "merge-weights") == mirrored
    page.click("[data-action=undo]")
    assert _value(page, "merge-weights") == "IN00-IN01=0.25, BASE=1"
    page.click("[data-action=redo]")
    assert _value(page, "merge-weights") == mirrored
    page.click("[data-action=reset]")
    assert _value(page, "merge-weights") == ""
    page.fill(".merge-all", "0.4")
    page.click("[data-action=all]")
    assert _value(page, "merge-weights").count("=0.4") == 28
    page.locator(".merge-cell[data-block=OUT] input[type=range]").press("ArrowRight")
    assert "OUT=0.41" in _value(page, "merge-weights")


def test_blocks_without_a_value_follow_the_main_slider(page: Any) -> None:
    _use_blocks(page)
    _set_block(page, "IN04", "0.9")
    page.locator("#merge-param-0 input[type=number]").fill("0.2")
    number = ".merge-cell[data-block={}] input[type=number]"
    _until(
        page,
        lambda: page.input_value(number.format("IN05")) == "0.2",
        "IN05 at the main value",
    )
    assert page.input_value(number.format("IN04")) == "0.9"


def _choose_method(page: Any, method: str) -> None:
    label = methods().get(method).label
    page.click("#merge-method input")
    options = "[role=option]:visible, [data-testid=dropdown-option]:visible"
    exact = re.compile(rf"^\W*{re.escape(label)}\s*$")
    page.locator(options, has_text=exact).first.click()
    _shows(page, "merge-explanation", methods().get(method).doc.partition("\n")[0])


def test_pool_with_a_base_and_weights_is_saved_as_the_engine_does(
    page: Any, host: FakeHost, tmp_path: Path
) -> None:
    _choose_method(page, "ties")
    _shows(page, "merge-model-a", "Base")
    _shows(page, "merge-model-a", "Deltas are taken from this model")
    for part in ("c.s", "b.s"):
        _type(page, "merge-pool-filter", part)
        page.click("#merge-pool-add")
        _shows(page, "merge-model-pool", f"{part[0]}.safetensors")
    _type(page, "merge-each-0", "0.5, 0.3, 0.2")
    _shows(page, "merge-outlook", "3 numbers for 2 models")
    _type(page, "merge-each-0", "0.5, 0.3")
    _shows(page, "merge-outlook", "base = a, 1 = c, 2 = b")
    page.click("#merge-steps-fold button, #merge-steps-fold .label-wrap")
    _type(page, "merge-steps", "CLIP_L : uniform_soup")
    _shows(page, "merge-outlook", "CLIP_L from Uniform soup")
    _type(page, "merge-name", "pooled")
    page.click("#merge-do-save")
    _shows(page, "merge-status", "saved pooled.safetensors")
    files = [str(host.catalog.folder / f"{name}.safetensors") for name in "acb"]
    settings = {"weight@1": Setting(0.5), "weight@2": Setting(0.3)}
    request = MergeRequest(
        main=Step(methods().get("ties"), tuple(settings.items())),
        models=tuple(files),
        parts=(Part((BlockId("CLIP_L"),), Step(methods().get("uniform_soup"))),),
    )
    path = tmp_path / "expected.safetensors"
    expected = load_file(merge_to_file(recipe_of_request(request), path).path)
    found = load_file(host.catalog.folder / "pooled.safetensors")
    assert all(found[key].equal(expected[key]) for key in expected)


def test_choices_and_seeds_follow_the_method(page: Any, host: FakeHost) -> None:
    _choose(page, "merge-model-b", "b.safetensors")
    for method in ("cosine_a", "comparative_interpolation", "tensor_sum"):
        _choose_method(page, method)
        _shows(page, "merge-outlook", f"{methods().get(method).label} of 2 models")
    _choose_method(page, "comparative_interpolation")
    slots = placed(methods().get("comparative_interpolation"), Kind.CHOICE)
    favour = [spec.name if spec else "" for spec in slots].index("favour")
    _choose(page, f"merge-choice-{favour}", "difference")
    page.locator("#merge-number-0 input").fill("4294967295")
    _type(page, "merge-name", "drawn")
    page.click("#merge-do-save")
    _shows(page, "merge-status", "saved drawn.safetensors")
    recipe = read_recipe(host.catalog.folder / "drawn.safetensors")
    assert recipe is not None
    node = recipe.nodes[-1]
    assert isinstance(node, MergeNode)
    values = {name: setting.value for name, setting in node.params}
    assert (values["favour"], values["seed"]) == (1.0, 4294967295.0)


def test_each_parameter_has_block_weights_of_its_own(page: Any) -> None:
    _use_blocks(page)
    _choose_method(page, "triple_sum")
    page.wait_for_selector(".merge-editor[data-param=alpha]")
    _set_block(page, "IN04", "0.7")
    _choose(page, "merge-block-param", "beta")
    page.wait_for_selector(".merge-editor[data-param=beta]")
    _set_block(page, "M00", "0.1")
    text = "IN04=0.7; beta: M00=0.1"
    _until(page, lambda: _value(page, "merge-weights") == text, text)
    _choose(page, "merge-block-param", "alpha")
    page.wait_for_selector(".merge-editor[data-param=alpha]")
    number = ".merge-cell[data-block={}] input[type=number]"
    assert page.input_value(number.format("IN04")) == "0.7"
    assert page.locator(".merge-own").count() == 1


def test_every_problem_is_shown_where_it_arose(page: Any, host: FakeHost) -> None:
    _use_blocks(page)
    _type(page, "merge-weights", "IN99=1, M00=7")
    _shows(page, "merge-outlook", "no block 'IN99'")
    _shows(page, "merge-outlook", "M00")
    page.click("#merge-do-save")
    _shows(page, "merge-message", "no block 'IN99'")
    assert workspace_of(host).merging.job is None


def test_study_survives_reload_stop_and_resume(page: Any, host: FakeHost) -> None:
    desk = workspace_of(host).studies
    # The study must still be at it when a busy machine has drawn the page again.
    host.renderer.pause_s = 0.5
    _open_autombw(page)
    _type(page, "merge-mbw-n-trials", "12")
    _type(page, "merge-mbw-name", "night")
    page.click("#merge-mbw-start")
    _shows(page, "merge-mbw-live", "running")
    _until(page, lambda: desk.snapshot().trial >= 2, "two trials")
    page.reload()
    page.wait_for_selector("#merge-do-save", timeout=60_000)
    _open_autombw(page)
    _shows(page, "merge-mbw-live", "running", timeout_s=10)
    _shows(page, "merge-mbw-live", "night", timeout_s=10)
    page.click("#merge-mbw-stop")
    _shows(page, "merge-mbw-live", "stopped")
    n_done = desk.snapshot().trial
    assert 2 <= n_done < 12
    host.renderer.pause_s = 0.0
    page.click("#merge-mbw-resume")
    _shows(page, "merge-mbw-live", "complete", timeout_s=180)
    assert len([r for r in desk.study("night").records() if r.is_complete]) == 12
    _shows(page, "merge-mbw-trials", "95 % interval")
    page.click("#merge-mbw-look label:has-text('Leaderboard')")
    _shows(page, "merge-mbw-trials", "1. Trial")
    page.click("#merge-mbw-look label:has-text('Axes')")
    _shows(page, "merge-mbw-trials", "Importance")
    page.click("#merge-mbw-look label:has-text('Pictures')")
    _until(page, lambda: page.locator("#merge-mbw-gallery img").count() > 0, "pictures")
    page.click("#merge-mbw-save-recipe")
    _shows(page, "merge-mbw-message", "night-best.json")
    page.click("#merge-mbw-save-file")
    _shows(page, "merge-mbw-live", "saved night-best.safetensors")
    assert (host.catalog.folder / "night-best.safetensors").exists()
    assert host.loader.written == {}
