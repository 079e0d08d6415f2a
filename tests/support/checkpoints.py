"""Tiny synthetic checkpoints in the real layouts, written by the safetensors package.

Keys come from the golden lists (tests/golden/*.tsv); every side from 16 up is divided
by 64, so a whole SD1 file has about 1800 or 1143 keys but less than a megabyte. Values
are seeded by (seed, key): equal on every machine and independent of the order of work.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import save_file

from lib_merge.core.seeds import derive_seed

GOLDEN = Path(__file__).parent.parent / "golden"
ARCHITECTURES = ("sd1", "sd2", "sdxl")

_TORCH = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
}


def shrink_side(side: int) -> int:
    """A side of a real tensor in the tiny layout: small ones stay as they are."""
    return side if side < 16 else max(1, side // 64)


@lru_cache(maxsize=16)
def golden_rows(arch_id: str) -> tuple[dict[str, str], ...]:
    """The rows of a golden list: key, block, component, treatment, dtype, shape."""
    with (GOLDEN / f"{arch_id}.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if rows and "numbers" in rows[0]:
        from tests.support.golden_lists import expanded

        rows = list(expanded(rows))
    return tuple(rows)


def golden_shape(row: Mapping[str, str]) -> tuple[int, ...]:
    """The real shape in a golden row; an empty field is a scalar."""
    return tuple(int(side) for side in row["shape"].split(",") if side)


def tiny_tensors(
    arch_id: str = "sd1",
    seed: int = 0,
    *,
    dtype: torch.dtype = torch.float16,
    with_ema: bool = False,
    scale: float = 0.5,
) -> dict[str, torch.Tensor]:
    """A whole tiny checkpoint.

    Args:
        arch_id: One that has a golden list.
        seed: Another seed gives another model; schedule constants and position ids
            are the same for every seed.
        dtype: Of every weight; schedule constants stay float32, ids int64.
        with_ema: Whether EMA shadow weights are there too.
        scale: Standard deviation of the values.
    """
    tensors = {}
    for row in golden_rows(arch_id):
        if row["treatment"] == "ema" and not with_ema:
            continue
        shape = tuple(shrink_side(side) for side in golden_shape(row))
        tensors[row["key"]] = _values(row, shape, seed, dtype, scale)
    return tensors


_PART = (
    "model.diffusion_model.input_blocks.4.0.in_layers.",
    "model.diffusion_model.input_blocks.11.0.in_layers.",
    "model.diffusion_model.out.",
    "cond_stage_model.transformer.text_model.final_layer_norm.",
    "cond_stage_model.transformer.text_model.embeddings.position_ids",
    "first_stage_model.decoder.conv_in.",
    "betas",
)


def tiny_part(
    seed: int = 0, *, dtype: torch.dtype = torch.float16
) -> dict[str, torch.Tensor]:
    """A dozen tensors of a tiny SD1 checkpoint: each component, still detected."""
    return {
        key: tensor
        for key, tensor in tiny_tensors("sd1", seed, dtype=dtype).items()
        if key.startswith(_PART)
    }


def _values(
    row: Mapping[str, str],
    shape: tuple[int, ...],
    seed: int,
    dtype: torch.dtype,
    scale: float,
) -> torch.Tensor:
    stored = _TORCH[row["dtype"]]
    n_elements = int(torch.tensor(shape).prod()) if shape else 1
    if not stored.is_floating_point:
        return torch.arange(n_elements, dtype=stored).reshape(shape)
    is_weight = row["treatment"] != "copy"
    generator = torch.Generator().manual_seed(
        derive_seed(seed if is_weight else 0, row["key"])
    )
    values = torch.randn(shape, generator=generator) * scale
    return values.to(dtype if is_weight else stored)


def write_checkpoint(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write tensors with the safetensors package (an independent implementation)."""
    save_file(dict(tensors), str(path), metadata=dict(metadata) if metadata else None)
    return path


def write_tiny(
    path: Path,
    arch_id: str = "sd1",
    seed: int = 0,
    *,
    dtype: torch.dtype = torch.float16,
    with_ema: bool = False,
) -> Path:
    """Write `tiny_tensors(...)` to a file and return its path."""
    tensors = tiny_tensors(arch_id, seed, dtype=dtype, with_ema=with_ema)
    return write_checkpoint(path, tensors)


def names_in(folder: Path) -> list[str]:
    """The names of everything in a folder, hidden files too, sorted."""
    return sorted(path.name for path in folder.iterdir())
