"""The Models page's handlers, on every Gradio, with real small checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_merge.analysis.health.defects import Defect
from lib_merge.core.recipe import Setting, simple_recipe
from lib_merge.engine.save import merge_to_file
from lib_merge.ui import inspect_view
from lib_merge.ui.tabs.models import ModelsPage
from lib_merge.ui.workspace import Workspace
from tests.ui.fakes import FakeHost

HOLE = "model.diffusion_model.input_blocks.4.0.in_layers.2.weight"
SICK = "model.diffusion_model.output_blocks.3.0.in_layers.2.weight"


class Page:
    """The page with values set as a user would.

    Args:
        host: What it works on.
    """

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.workspace = Workspace(host)
        with gr.Blocks():
            self.page = ModelsPage(self.workspace)
        page = self.page
        controls = (
            *(page.filter, page.sort, page.model, page.base, page.fills, page.drops),
            *(page.keeps, page.weights, page.deep, page.repair_name, page.seen),
            *(page.repair_over, page.precision, page.scaled, page.ema),
            *(page.convert_name, page.convert_over),
        )
        self.values: dict[Any, Any] = {c: c.value for c in controls}
        self.desk = self.workspace.inspections

    def set(self, **chosen: Any) -> Page:
        """Set controls by their names."""
        for name, value in chosen.items():
            self.values[getattr(self.page, name)] = value
        return self

    def look(self) -> list[Any]:
        """Poll until the catalog was inspected; the news."""
        self.poll()
        self.desk.listing.job.wait(60)
        return self.poll()

    def poll(self) -> list[Any]:
        """What is new; the page takes over its token."""
        news = self.page.on_poll(self.values)
        if isinstance(news[0], str):
            self.set(seen=news[0])
        return news

    def run(self, handler: Any, given: Any = None) -> str:
        """Press a button and wait for its job; what is then shown of it."""
        message, _ = handler(self.values if given is None else given)
        assert message == ""
        self.desk.job.job.wait(60)
        return str(self.desk.job.job.view().message)


@pytest.fixture
def page(host: FakeHost) -> Page:
    return Page(host)


@pytest.fixture
def broken(page: Page) -> Page:
    """Beside the others `broken`: a NaN, a missing key, one of a sampler."""
    folder = page.host.catalog.folder
    tensors = load_file(folder / "b.safetensors")
    del tensors[HOLE]
    tensors[SICK].view(-1)[0] = float("nan")
    tensors["denoiser.sigmas"] = torch.zeros(3)
    recipe = '{"type": "webui", "interp_method": "Weighted sum"}'
    metadata = {"sd_merge_recipe": recipe, "long": "x" * 1000}
    save_file(tensors, folder / "broken.safetensors", metadata=metadata)
    page.set(model="broken.safetensors", base="a.safetensors")
    page.look()
    return page


def test_table_shows_every_model_after_the_first_polls(page: Page) -> None:
    table = page.look()[2]
    assert table.count("data-merge-pick") == 4
    assert "Stable Diffusion XL" in table
    assert "clip_l, unet, vae" in table


def test_poll_changes_nothing_when_nothing_is_new(page: Page) -> None:
    page.look()
    page.poll()
    assert page.poll() == [gr.update()] * 9


def test_new_file_appears_without_a_refresh(page: Page) -> None:
    page.look()
    folder = page.host.catalog.folder
    shutil.copyfile(folder / "a.safetensors", folder / "new.safetensors")
    news = page.look()
    assert 'data-merge-pick="new.safetensors"' in news[2]
    assert "new.safetensors" in news[3]["choices"]


def test_refresh_looks_again_at_a_file_that_changed(page: Page) -> None:
    page.look()
    folder = page.host.catalog.folder
    shutil.copyfile(folder / "xl.safetensors", folder / "a.safetensors")
    page.page.on_refresh()
    page.desk.listing.job.wait(60)
    assert page.poll()[2].count("Stable Diffusion XL") == 2
    assert page.host.catalog.n_refreshes == 1


def test_table_is_filtered_by_words_of_the_architecture(page: Page) -> None:
    page.look()
    table = page.page.on_list(page.set(filter="XL diffusion").values)
    assert table.count("data-merge-pick") == 1
    assert "No model has these" in page.page.on_list(page.set(filter="zz").values)


def test_table_is_sorted_by_problems(broken: Page) -> None:
    table = broken.page.on_list(broken.set(sort="problems, most first").values)
    first = table.index('data-merge-pick="broken.safetensors"')
    assert first < table.index('data-merge-pick="a.safetensors"')


def test_table_of_250_models_stays_below_the_limit(page: Page) -> None:
    page.look()
    model = page.desk.model("a.safetensors")
    many = [type(model)(f"folder/{i:04}_{'n' * 60}", model.found) for i in range(300)]
    table = inspect_view.table_html(many, "", "name")
    assert table.count("data-merge-pick") == inspect_view.MAX_ROWS
    assert "The first 250 are shown" in table
    assert len(table.encode()) < 200_000


def test_file_that_cannot_be_read_is_listed_with_its_fault(page: Page) -> None:
    (page.host.catalog.folder / "cut.safetensors").write_bytes(b"\x10\0\0\0")
    assert "cannot be read" in page.look()[2]
    details, *_ = page.page.on_model(page.set(model="cut.safetensors").values)
    assert "merge-bad" in details
    message, _ = page.page.on_read("cut.safetensors")
    assert "cut.safetensors cannot be read" in message


def test_click_in_the_table_chooses_the_model(page: Page) -> None:
    assert page.page.on_pick("3|a|b.safetensors")["value"] == "a|b.safetensors"


def test_details_tell_components_defects_and_history(broken: Page) -> None:
    details, diagram, planned, convert, *told = broken.page.on_model(broken.values)
    assert "1 key missing" in details
    assert "the repair takes it from a base model." in details
    assert "--" not in details
    assert "sd_merge_recipe: a merge by a WebUI" in details
    assert "(1,000 characters)" in details
    assert "<svg" in diagram
    assert "Would write about" in convert
    assert [planned, *told] == ["", "", "", ""]


def test_details_name_the_models_of_a_recipe(page: Page) -> None:
    folder = page.host.catalog.folder
    recipe = simple_recipe(
        "weighted_sum",
        [str(folder / "a.safetensors"), str(folder / "b.safetensors")],
        {"alpha": Setting(0.5)},
    )
    merge_to_file(recipe, folder / "m.safetensors", folders=(folder,))
    page.set(model="m.safetensors")
    details = page.look()[5]
    assert "MergeLab recipe" in details
    assert "Weighted sum of" in details


def test_reading_finds_nan_and_names_equal_components(broken: Page) -> None:
    said = broken.run(broken.page.on_read, "broken.safetensors")
    assert "every value of broken.safetensors was read" in said
    broken.run(broken.page.on_read, "b.safetensors")
    details = broken.poll()[5]
    assert "with NaN or infinity" in details
    assert "same values as b.safetensors" in details


def test_problem_is_said_when_no_model_is_chosen(page: Page) -> None:
    page.look()
    handlers = (page.page.on_plan, page.page.on_repair, page.page.on_convert)
    said = [handler(page.values)[0] for handler in handlers]
    said.append(page.page.on_read(None)[0])
    assert ["No model is chosen" in message for message in said] == [True] * 4
    assert page.desk.job.job is None


def test_repair_is_planned_then_written(broken: Page) -> None:
    assert "3 changes" in broken.run(broken.page.on_plan)
    planned = broken.poll()[7]
    assert "Would leave out 1 key (denoiser.sigmas)" in planned
    assert SICK in planned
    said = broken.run(broken.page.on_repair)
    assert "saved broken_repaired.safetensors" in said
    written = broken.host.catalog.folder / "broken_repaired.safetensors"
    assert broken.host.catalog.registered == [written]
    assert broken.workspace.n_catalog_changes == 1
    tensors = load_file(written)
    assert "denoiser.sigmas" not in tensors
    assert HOLE in tensors
    assert bool(torch.isfinite(tensors[SICK]).all())
    broken.look()
    assert broken.desk.model("broken_repaired.safetensors").found.all_problems() == ()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"drops": ["unknown keys"]}, "not planned yet"),
        ({"repair_name": "../x"}, "a path out of the folder"),
        ({"repair_name": "c"}, "exists"),
        ({"model": "b.safetensors"}, "not planned yet"),
    ],
    ids=["other_options", "unfit_name", "existing_file", "other_model"],
)
def test_repair_is_refused_when(
    broken: Page, changed: dict[str, Any], said: str
) -> None:
    broken.run(broken.page.on_plan)
    message, _ = broken.page.on_repair(broken.set(**changed).values)
    assert said in message
    assert broken.host.catalog.registered == []


def test_repair_is_refused_when_the_file_changed_after_the_plan(broken: Page) -> None:
    broken.run(broken.page.on_plan)
    folder = broken.host.catalog.folder
    shutil.copyfile(folder / "c.safetensors", folder / "broken.safetensors")
    message, _ = broken.page.on_repair(broken.values)
    assert "a file changed since" in message


def test_base_of_another_architecture_is_refused_at_once(broken: Page) -> None:
    message, _ = broken.page.on_plan(broken.set(base="xl.safetensors").values)
    assert "choose a base of the same architecture" in message


def test_base_is_asked_for_when_absent_components_are_ticked(broken: Page) -> None:
    broken.set(base="none", fills=["whole components that are absent"])
    message, _ = broken.page.on_plan(broken.values)
    assert "choose a base model" in message


def test_kept_defects_stay_in_the_plan_as_they_are(broken: Page) -> None:
    broken.set(keeps=[f"keys {Defect.DENOISER.words}"], deep=False)
    broken.run(broken.page.on_plan)
    planned = broken.poll()[7]
    assert "leave out" not in planned
    assert SICK not in planned
    assert HOLE in planned


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("bfloat16", torch.bfloat16), ("float32", torch.float32)],
)
def test_convert_writes_a_copy_in_the_precision(
    page: Page, precision: str, dtype: torch.dtype
) -> None:
    page.set(model="a.safetensors", precision=precision)
    page.look()
    said = page.run(page.page.on_convert)
    assert f"saved a_{precision}.safetensors" in said
    tensors = load_file(page.host.catalog.folder / f"a_{precision}.safetensors")
    assert tensors[HOLE].dtype is dtype


def test_convert_says_what_it_would_do_and_shows_scales_for_fp8(page: Page) -> None:
    page.set(model="a.safetensors", precision="float8_e5m2 (fp8)")
    page.look()
    view, scaled = page.page.on_convert_look(page.values)
    assert "each with its scale" in view
    assert "--" not in view
    assert scaled["visible"] is True


def test_running_job_is_cancelled_and_leaves_no_file(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.set(model="a.safetensors")
    page.look()
    real = "lib_merge.analysis.health.rewrite.write_file"

    def wait(job: Any, output: Path, *, overwrite: bool, progress: Any) -> None:
        del job, output, overwrite
        while True:
            progress.check()

    monkeypatch.setattr(real, wait)
    page.page.on_convert(page.values)
    message, _ = page.page.on_read("a.safetensors")
    assert "still running" in message
    page.page.on_cancel()
    page.desk.job.job.wait(60)
    assert "Stopped" in page.page.on_cancel()
