"""Damaged checkpoints, made in tiny widths with the real names of their keys."""

from __future__ import annotations

import pytest
import torch

from tests.support.checkpoints import tiny_tensors, write_checkpoint

CLIP_L = "conditioner.embedders.0."
CLIP_G = "conditioner.embedders.1.model."
IDS = f"{CLIP_L}transformer.text_model.embeddings.position_ids"
NAN_KEY = f"{CLIP_L}transformer.text_model.encoder.layers.11.mlp.fc1.weight"
LOST_KEY = "model.diffusion_model.out.0.weight"
FLAT_KEY = "first_stage_model.decoder.mid.attn_1.q.weight"
DEAD_KEY = "model.diffusion_model.input_blocks.4.0.in_layers.2.weight"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MERGELAB_CACHE_DIR", str(tmp_path / "cache"))


def damaged_tensors():
    """An SDXL file with every defect of 257 real ones, and some more."""
    tensors = tiny_tensors("sdxl", 2)
    for key in list(tensors):
        if key in ("v_pred", "ztsnr") or key.startswith("edm_vpred."):
            del tensors[key]
    tensors["denoiser.sigmas"] = torch.ones(15)
    tensors[f"{CLIP_L}transformer.text_projection.weight"] = torch.ones(3, 3)
    tensors[f"{CLIP_L}logit_scale"] = torch.ones(())
    nested = f"{CLIP_G}transformer.text_model.embeddings.position_ids"
    tensors[nested] = torch.arange(77)[None]
    for side in ("lora_te1_text_model", "lora_te2_text_model"):
        name = f"{side}_encoder_layers_0_mlp_fc1.lora_up.weight"
        tensors[name] = torch.ones(3, 3)
    turned = tensors.pop(f"{CLIP_G}text_projection").t().contiguous()
    tensors[f"{CLIP_G}text_projection.weight"] = turned
    tensors["model_ema.decay"] = torch.ones(())
    tensors["optimizer.step"] = torch.ones(2)
    tensors[NAN_KEY] = tensors[NAN_KEY].clone()
    tensors[NAN_KEY][0, :2] = float("nan")
    tensors[NAN_KEY][1, 0] = float("inf")
    tensors[DEAD_KEY] = torch.zeros_like(tensors[DEAD_KEY])
    tensors[FLAT_KEY] = tensors[FLAT_KEY][:, :, 0, 0].contiguous()
    tensors[IDS] = tensors[IDS].half() + 1
    del tensors[LOST_KEY]
    return tensors


@pytest.fixture
def base(tmp_path):
    return write_checkpoint(tmp_path / "base.safetensors", tiny_tensors("sdxl", 1))


@pytest.fixture
def damaged(tmp_path):
    metadata = {"sd_merge_recipe": '{"type": "webui"}', "note": "mine"}
    return write_checkpoint(tmp_path / "bad.safetensors", damaged_tensors(), metadata)
