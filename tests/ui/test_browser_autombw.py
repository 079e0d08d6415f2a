"""The AutoMBW page in a real browser: every control, on whichever Gradio is there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from lib_merge.autombw.old_runs import OldRow, OldSource, import_run
from lib_merge.core.block_orders import CSV_ORDER
from lib_merge.ui.workspace import workspace_of
from tests.formats.test_autombw_csv import OWN
from tests.ui import test_browser as base
from tests.ui.fakes import FakeHost
from tests.ui.test_browser import (
    _choose,
    _open_autombw,
    _shows,
    _type,
    _until,
    _value,
)

pytestmark = base.pytestmark

browser, address, page = base.browser, base.address, base.page

FOLDS = (
    *("add", "blocks", "start-fold", "sampler-fold", "judging", "end"),
    *("storage-fold", "tournament-fold", "files-fold", "bracket-fold", "shelf-fold"),
)


def _unfold(page: Any, *names: str) -> None:
    for name in names:
        # Gradio 3 gives an id to two nested elements.
        head = f"#merge-mbw-{name} button, #merge-mbw-{name} .label-wrap"
        page.locator(head).first.click()


def _tick(page: Any, control: str, label: str = "") -> None:
    place = f"#merge-mbw-{control} label"
    page.locator(place, has_text=label).first.click()


def _keep_old_run(host: FakeHost, name: str) -> None:
    rows = [
        OldRow({str(b): i / 10 for b in CSV_ORDER}, 0.4 + i / 100) for i in range(9)
    ]
    folder = host.catalog.folder
    models = (str(folder / "a.safetensors"), str(folder / "b.safetensors"))
    import_run(
        host.catalog.data_dir(), name, rows, OldSource(f"{name}.csv", models, "sd1")
    )


def test_every_choice_of_the_set_up_reaches_the_study(
    page: Any, host: FakeHost
) -> None:
    _open_autombw(page)
    _unfold(page, *FOLDS[:7])
    _type(page, "merge-mbw-name", "chosen")
    _type(page, "merge-mbw-n-trials", "6")
    _type(page, "merge-mbw-hours", "2.5")
    _type(page, "merge-mbw-n-seeds", "2")
    _choose(page, "merge-mbw-ties", "One value for all IN")
    _type(page, "merge-mbw-space", "IN00-IN01=tied:early, IN00-IN01=0.2..0.8")
    _choose(page, "merge-mbw-shapes", "B at both ends")
    page.keyboard.press("Escape")
    _type(page, "merge-mbw-start-text", "IN00=0.3, M00=0.5")
    _choose(page, "merge-mbw-sampler", "Random points")
    _type(page, "merge-mbw-seed", "5")
    _type(page, "merge-mbw-p", "0.2")
    _type(page, "merge-mbw-n-first", "3")
    _tick(page, "rungs", "Without the hires pass")
    _type(page, "merge-mbw-no-gain", "0")
    _type(page, "merge-mbw-target", "0.99")
    _type(page, "merge-mbw-max-failures", "4")
    _choose(page, "merge-mbw-normalise", "In standard deviations")
    _choose(page, "merge-mbw-tally", "median")
    _choose(page, "merge-mbw-memory", "Keep scorers")
    _choose(page, "merge-mbw-diversity", "Must keep")
    _type(page, "merge-mbw-diversity-keep", "0.8")
    _type(page, "merge-mbw-n-held-out", "1")
    _type(page, "merge-mbw-n-finalists", "2")
    _choose(page, "merge-mbw-precision", "float64")
    _choose(page, "merge-mbw-save-dtype", "bfloat16")
    _shows(page, "merge-mbw-outlook", "Searches 7 axes in 6 trials")
    page.click("#merge-mbw-start")
    _shows(page, "merge-mbw-live", "chosen")
    desk = workspace_of(host).studies
    _until(page, lambda: "chosen" in desk.names(), "the study")
    told = desk.study("chosen").settings
    assert (told.n_trials, told.n_seeds, told.seed) == (6, 2, 5)
    assert (told.sampler, told.tally, told.max_failures) == ("random", "median", 4)
    assert told.stopping.time_budget_s == 9000
    assert (told.stopping.n_without_gain, told.stopping.target_score) == (0, 0.99)
    assert (told.pruning.p_threshold, told.pruning.n_first) == (0.2, 3)
    assert [rung.name for rung in told.fidelity.rungs] == ["no_hires"]
    assert (told.diversity.use, told.diversity.keep) == ("constraint", 0.8)
    assert (told.scoring.normalise, told.scoring.memory) == ("z", "keep")
    assert (told.n_held_out, told.n_finalists) == (1, 2)
    assert (told.compute_dtype, told.save_dtype) == ("float64", "bfloat16")
    names = {str(r.block): (r.name, r.low) for r in told.ranges}
    assert names["IN00"] == ("early", 0.2)
    assert names["OUT03"] == ("OUT side", 0.0)
    assert [start.label for start in told.starts] == ["preset valley", "given weights"]
    assert told.starts[1].point["M00"] == 0.5


def test_trials_and_studies_are_worked_with(page: Any, host: FakeHost) -> None:
    for name in ("old", "other"):
        _keep_old_run(host, name)
    _open_autombw(page)
    _unfold(page, "files-fold", "shelf-fold", "start-fold")
    _shows(page, "merge-mbw-shelf", "old")
    _choose(page, "merge-mbw-study", "old")
    _shows(page, "merge-mbw-live", "9 of 9 trials done")
    for look, seen in (("Leaderboard", "1. Trial 8"), ("Axes", "coloured by")):
        page.click(f"#merge-mbw-look label:has-text('{look}')")
        _shows(page, "merge-mbw-trials", seen)
    _type(page, "merge-mbw-trial", "3")
    page.click("#merge-mbw-to-sliders")
    _shows(page, "merge-mbw-message", "sliders show this trial")
    page.click("#merge-mbw-go-on")
    _shows(page, "merge-mbw-message", "starts from this trial")
    _until(page, lambda: _value(page, "merge-mbw-start-trial") == "3", "the trial")
    page.click("#merge-mbw-load")
    _shows(page, "merge-mbw-live", "the loaded model is now the merge")
    page.click("#merge-mbw-export")
    _shows(page, "merge-mbw-files", "old-trial3.recipe")
    _type(page, "merge-mbw-new-name", "copy")
    page.click("#merge-mbw-clone")
    _shows(page, "merge-mbw-told", "cannot be cloned")
    _choose(page, "merge-mbw-other", "other")
    page.click("#merge-mbw-compare")
    _shows(page, "merge-mbw-told", "Not both have scored")
    page.click("#merge-mbw-write-report")
    _shows(page, "merge-mbw-told", "The report is above")
    page.click("#merge-mbw-extend")
    _shows(page, "merge-mbw-told", "100 trials now")
    page.click("#merge-mbw-delete")
    _shows(page, "merge-mbw-told", "Tick 'Delete it")
    page.click("#merge-mbw-sure input")
    page.click("#merge-mbw-delete")
    _shows(page, "merge-mbw-told", "Deleted old")
    assert workspace_of(host).studies.names() == ["other"]
    tab = page.locator("#merge-page-merge-button")
    if not tab.count():
        tab = page.locator("#merge-pages button", has_text="Merge")
    tab.first.click()
    text = _value(page, "merge-weights")
    assert "IN00=0.3" in text


def test_files_and_generation_data_come_in(
    page: Any, host: FakeHost, tmp_path: Path
) -> None:
    _open_autombw(page)
    _unfold(page, "add", "shelf-fold")
    payload = tmp_path / "square.yaml"
    payload.write_text("prompt: a blue square\nseed: 3\n", encoding="utf-8")
    page.set_input_files("#merge-mbw-upload input[type=file]", str(payload))
    _shows(page, "merge-mbw-payloads", "square.yaml")
    _type(page, "merge-mbw-infotext", "a cat\nSteps: 5, Sampler: Euler, Seed: 3")
    page.click("#merge-mbw-add-infotext")
    _shows(page, "merge-mbw-payloads", "txt2img-")
    page.evaluate("window.mergeTxt2img = () => JSON.stringify({prompt: 'a dog'})")
    page.click("#merge-mbw-add-txt2img")
    folder = workspace_of(host).studies.payload_dir()

    def is_there() -> bool:
        kept = [json.loads(p.read_text("utf-8")) for p in folder.glob("txt2img*.json")]
        return any(one["prompt"] == "a dog" for one in kept)

    _until(page, is_there, "txt2img's payload")
    files = [str(shutil.copy(path, tmp_path)) for path in sorted(OWN.iterdir())]
    page.set_input_files("#merge-mbw-import input[type=file]", files)
    _shows(page, "merge-mbw-told", "28 trials, best 0.5745")
    _shows(page, "merge-mbw-shelf", "imported")


def test_tournament_runs_from_the_page(page: Any, host: FakeHost) -> None:
    _open_autombw(page)
    _unfold(page, "blocks", "sampler-fold", "tournament-fold", "bracket-fold")
    for group in ("Text", "Embeddings", "IN", "OUT", "Output"):
        _tick(page, "groups", group)
    _type(page, "merge-mbw-name", "cup")
    _type(page, "merge-mbw-n-trials", "4")
    for name in "abc":
        _choose(page, "merge-mbw-contestants", f"{name}.safetensors")
    page.keyboard.press("Escape")
    page.click("#merge-mbw-tournament-plan")
    _shows(page, "merge-mbw-message", "round 2: cup-2.1")
    page.click("#merge-mbw-tournament-start")
    _shows(page, "merge-mbw-bracket", "Done: the last winner", timeout_s=120)
    folder = host.catalog.data_dir() / "tournaments" / "cup"
    assert len(list(folder.glob("*.safetensors"))) == 2
