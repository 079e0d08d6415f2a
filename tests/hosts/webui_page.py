"""A real WebUI in a browser, as its user drives it: the host's own tabs and ours."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from typing import Any

from PIL import Image

OPTIONS = (
    "[role=option]:visible, [data-testid=dropdown-option]:visible, li.item:visible"
)
"""Entries of an open drop-down: Gradio 3 and 4 give them other roles."""

REFRESH = "#refresh_sd_model_checkpoint, #forge_refresh_checkpoint"
"""The host's button beside its list of checkpoints."""

CHECKPOINT = "#setting_sd_model_checkpoint input, .model_selection input"
"""That list; Forge's has no id, and its list of VAEs comes behind it."""

LOADING_S = 600.0
PICTURE_S = 600.0
WAITING_S = 900.0
"""Long, since the machine may be at other work, too; what goes wrong says so."""

_DONE = re.compile(r"(\d+) of (\d+) (?:trial|finalist)s done")


class WebuiPage:
    """One browser tab on a running A1111, Forge or reForge.

    Args:
        page: A playwright page.
        address: The WebUI's.
    """

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self.address = address
        self.faults: list[str] = []
        page.on("pageerror", self._note_fault)
        page.set_default_timeout(1000 * LOADING_S)
        page.goto(address)
        self.wait_until_there()

    def _note_fault(self, fault: Any) -> None:
        """Keep script faults of ours; hosts and other extensions have their own."""
        if "merge_" in str(fault.stack):
            self.faults.append(str(fault.stack))

    def wait_until_there(self) -> None:
        """Wait until the host has drawn its tabs."""
        self.page.wait_for_selector("#tabs #txt2img_generate")
        self.page.wait_for_timeout(1500)

    def until(
        self, is_there: Callable[[], bool], what: str, timeout_s: float = WAITING_S
    ) -> None:
        """Wait for something.

        Raises:
            AssertionError: It never came.
        """
        end = time.monotonic() + timeout_s
        while not is_there():
            assert time.monotonic() < end, f"never seen: {what}"
            self.page.wait_for_timeout(150)

    def second(self) -> WebuiPage:
        """Another browser tab on the same WebUI."""
        return WebuiPage(self.page.context.new_page(), self.address)

    def close(self) -> None:
        """Close this browser tab."""
        self.page.close()

    def open_tab(self, name: str) -> None:
        """Open one of the host's tabs."""
        # Forge writes Txt2img.
        exact = re.compile(rf"^\s*{re.escape(name)}\s*$", re.IGNORECASE)
        self.page.locator("#tabs button", has_text=exact).first.click()
        self.page.wait_for_timeout(300)

    def open_page(self, name: str) -> None:
        """Open one of our pages."""
        self.open_tab("MergeLab")
        pages = self.page.locator("#merge-pages button")
        exact = re.compile(rf"^\s*{re.escape(name)}\s*$")
        pages.filter(has_text=exact).locator("visible=true").first.click()
        self.page.wait_for_timeout(300)

    # Controls

    def fill(self, control: str, text: str) -> None:
        """Type into a control, as people do: the field is left afterwards."""
        field = self.page.locator(
            f"#{control} input[type=number], #{control} textarea, #{control} input"
        ).first
        field.fill(text)
        field.blur()
        self.page.wait_for_timeout(100)

    def choose(self, control: str, text: str) -> None:
        """Choose an entry of a drop-down by a part of its text."""
        self._pick(self.page.locator(f"#{control} input").first, text)

    def _pick(self, field: Any, text: str) -> None:
        if text in field.input_value():
            return
        field.click()
        self.page.locator(OPTIONS, has_text=text).first.click()
        self.page.wait_for_timeout(200)

    def says(self, control: str, text: str, timeout_s: float = LOADING_S) -> None:
        """Wait until a view has a text in it."""

        self.until(
            lambda: text in self.text_of(control),
            f"'{text}' in #{control}",
            timeout_s,
        )

    def is_said(self, control: str, text: str, timeout_s: float = 20) -> bool:
        """Whether a view comes to have a text in it."""
        end = time.monotonic() + timeout_s
        while text not in self.text_of(control) and time.monotonic() < end:
            self.page.wait_for_timeout(250)
        return text in self.text_of(control)

    def text_of(self, control: str) -> str:
        """What a view shows now; "" while it is not there."""
        place = self.page.locator(f"#{control}")
        return str(place.first.inner_text()) if place.count() else ""

    # The host

    def reload_ui(self) -> None:
        """Press the host's own "Reload UI" and wait until the page is there again."""
        self.page.evaluate("() => { window.isFormerPage = true; }")
        self.page.locator("a", has_text="Reload UI").first.click()
        self.until(self._is_another_page, "the page after Reload UI", LOADING_S)
        self.wait_until_there()

    def _is_another_page(self) -> bool:
        try:
            is_former = self.page.evaluate("() => window.isFormerPage === true")
            return not is_former and bool(self.page.locator("#tabs").count())
        except Exception:
            # The page is between two documents, and has none to ask.
            return False

    def interrupt(self, prompt: str, seed: int) -> None:
        """Press the host's Interrupt, hidden while txt2img rests; loads the page anew.

        The button leaves an "Interrupting..." over Generate that only the end of this
        page's own picture would take away.
        """
        self.page.locator("#txt2img_interrupt").first.evaluate("b => b.click()")
        self.page.wait_for_timeout(1500)
        self.page.reload()
        self.wait_until_there()
        self.prepare(prompt, seed)

    def prepare(
        self, prompt: str, seed: int, *, size: int = 64, steps: int = 2
    ) -> None:
        """Set the host's txt2img up for small pictures."""
        self.open_tab("txt2img")
        self.prompt(prompt)
        for control, value in (
            ("txt2img_width", size),
            ("txt2img_height", size),
            ("txt2img_steps", steps),
            ("txt2img_seed", seed),
        ):
            self.fill(control, str(value))

    def prompt(self, text: str) -> None:
        """Type a prompt."""
        self.open_tab("txt2img")
        self.page.locator("#txt2img_prompt textarea").first.fill(text)
        self.page.wait_for_timeout(100)

    def generate(self) -> Image.Image:
        """Press the host's Generate; the picture that comes."""
        self.open_tab("txt2img")
        before = self._source()
        self.page.locator("#txt2img_generate").click()
        self.until(lambda: self._source() not in (before, ""), "a picture", PICTURE_S)
        self.page.wait_for_timeout(300)
        answer = self.page.request.get(self._source().split("?")[0])
        return Image.open(io.BytesIO(answer.body())).convert("RGB")

    def _source(self) -> str:
        pictures = self.page.locator("#txt2img_gallery img")
        if not pictures.count() or self._is_generating():
            return ""
        return str(pictures.first.evaluate("image => image.src"))

    def _is_generating(self) -> bool:
        """Whether the host's Interrupt stands where Generate was."""
        return bool(self.page.locator("#txt2img_interrupt:visible").count())

    def switch(self, model: str) -> None:
        """Choose a checkpoint in the host's own list."""
        self.page.locator(REFRESH).first.click()
        self.page.wait_for_timeout(2500)
        field = self.page.locator(CHECKPOINT).first
        self._pick(field, model)
        self.until(lambda: model in field.input_value(), model, LOADING_S)
        self.page.wait_for_timeout(1000)

    # Our Merge page

    def set_up_merge(self, a: str, b: str, alpha: float, blocks: str = "") -> None:
        """A weighted sum of two models, per block where wanted."""
        self.open_page("Merge")
        self.choose("merge-model-a", a)
        self.choose("merge-model-b", b)
        self.fill("merge-param-0", str(alpha))
        box = self.page.locator("#merge-use-blocks input")
        if bool(blocks) != box.is_checked():
            box.click()
            self.page.wait_for_timeout(800)
        if blocks:
            self.page.locator("#merge-weights textarea").first.fill(blocks)
        self.says("merge-outlook", "Weighted sum of 2 models")
        self.page.wait_for_timeout(800)

    def merge_and_load(self) -> None:
        """Press the button and wait for the end."""
        self.open_page("Merge")
        self.page.click("#merge-do-load")
        self.says("merge-status", "merged in memory (recipe", LOADING_S)

    def merge_and_save(self, name: str) -> None:
        """The same merge into a file; one of this name is replaced."""
        self.open_page("Merge")
        self.fill("merge-name", name)
        box = self.page.locator("#merge-overwrite input")
        if not box.is_checked():
            box.click()
        self.page.click("#merge-do-save")
        self.says("merge-status", f"saved {name}.safetensors", LOADING_S)

    def restore(self) -> None:
        """Bring the original back; Forge loads no model before the first picture."""
        self.open_page("Merge")
        self.page.click("#merge-do-restore")
        told = ("as it is on disk", "No model is loaded yet")
        self.until(
            lambda: any(words in self.text_of("merge-status") for words in told),
            "the restored model",
            LOADING_S,
        )

    # Our AutoMBW page

    def set_up_study(
        self, a: str, b: str, name: str, *, n_trials: int, n_seeds: int
    ) -> None:
        """A study of what stands in txt2img now, judged by the demo's judge."""
        self.open_page("AutoMBW")
        self.choose("merge-mbw-model-a", a)
        self.choose("merge-mbw-model-b", b)
        self.unfold("merge-mbw-add")
        self.page.click("#merge-mbw-add-txt2img")
        self.says("merge-mbw-payloads", "txt2img")
        self.says("merge-mbw-scorer", "Demo judge")
        self.unfold("merge-mbw-end")
        for control, value in (
            ("merge-mbw-name", name),
            ("merge-mbw-n-trials", n_trials),
            ("merge-mbw-n-seeds", n_seeds),
            ("merge-mbw-n-held-out", 1),
            ("merge-mbw-n-finalists", 1),
        ):
            self.fill(control, str(value))
        self.says("merge-mbw-outlook", f"in {n_trials} trials")

    def unfold(self, control: str) -> None:
        """Open a folded section."""
        head = f"#{control} button, #{control} .label-wrap"
        self.page.locator(head).first.click()
        self.page.wait_for_timeout(400)

    def press(self, control: str) -> None:
        """Press one of the study's buttons."""
        self.open_page("AutoMBW")
        self.page.click(f"#{control}")
        self.page.wait_for_timeout(300)

    def trials(self) -> tuple[int, int]:
        """How many trials the page says are done, and of how many."""
        found = _DONE.search(self.text_of("merge-mbw-live"))
        return (int(found[1]), int(found[2])) if found else (0, 0)

    def wait_for_trials(self, n: int) -> None:
        """Wait until at least so many trials are done."""
        self.until(lambda: self._goes_on() and self.trials()[0] >= n, f"{n} trials")

    def wait_for_state(self, state: str) -> None:
        """Wait until the study is, for example, "paused"."""
        self.until(lambda: self._goes_on() and self._state() == state, state)

    def _goes_on(self) -> bool:
        shown = self.text_of("merge-mbw-live")
        assert self._state() != "failed", shown
        return True

    def _state(self) -> str:
        pill = self.page.locator("#merge-mbw-live .merge-pill")
        return str(pill.first.inner_text()) if pill.count() else ""
