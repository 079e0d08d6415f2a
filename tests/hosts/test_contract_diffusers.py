"""The standalone host keeps the host contract on a tiny real pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lib_merge.core.ports import RenderRequest
from lib_merge.hosts.diffusers import DiffusersHost
from tests.contract.host_contract import HostCase, HostContract
from tests.support.tiny_pipelines import write_checkpoint, write_pipeline

REQUEST = RenderRequest(
    prompt="a red circle", seed=5, steps=3, width=64, height=64, cfg_scale=9.0
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("contract")
    pipeline = write_pipeline(place, "sd1")
    for seed, name in enumerate("ab"):
        write_checkpoint(place / f"{name}.safetensors", pipeline, "sd1", seed)
    return place


class TestDiffusers(HostContract):
    """A fresh host a test; the files are made once."""

    @pytest.fixture
    def case(self, folder: Path, tmp_path: Path) -> HostCase:
        return HostCase(
            host=DiffusersHost([folder], tmp_path / "out", tmp_path / "data"),
            a=folder / "a.safetensors",
            b=folder / "b.safetensors",
            request=REQUEST,
            long_request=replace(REQUEST, steps=500),
        )
