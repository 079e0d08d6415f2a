"""Tiny SD1, SD2 and SDXL pipelines: diffusers configs, and files in the real layout.

Widths are the least that the layouts allow; every key of the golden lists is there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from lib_merge.core.seeds import derive_seed
from lib_merge.demo import PIPELINE_DIR
from lib_merge.hosts._clip_names import text_key
from lib_merge.hosts._diffusers_weights import _Name, _unet_names, _vae_names
from tests.support.checkpoints import golden_rows

UNET: dict[str, dict[str, Any]] = {
    "sd1": {"cross_attention_dim": 16},
    "sd2": {"cross_attention_dim": 32, "use_linear_projection": True},
    "sdxl": {
        "block_out_channels": [32, 32, 32],
        "down_block_types": [
            "DownBlock2D",
            "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
        ],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "cross_attention_dim": 48,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 32,
    },
}
TEXT: dict[str, dict[str, dict[str, Any]]] = {
    "sd1": {"text_encoder": {"hidden_size": 16, "num_hidden_layers": 12}},
    "sd2": {"text_encoder": {"hidden_size": 32, "num_hidden_layers": 23}},
    "sdxl": {
        "text_encoder": {"hidden_size": 16, "num_hidden_layers": 12},
        "text_encoder_2": {"hidden_size": 32, "num_hidden_layers": 32},
    },
}


def write_pipeline(folder: Path, arch_id: str) -> Path:
    """Write the diffusers configs of a tiny pipeline; returns its folder.

    Args:
        folder: `pipeline` is made in it.
        arch_id: sd1, sd2 or sdxl.
    """
    place = folder / "pipeline"
    shutil.copytree(PIPELINE_DIR, place)
    unet = json.loads((place / "unet" / "config.json").read_text(encoding="utf-8"))
    unet |= {"block_out_channels": [32, 32, 32, 32], **UNET[arch_id]}
    _write(place / "unet" / "config.json", unet)
    vae = json.loads((place / "vae" / "config.json").read_text(encoding="utf-8"))
    vae["block_out_channels"] = [32, 32, 32, 32]
    _write(place / "vae" / "config.json", vae)
    base = (place / "text_encoder" / "config.json").read_text(encoding="utf-8")
    index = json.loads((place / "model_index.json").read_text(encoding="utf-8"))
    for name, sizes in TEXT[arch_id].items():
        text = json.loads(base) | sizes | {"intermediate_size": 32}
        text["projection_dim"] = sizes["hidden_size"]
        _write(place / name / "config.json", text)
    if arch_id == "sdxl":
        shutil.copytree(place / "tokenizer", place / "tokenizer_2")
        index["_class_name"] = "StableDiffusionXLPipeline"
        for name in ("requires_safety_checker", "safety_checker"):
            index.pop(name, None)
        index["tokenizer_2"] = index["tokenizer"]
        index["text_encoder_2"] = ["transformers", "CLIPTextModelWithProjection"]
        index["force_zeros_for_empty_prompt"] = True
    _write(place / "model_index.json", index)
    return place


def write_checkpoint(path: Path, pipeline: Path, arch_id: str, seed: int) -> Path:
    """Write a seeded float16 checkpoint that the tiny pipeline loads.

    Args:
        path: The file to write.
        pipeline: What `write_pipeline` returned.
        arch_id: sd1, sd2 or sdxl.
        seed: Another seed gives another model.
    """
    shapes = _shapes(pipeline, arch_id)
    tensors = {}
    for row in golden_rows(arch_id):
        key = row["key"]
        if row["treatment"] == "ema":
            continue
        if key in shapes:
            tensors[key] = _values(key, shapes[key], seed)
        elif row["component"] == "schedule" and row["dtype"] == "F32":
            tensors[key] = torch.linspace(0.1, 1.0, 1000)
    save_file(tensors, path)
    return path


def _write(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")


def _values(key: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(derive_seed(seed, key))
    values = torch.randn(shape, generator=generator) * 0.05
    if len(shape) == 1 and key.endswith(".weight"):
        values += 1.0
    return values.half()


def _shapes(pipeline: Path, arch_id: str) -> dict[str, tuple[int, ...]]:
    """The shape of every weight, read off empty modules made from the configs."""
    import diffusers
    import transformers

    keys = [row["key"] for row in golden_rows(arch_id)]
    shapes: dict[str, tuple[int, ...]] = {}
    for prefix, kind, part, names in (
        (
            "model.diffusion_model.",
            diffusers.UNet2DConditionModel,
            "unet",
            _unet_names,
        ),
        ("first_stage_model.", diffusers.AutoencoderKL, "vae", _vae_names),
    ):
        module = kind.from_config(kind.load_config(str(pipeline / part)))
        found = names(
            {k: _Name(k) for k in keys if k.startswith(prefix)}, module.config
        )
        own = {name: tuple(p.shape) for name, p in module.named_parameters()}
        shapes |= {str(key): own[name] for name, key in found.items() if name in own}
    for part in TEXT[arch_id]:
        config = transformers.CLIPTextConfig.from_pretrained(str(pipeline / part))
        module = transformers.CLIPTextModelWithProjection(config)
        own = {name: tuple(p.shape) for name, p in module.named_parameters()}
        for key in keys:
            if key.startswith("conditioner.embedders.1.") == (part == "text_encoder_2"):
                shapes |= _text_shape(key, own)
    return shapes


def _text_shape(
    key: str, own: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    found = text_key(key)
    if found is None or not found.parts:
        return {}
    shape = own.get(found.parts[0].name)
    if shape is None and "layers." in found.parts[0].name:
        # The last layer of SD2's file, which the pipeline leaves out.
        return {}
    if shape is None:
        return {}
    if found.parts[0].is_transposed:
        shape = shape[::-1]
    return {key: (shape[0] * found.parts[0].count, *shape[1:])}
