"""The Re-Basin page's handlers, on every Gradio, with the demo models."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch
from safetensors.torch import load_file

from lib_merge.demo import MODEL_A
from lib_merge.ui.tabs.rebasin import RebasinPage
from lib_merge.ui.workspace import Workspace
from tests.support.rebasin_models import DEMO_HEADS, permute_file
from tests.ui.fakes import FakeHost


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """Demo model A, and a copy with its channels in another order."""
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copyfile(MODEL_A, folder / "a.safetensors")
    permute_file(MODEL_A, folder / "b.safetensors", 4, DEMO_HEADS)
    return FakeHost(folder)


class Page:
    """The page with values set as a user would."""

    def __init__(self, host: FakeHost) -> None:
        self.workspace = Workspace(host)
        with gr.Blocks():
            self.page = RebasinPage(self.workspace)
        self.values: dict[Any, Any] = {c: c.value for c in self.page.inputs}

    def start(self, **chosen: Any) -> str:
        """Set controls by their names and press the button; the message."""
        for name, value in chosen.items():
            self.values[getattr(self.page, name)] = value
        return str(self.page.on_start(self.values)[0])


@pytest.fixture
def page(host: FakeHost) -> Page:
    return Page(host)


BOTH = {"model_a": "a.safetensors", "model_b": "b.safetensors", "heads": "clip_l=4"}


def test_permuted_copy_is_brought_back_and_the_merge_is_the_model(page: Page) -> None:
    assert page.start(**BOTH, merged="mid", aligned="back") == ""
    job = page.workspace.rebasin.job.job
    assert job is not None
    job.wait(300)
    assert "saved" in job.view().message
    folder = page.workspace.host.catalog.output_dir()
    back, model = (load_file(folder / f"{n}.safetensors") for n in ("back", "a"))
    assert all(torch.equal(back[key], model[key]) for key in model)
    assert (folder / "mid.safetensors").is_file()
    registered = [path.name for path in page.workspace.host.catalog.registered]
    assert registered == ["back.safetensors", "mid.safetensors"]
    _, live, view = page.page.on_poll("")
    assert "merge-good" in live
    assert "permutations moved something" in view
    assert page.page.on_poll(page.page.on_poll("")[0]) == [gr.update()] * 3


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"model_b": None}, "Model B is not chosen"),
        ({"model_b": "a.safetensors"}, "nothing to align"),
        ({"merged": ""}, "No output is named"),
        ({"merged": "x", "aligned": "x"}, "different names"),
        ({"merged": "../x"}, "a path out of the folder"),
        ({"merged": "b"}, "b.safetensors"),
        ({"blocks": "IN99=1"}, "IN99"),
        ({"heads": "clip_l=five"}, "clip_l=five"),
    ],
    ids=[
        "no_b",
        "one_twice",
        "no_name",
        "same_name",
        "path",
        "input",
        "block",
        "heads",
    ],
)
def test_problem_is_said_before_any_work(
    page: Page, chosen: dict[str, Any], said: str
) -> None:
    message = page.start(**{**BOTH, "merged": "mid", **chosen})
    assert said in message
    assert page.workspace.rebasin.job.job is None
