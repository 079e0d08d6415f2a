"""A run through a real, running WebUI, in a real browser.

    MERGELAB_HOST_URL=http://127.0.0.1:7860 MERGELAB_HOST_MODELS=a,b \
        python -m pytest -m host tests/hosts/test_running_webui.py

MERGELAB_HOST_MODELS names two checkpoints of one architecture by parts of their titles.
MERGELAB_HOST_LORA names a LoRA that the WebUI has; without it the prompts have none.
MERGELAB_HOST_MERGES is how many merges are compared (20). Screenshots go to the folder
MERGELAB_HOST_SHOTS. The first model is loaded at the end; two checkpoints that the run
has saved (mergelab-host-run-...) and its studies (host-run-...) stay in the WebUI.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from tests.hosts.webui_page import WebuiPage

URL = os.environ.get("MERGELAB_HOST_URL", "")
MODELS = [m for m in os.environ.get("MERGELAB_HOST_MODELS", "").split(",") if m]
LORA = os.environ.get("MERGELAB_HOST_LORA", "")
N_MERGES = int(os.environ.get("MERGELAB_HOST_MERGES", "20"))
SHOTS = os.environ.get("MERGELAB_HOST_SHOTS", "")
N_ROW = 10
"""Merges into the loaded model in a row, before any of their files is loaded."""

SAVED = ("mergelab-host-run-a", "mergelab-host-run-b")
"""Taken in turn: a host loads a file again when it is another one than the last."""

PROMPT = "a red circle"
"""The demo's judge knows it."""

N_TRIALS = 10
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run")

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(not URL, reason="no running WebUI (MERGELAB_HOST_URL)"),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    playwright_api = pytest.importorskip("playwright.sync_api")
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser.new_context(viewport={"width": 1280, "height": 1000})
        browser.close()


@pytest.fixture
def webui(context: Any) -> Iterator[WebuiPage]:
    assert len(MODELS) == 2, "name two models: MERGELAB_HOST_MODELS=a,b"
    opened = WebuiPage(context.new_page(), URL)
    opened.switch(MODELS[0])
    # What an earlier run has left in memory.
    opened.restore()
    opened.prepare(PROMPT, 7)
    yield opened
    opened.close()


def shoot(webui: WebuiPage, name: str) -> None:
    """Keep a picture of the page."""
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        webui.page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), full_page=True)


def are_equal(one: Image.Image, two: Image.Image) -> bool:
    """Whether two pictures are equal in every pixel."""
    return one.size == two.size and not ImageChops.difference(one, two).getbbox()


def some_merge(number: int) -> tuple[float, str]:
    """Another alpha and other block weights each time, the same for every host."""
    draw = random.Random(number)
    blocks = draw.sample(["IN01", "IN04", "IN08", "M00", "OUT03", "OUT09", "BASE"], 3)
    text = ", ".join(f"{block}={draw.random():.2f}" for block in blocks)
    return round(draw.random(), 2), text


@dataclass(frozen=True)
class Drawn:
    """Pictures of one merge: as it is, and with the LoRA in the prompt."""

    plain: Image.Image
    with_lora: Image.Image | None


def draw(webui: WebuiPage) -> Drawn:
    """Draw without the LoRA and with it; its traces lie under the next merge."""
    webui.prompt(PROMPT)
    plain = webui.generate()
    if not LORA:
        return Drawn(plain, None)
    webui.prompt(f"{PROMPT} <lora:{LORA}:0.8>")
    with_lora = webui.generate()
    assert not are_equal(with_lora, plain), "the LoRA changed nothing"
    return Drawn(plain, with_lora)


def draw_file(webui: WebuiPage, name: str) -> Drawn:
    """Have the host load a file, really, and draw."""
    for _ in range(3):
        webui.switch(name)
        drawn = draw(webui)
        webui.open_page("Merge")
        if webui.is_said("merge-status", f"Loaded: {name}.safetensors, as it is"):
            return drawn
        # On a busy machine the entry was picked before the host's list was new.
        webui.switch(MODELS[0])
    raise AssertionError(f"the host never loaded {name}")


def assert_equal(found: Drawn, expected: Drawn, what: str) -> None:
    """Compare both pictures of a merge."""
    assert are_equal(found.plain, expected.plain), what
    if found.with_lora is not None and expected.with_lora is not None:
        assert are_equal(found.with_lora, expected.with_lora), f"{what}, with the LoRA"


def test_every_merge_in_memory_draws_what_its_file_draws(webui: WebuiPage) -> None:
    original = draw(webui)
    for start in range(0, N_MERGES, N_ROW):
        row = range(start, min(start + N_ROW, N_MERGES))
        in_memory = {}
        for number in row:
            webui.set_up_merge(*MODELS, *some_merge(number))
            webui.merge_and_load()
            in_memory[number] = draw(webui)
        webui.open_page("Merge")
        shoot(webui, f"merged-{row[-1]}")
        webui.restore()
        assert_equal(draw(webui), original, f"restore after merge {row[-1]}")
        for number in row:
            webui.set_up_merge(*MODELS, *some_merge(number))
            webui.merge_and_save(SAVED[number % 2])
            drawn = draw_file(webui, SAVED[number % 2])
            assert_equal(drawn, in_memory[number], f"merge {number}")
            others = (in_memory[other].plain for other in row if other != number)
            assert not any(are_equal(in_memory[number].plain, one) for one in others)
            assert not are_equal(in_memory[number].plain, original.plain)
        shoot(webui, f"file-{row[-1]}")
        webui.switch(MODELS[0])
    assert_equal(draw(webui), original, "the first model at the end")
    assert webui.faults == []


def test_switching_the_checkpoint_ends_the_merge_and_the_tab_notices(
    webui: WebuiPage,
) -> None:
    first = webui.generate()
    webui.switch(MODELS[1])
    plain = webui.generate()
    webui.switch(MODELS[0])
    webui.set_up_merge(*MODELS, 0.5)
    webui.merge_and_load()
    merged = webui.generate()
    assert not are_equal(merged, first)
    webui.switch(MODELS[1])
    assert are_equal(webui.generate(), plain)
    webui.open_page("Merge")
    webui.says("merge-status", "as it is on disk")
    webui.says("merge-status", MODELS[1])
    shoot(webui, "switched")
    webui.switch(MODELS[0])
    assert are_equal(webui.generate(), first)


def test_two_browser_tabs_see_one_model(webui: WebuiPage) -> None:
    plain = webui.generate()
    other = webui.second()
    other.prepare(PROMPT, 7)
    webui.set_up_merge(*MODELS, 0.4)
    webui.merge_and_load()
    other.open_page("Merge")
    other.says("merge-status", "merged in memory (recipe")
    shoot(other, "second-tab")
    merged = webui.generate()
    assert are_equal(other.generate(), merged)
    other.restore()
    webui.open_page("Merge")
    webui.says("merge-status", "as it is on disk")
    assert are_equal(webui.generate(), plain)
    assert webui.faults == other.faults == []
    other.close()


def test_merges_outlive_reload_ui(webui: WebuiPage) -> None:
    plain = webui.generate()
    webui.set_up_merge(*MODELS, 0.6)
    webui.merge_and_load()
    merged = webui.generate()
    webui.reload_ui()
    webui.open_page("Merge")
    webui.says("merge-status", "merged in memory (recipe")
    shoot(webui, "merge-after-reload")
    webui.prepare(PROMPT, 7)
    assert are_equal(webui.generate(), merged)
    webui.restore()
    assert are_equal(webui.generate(), plain)


def test_a_study_lives_beside_its_user(webui: WebuiPage) -> None:
    plain = webui.generate()
    name = time.strftime("host-run-%H%M%S")
    webui.set_up_study(*MODELS, name, n_trials=N_TRIALS, n_seeds=2)
    shoot(webui, "study-set-up")
    webui.press("merge-mbw-start")
    webui.says("merge-mbw-live", name)
    webui.wait_for_trials(1)
    shoot(webui, "study-running")
    other = webui.second()
    other.prepare(PROMPT, 7)
    # Some trial's merge drew this one; that it comes and the study goes on is asked.
    other.generate()
    done, asked = webui.trials()
    assert asked == N_TRIALS
    webui.wait_for_trials(done + 1)
    check_pause(webui, other, plain)
    check_reload(webui, other, name)
    check_interrupt(webui, other, plain)
    webui.press("merge-mbw-resume")
    webui.wait_for_state("complete")
    webui.says("merge-mbw-trials", "On seeds that the search never saw")
    shoot(webui, "study-complete")
    assert webui.trials() == (N_TRIALS, N_TRIALS)
    assert are_equal(other.generate(), plain)
    webui.open_page("Merge")
    webui.says("merge-status", "as it is on disk")
    assert webui.faults == other.faults == []
    other.close()


def check_pause(webui: WebuiPage, other: WebuiPage, plain: Image.Image) -> None:
    """While a study waits its user's model is there again."""
    webui.press("merge-mbw-pause")
    webui.wait_for_state("paused")
    shoot(webui, "study-paused")
    assert are_equal(other.generate(), plain), "the user's model during a pause"
    webui.press("merge-mbw-resume")
    webui.wait_for_state("running")


def check_reload(webui: WebuiPage, other: WebuiPage, name: str) -> None:
    """Reload UI neither kills a study nor starts it again."""
    done, _ = webui.trials()
    webui.reload_ui()
    webui.open_page("AutoMBW")
    webui.says("merge-mbw-live", name)
    webui.wait_for_state("running")
    webui.wait_for_trials(done + 1)
    assert webui.trials()[1] == N_TRIALS
    shoot(webui, "study-after-reload")
    # The WebUI has served its pages anew: the old ones in other tabs are dead.
    other.page.reload()
    other.wait_until_there()
    other.prepare(PROMPT, 7)
    other.open_page("AutoMBW")
    other.says("merge-mbw-live", name)


def check_interrupt(webui: WebuiPage, other: WebuiPage, plain: Image.Image) -> None:
    """Stop and the host's own Interrupt both end it, kept; Resume goes on."""
    other.interrupt(PROMPT, 7)
    webui.wait_for_state("stopped")
    shoot(webui, "study-interrupted")
    done, _ = webui.trials()
    assert done < N_TRIALS, "it was over before it was interrupted: raise N_TRIALS"
    assert are_equal(other.generate(), plain), "the user's model after Interrupt"
    webui.press("merge-mbw-resume")
    webui.wait_for_state("running")
    webui.press("merge-mbw-stop")
    webui.wait_for_state("stopped")
    assert are_equal(other.generate(), plain), "the user's model after Stop"
    assert webui.trials()[0] >= done


def test_every_page_opens_and_shows_no_fault(webui: WebuiPage) -> None:
    for name in ("Merge", "AutoMBW", "Models", "Compare", "Re-Basin", "Help"):
        webui.open_page(name)
        webui.page.wait_for_timeout(1500)
        shoot(webui, f"page-{name.lower()}")
    assert webui.faults == []
