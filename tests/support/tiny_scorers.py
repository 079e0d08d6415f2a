"""Tiny random CLIPs and classifiers, saved as transformers saves them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lib_merge.demo import PIPELINE_DIR

SIZE_PX = 32


def write_clip(folder: Path, seed: int = 0, act: str = "quick_gelu") -> Path:
    """A CLIP of two layers with the demo's words; returns its folder."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    layers = {
        "hidden_size": 64,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "hidden_act": act,
        "projection_dim": 16,
    }
    config = CLIPConfig(
        text_config={
            **layers,
            "vocab_size": n_words(),
            "max_position_embeddings": 77,
            "bos_token_id": n_words() - 2,
            "eos_token_id": n_words() - 1,
        },
        vision_config={**layers, "image_size": SIZE_PX, "patch_size": 8},
        projection_dim=16,
    )
    model = CLIPModel(config)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * 0.2)
        model.logit_scale.fill_(3.0)
    model.save_pretrained(folder)
    shutil.copytree(PIPELINE_DIR / "tokenizer", folder, dirs_exist_ok=True)
    return folder


def n_words() -> int:
    """How many words the demo's tokenizer has; its last two begin and end a text."""
    import json

    text = (PIPELINE_DIR / "tokenizer" / "vocab.json").read_text(encoding="utf-8")
    return len(json.loads(text))


def pictures(*sizes: tuple[int, int], seed: int = 1) -> list[Image.Image]:
    """Random pictures of these (width, height)."""
    rng = np.random.default_rng(seed)
    return [
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
        for width, height in sizes
    ]
