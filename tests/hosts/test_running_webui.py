"""A run through a real, running WebUI, in a real browser.

    MERGELAB_HOST_URL=http://127.0.0.1:7860 MERGELAB_HOST_MODELS=a,b \
        python -m pytest -m host tests/hosts/test_running_webui.py

MERGELAB_HOST_MODELS names two checkpoints of one architecture by parts of their titles.
MERGELAB_HOST_LORA names a LoRA that the WebUI has; without it the prompts have none.
MERGELAB_HOST_MERGES is how many merges are compared (20). Screenshots go to the folder
MERGELAB_HOST_SHOTS. The WebUI's model is at the end what it was.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
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
SAVED = "mergelab-host-run"
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
    opened.prepare("a red house by the sea", 7)
    yield opened
    opened.page.close()


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


def test_every_merge_in_memory_draws_what_its_file_draws(webui: WebuiPage) -> None:
    plain = webui.generate()
    different = 0
    for number in range(N_MERGES):
        if LORA:
            # A LoRA before the merge, whose traces must not come back afterwards.
            webui.prompt(f"a red house by the sea <lora:{LORA}:0.8>")
            webui.generate()
            webui.prompt("a red house by the sea")
        alpha, blocks = some_merge(number)
        webui.set_up_merge(*MODELS, alpha, blocks)
        webui.merge_and_load()
        in_memory = webui.generate()
        if number == 0:
            webui.open_page("Merge")
            shoot(webui, "merged")
        different += not are_equal(in_memory, plain)
        webui.merge_and_save(SAVED)
        webui.restore()
        assert are_equal(webui.generate(), plain), f"restore after merge {number}"
        webui.switch(SAVED)
        assert are_equal(webui.generate(), in_memory), f"merge {number}"
        webui.switch(MODELS[0])
    assert different == N_MERGES
    assert are_equal(webui.generate(), plain)
    assert webui.faults == []


def test_switching_the_checkpoint_ends_the_merge_and_the_tab_notices(
    webui: WebuiPage,
) -> None:
    webui.switch(MODELS[1])
    plain = webui.generate()
    webui.switch(MODELS[0])
    webui.set_up_merge(*MODELS, 0.5)
    webui.merge_and_load()
    webui.switch(MODELS[1])
    assert are_equal(webui.generate(), plain)
    webui.open_page("Merge")
    webui.says("merge-status", "as it is on disk")
    webui.switch(MODELS[0])


def test_every_page_opens_and_shows_no_fault(webui: WebuiPage) -> None:
    for name in ("Merge", "AutoMBW", "Compare", "Re-Basin", "Help"):
        webui.open_page(name)
        webui.page.wait_for_timeout(1500)
        shoot(webui, f"page-{name.lower()}")
    assert webui.faults == []
