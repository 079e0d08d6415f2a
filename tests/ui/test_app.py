"""The whole tab: built, served, and what its stylesheet and scripts rely on."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lib_merge.errors import InputError
from lib_merge.ui import build_tab
from lib_merge.ui.app import launch_app, scripts_loader
from lib_merge.ui.workspace import workspace_of
from tests.ui.fakes import FakeHost

ROOT = Path(__file__).resolve().parents[2]


def _components(host: FakeHost) -> list[Any]:
    return list(build_tab(host).blocks.values())


def test_every_id_is_unique_and_ours(host: FakeHost) -> None:
    ids = [c.elem_id for c in _components(host) if getattr(c, "elem_id", None)]
    assert [name for name, n in Counter(ids).items() if n > 1] == []
    assert all(name.startswith("merge-") for name in ids)


def test_nothing_goes_into_the_webui_config_file(host: FakeHost) -> None:
    stored = [
        c for c in _components(host) if not getattr(c, "do_not_save_to_config", False)
    ]
    assert {type(c).__name__ for c in stored} <= {"Row", "Column", "Form", "Blocks"}


def test_every_class_of_the_stylesheet_is_ours() -> None:
    style = (ROOT / "style.css").read_text(encoding="utf-8")
    bare = re.sub(r"/\*.*?\*/|\{[^{}]*\}", " ", style, flags=re.DOTALL)
    names = re.findall(r"[.#]([A-Za-z][\w-]*)", bare)
    foreign = {name for name in names if not name.startswith("merge-")}
    # Inside our own views Gradio 6 puts paddings on a wrapper, and Gradio 3 fades what
    # is being refreshed.
    assert foreign == {"html-container", "pending"}


def test_colours_come_from_the_host_alone() -> None:
    style = (ROOT / "style.css").read_text(encoding="utf-8")
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[^{}]*;)", style)
    assert "rgb(" not in style


def test_every_id_that_scripts_and_stylesheet_use_exists(host: FakeHost) -> None:
    ids = {c.elem_id for c in _components(host) if getattr(c, "elem_id", None)}
    for script in (ROOT / "javascript").glob("*.js"):
        # What scripts put into the host's own pages.
        ids |= set(re.findall(r'ID = "(merge-[\w-]+)"', script.read_text("utf-8")))
    text = (ROOT / "style.css").read_text(encoding="utf-8") + scripts_loader()
    used = set(re.findall(r"#(merge-[\w-]+)", text))
    assert used - ids == set()


def test_reload_of_the_ui_finds_the_same_jobs(host: FakeHost) -> None:
    build_tab(host)
    first = workspace_of(host)
    build_tab(FakeHost(host.catalog.folder))
    assert workspace_of(FakeHost(host.catalog.folder)) is first


def test_no_handler_waits_in_the_hosts_queue(host: FakeHost) -> None:
    handlers = build_tab(host).get_config_file()["dependencies"]
    assert len(handlers) > 20
    assert {handler["queue"] for handler in handlers} == {False}


@pytest.mark.slow
def test_app_command_prints_its_address_and_stops_on_request(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lib_merge", "app", "--out", str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = next(line for line in process.stdout if "MergeLab is at" in line)
        address = re.findall(r"http://127.0.0.1:\d+/", said)[0]
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
    assert (tmp_path / "payloads" / "demo" / "red_circle.json").is_file()


def test_app_is_served_on_this_machine_alone(host: FakeHost) -> None:
    running = launch_app(host)
    try:
        assert running.address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(running.address, timeout=30) as answer:
            assert answer.status == 200
        port = int(running.address.rstrip("/").rpartition(":")[2])
        with pytest.raises(InputError, match=f"Port {port} on 127.0.0.1"):
            launch_app(host, port)
    finally:
        running.close()
