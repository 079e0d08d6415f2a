"""The Help page's handlers, on every Gradio."""

from __future__ import annotations

import gradio as gr
import pytest

from lib_merge.methods import methods
from lib_merge.ui.tabs.guide import HelpPage, methods_table
from lib_merge.ui.workspace import Workspace
from tests.ui.fakes import FakeHost


@pytest.fixture
def page(host: FakeHost) -> HelpPage:
    with gr.Blocks():
        return HelpPage(Workspace(host))


def test_every_method_is_listed_with_its_formula() -> None:
    table = methods_table("")
    assert table.count("<tr>") == len(list(methods())) + 1
    assert "TIES-SOUP" in table


def test_filter_needs_every_word() -> None:
    table = methods_table("ties soup")
    assert "ties_soup" in table
    assert "slerp" not in table
    assert "No method has these words" in methods_table("ties xyzzy")


def test_other_architecture_is_drawn(page: HelpPage) -> None:
    view, told = page.on_arch("Stable Diffusion XL")
    assert "2,567,463,684" in view
    assert told == ""


def test_picture_is_saved_in_both_forms(page: HelpPage, host: FakeHost) -> None:
    assert "merge-good" in page.on_save("Stable Diffusion 1.x")
    folder = host.catalog.data_dir() / "diagrams"
    assert sorted(p.name for p in folder.iterdir()) == ["sd1.png", "sd1.svg"]


def test_problem_is_said_when_the_folder_cannot_be_made(
    page: HelpPage, host: FakeHost
) -> None:
    (host.catalog.data_dir() / "diagrams").write_text("in the way", encoding="utf-8")
    assert "merge-bad" in page.on_save("Stable Diffusion 1.x")


def test_self_check_tells_host_versions_and_refusals(
    page: HelpPage, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.loader.load(host.catalog.folder / "a.safetensors")
    monkeypatch.setattr(host.loader, "refusal", lambda: "It is stored in <fp8>.")
    shown = page.on_check()
    assert "fake host" in shown
    assert gr.__version__ in shown
    assert "a.safetensors" in shown
    assert "<td>refused</td><td>It is stored in &lt;fp8&gt;.</td>" in shown


def test_self_check_that_fails_says_so(
    page: HelpPage, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> str:
        raise RuntimeError("no device")

    monkeypatch.setattr(host, "device", broken)
    assert "no device" in page.on_check()
