"""The same .mecha recipe run by sd-mecha 1.1.8 and by MergeLab, on small SD1 models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lib_merge.core.dtypes import DType
from lib_merge.core.recipe import Recipe
from lib_merge.engine.save import merge_to_file
from lib_merge.formats.files import read
from lib_merge.formats.imported import Options
from lib_merge.formats.source import Source
from tests.support.checkpoints import tiny_tensors, write_checkpoint

PARTS = (
    "cond_stage_model.transformer.text_model.final_layer_norm",
    "cond_stage_model.transformer.text_model.encoder.layers.1.mlp",
    "cond_stage_model.transformer.text_model.encoder.layers.11.mlp",
    "first_stage_model.decoder.conv_in",
    "model.diffusion_model.input_blocks.11.0.in_layers",
    "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1",
    "model.diffusion_model.input_blocks.4.0.in_layers",
    "model.diffusion_model.output_blocks.11.0.in_layers",
    "model.diffusion_model.middle_block.0.in_layers",
    "model.diffusion_model.time_embed",
    "model.diffusion_model.out.",
)
"""Some tensors of every kind: a merge of them takes a fraction of a second."""


def write_models(folder: Path, n_models: int = 5) -> None:
    """m0.safetensors, m1.safetensors ... in float32."""
    for seed in range(n_models):
        tensors = tiny_tensors("sd1", seed, dtype=torch.float32)
        kept = {
            # Differences are exact in float32, too, in which sd-mecha finds thresholds.
            key: (value * 2**20).round() / 2**20
            for key, value in tensors.items()
            if key.startswith(PARTS)
        }
        write_checkpoint(folder / f"m{seed}.safetensors", kept)


def theirs(text: str, folder: Path) -> dict[str, Tensor]:
    """sd-mecha's result of a recipe of version 0.1.0."""
    mecha: Any = pytest.importorskip(
        "sd_mecha", reason="sd-mecha 1.1.8 (test group of requirements.lock) is absent"
    )
    with _inside(folder):
        merged: dict[str, Tensor] = mecha.merge(
            mecha.deserialize(text),
            merge_dtype=torch.float64,
            output_dtype=torch.float64,
            merge_device="cpu",
            output_device="cpu",
            threads=1,
            strict_mandatory_keys=False,
        )
    return merged


def recipe_of(text: str, name: str = "r.mecha", **options: Any) -> Recipe:
    """A text as our recipe."""
    found = read(Source(name, text.encode()), Options(**options)).entry().recipe
    assert found is not None
    return found


def ours(recipe: Recipe, folder: Path) -> dict[str, Tensor]:
    """Our result, as a file holds it."""
    target = folder / "ours.safetensors"
    exact = replace(recipe, compute_dtype=DType.F64, save_dtype=DType.F64)
    merge_to_file(exact, target, folders=[folder], overwrite=True)
    return load_file(target)


def assert_same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Every tensor equal to rounding: sd-mecha keeps its weights in float32."""
    keys = [key for key in theirs if key in ours]
    assert len(keys) > 20
    for key in keys:
        torch.testing.assert_close(
            ours[key].double(),
            theirs[key].double(),
            rtol=1e-6,
            atol=1e-6,
            msg=lambda text, key=key: f"{key}: {text}",
        )


@contextmanager
def _inside(folder: Path) -> Any:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
