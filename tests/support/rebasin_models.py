"""Models for Git Re-Basin's tests: permuted copies, and what pipelines compute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lib_merge.analysis.rebasin.derive import derive_spec
from lib_merge.analysis.rebasin.spec import PermutationSpec
from lib_merge.arch import detect_architecture
from lib_merge.checkpoint.header import read_header
from lib_merge.core.blocks import Component
from lib_merge.demo import MODELS_DIR
from lib_merge.hosts.diffusers import DiffusersHost
from tests.support import tiny_pipelines

DEMO_HEADS = {Component.CLIP_L: 4}
"""The demo's text encoder is 64 wide, so that its heads must be named."""

XL_HEADS = {Component.CLIP_L: 4, Component.CLIP_G: 4}
"""Those of the tiny SDXL pipeline; its UNet has heads of 64 like the real one."""


def spec_of(path: Path, n_heads: Mapping[Component, int]) -> PermutationSpec:
    """The permutation spec of a file."""
    infos = read_header(path).infos
    return derive_spec(detect_architecture(infos, where=""), infos, n_heads=n_heads)


def permute_file(
    source: Path, target: Path, seed: int, n_heads: Mapping[Component, int]
) -> Path:
    """Write a copy with every permutation of the spec drawn at random."""
    spec = spec_of(source, n_heads)
    chosen = spec.random(seed)
    tensors = load_file(source)
    permuted = {
        key: spec.apply(key, t, chosen) if key in spec.shapes else t
        for key, t in tensors.items()
    }
    assert any(not torch.equal(permuted[key], tensors[key]) for key in tensors)
    save_file({key: t.contiguous() for key, t in permuted.items()}, target)
    return target


def write_xl(folder: Path, seed: int) -> Path:
    """A tiny SDXL checkpoint whose levels differ in width; its pipeline lies beside it.

    Widths of 64, 128 and 256 give normalisation groups that overlap in the output
    blocks as those of the real one do.
    """
    place = folder / "pipeline"
    if not place.exists():
        tiny_pipelines.write_pipeline(folder, "sdxl")
        config = place / "unet" / "config.json"
        unet = json.loads(config.read_text(encoding="utf-8"))
        unet |= {
            "block_out_channels": [64, 128, 256],
            "attention_head_dim": [1, 2, 4],
        }
        config.write_text(json.dumps(unet), encoding="utf-8")
    path = folder / f"{seed}.safetensors"
    return tiny_pipelines.write_checkpoint(path, place, "sdxl", seed)


def open_host(*folders: Path) -> DiffusersHost:
    """A host that finds the pipelines of these folders, or the demo's."""
    found = folders or (MODELS_DIR,)
    return DiffusersHost(list(found), found[0] / "out", found[0] / "data")


def permute_loaded(host: DiffusersHost, path: Path, spec: PermutationSpec) -> None:
    """Permute the loaded model in place, every permutation drawn at random."""
    chosen = spec.random(seed=1)
    tensors = load_file(path)
    with host.loader.edit() as live:
        assert live.missing(tuple(spec.shapes)) == ()
        for key in spec.shapes:
            permuted = spec.apply(key, tensors[key], chosen)
            live.write(key, 0, permuted.flatten())


@torch.no_grad()
def predicted_noise(host: DiffusersHost) -> torch.Tensor:
    """What the loaded model makes of fixed tokens and latents, in float64."""
    pipe: Any = host.loader.pipe  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 130, (2, 77), generator=generator)
    tokens[:, -1] = pipe.tokenizer.eos_token_id
    latents = torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64)
    steps = torch.tensor([17, 801])
    more: dict[str, Any] = {}
    if hasattr(pipe, "text_encoder_2"):
        hidden = []
        for encoder in (pipe.text_encoder, pipe.text_encoder_2):
            found = encoder.double()(tokens, output_hidden_states=True)
            hidden.append(found.hidden_states[-2])
        context = torch.cat(hidden, dim=-1)
        sizes = torch.tensor([[64.0, 48.0, 0.0, 8.0, 64.0, 64.0]] * 2)
        more["added_cond_kwargs"] = {
            "text_embeds": found.text_embeds,
            "time_ids": sizes.double(),
        }
    else:
        context = pipe.text_encoder.double()(tokens)[0]
    noise: torch.Tensor = pipe.unet.double()(latents, steps, context, **more).sample
    return noise
