"""Folders with tiny real checkpoints, and hosts over them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.checkpoints import write_tiny
from tests.ui.fakes import FakeHost


@pytest.fixture(scope="session")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three SD1 files and an SDXL one; copied, never written to."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate("abc"):
        write_tiny(folder / f"{name}.safetensors", "sd1", seed)
    write_tiny(folder / "xl.safetensors", "sdxl", 9)
    return folder


@pytest.fixture
def host(model_files: Path, tmp_path: Path) -> FakeHost:
    """A host of its own for every test, with one payload."""
    folder = tmp_path / "models"
    shutil.copytree(model_files, folder)
    payloads = folder / "data" / "payloads"
    payloads.mkdir(parents=True)
    payload = {"prompt": "a red circle", "seed": 7, "width": 32, "height": 32}
    (payloads / "circle.json").write_text(json.dumps(payload), encoding="utf-8")
    return FakeHost(folder)
