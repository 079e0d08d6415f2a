"""In-place writes into a diffusers pipeline end where really loading the file ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_merge.hosts.diffusers import DiffusersHost
from tests.support.tiny_pipelines import write_checkpoint, write_pipeline

ARCH_IDS = ("sd1", "sd2", "sdxl")


@pytest.fixture(scope="module", params=ARCH_IDS)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    pipeline = write_pipeline(folder, request.param)
    for seed in (1, 2):
        write_checkpoint(folder / f"{seed}.safetensors", pipeline, request.param, seed)
    return folder


def states(host: DiffusersHost) -> dict[str, torch.Tensor]:
    pipe = host.loader.pipe  # type: ignore[attr-defined]
    parts = {
        name: getattr(pipe, name, None)
        for name in ("unet", "vae", "text_encoder", "text_encoder_2")
    }
    return {
        f"{part}.{name}": tensor.clone()
        for part, module in parts.items()
        if module is not None
        for name, tensor in module.state_dict().items()
    }


def open_host(place: Path, tmp_path: Path) -> DiffusersHost:
    return DiffusersHost([place], tmp_path / "out", tmp_path / "data")


def test_writing_every_key_equals_loading_the_file(place: Path, tmp_path: Path) -> None:
    host = open_host(place, tmp_path)
    host.loader.load(place / "2.safetensors")
    wanted = states(host)
    host.loader.load(place / "1.safetensors")
    assert any(not torch.equal(v, wanted[k]) for k, v in states(host).items())
    with host.loader.edit() as live:
        assert live.refusal() is None
        tensors = load_file(place / "2.safetensors")
        assert live.missing(tuple(tensors)) == ()
        for key, tensor in tensors.items():
            if tensor.dtype == torch.float16:
                flat = tensor.flatten()
                half = flat.numel() // 3
                live.write(key, half, flat[half:])
                live.write(key, 0, flat[:half])
    found = states(host)
    assert [k for k in wanted if not torch.equal(found[k], wanted[k])] == []


def test_restore_brings_every_bit_back(place: Path, tmp_path: Path) -> None:
    host = open_host(place, tmp_path)
    host.loader.load(place / "1.safetensors")
    before = states(host)
    key = "model.diffusion_model.input_blocks.0.0.weight"
    with host.loader.edit() as live:
        live.write(key, 0, torch.zeros(5))
    assert not torch.equal(
        states(host)["unet.conv_in.weight"].flatten()[:5].abs(),
        before["unet.conv_in.weight"].flatten()[:5].abs(),
    )
    identity = host.loader.identity()
    host.loader.restore()
    after = states(host)
    assert [k for k in before if not torch.equal(after[k], before[k])] == []
    assert host.loader.identity() != identity


def test_key_that_would_change_the_picture_is_named_missing(
    place: Path, tmp_path: Path
) -> None:
    host = open_host(place, tmp_path)
    host.loader.load(place / "1.safetensors")
    strange = "model.diffusion_model.input_blocks.99.0.weight"
    with host.loader.edit() as live:
        assert live.missing((strange, "alphas_cumprod")) == (strange,)
