"""Text-encoder keys of the golden lists as Transformers parameters."""

from __future__ import annotations

import pytest

from lib_merge.hosts._clip_names import (
    Part,
    canonical_key,
    is_picture_key,
    openclip_parts,
    text_key,
)
from tests.support.checkpoints import golden_rows

ENCODERS = {"clip_l": "CLIP_L", "clip_g": "CLIP_G", "clip_h": "CLIP_H"}


@pytest.mark.parametrize("arch_id", ["sd1", "sd2", "sdxl"])
def test_every_text_key_of_a_layout_is_known(arch_id: str) -> None:
    for row in golden_rows(arch_id):
        found = text_key(row["key"])
        is_text = row["component"].startswith("clip")
        assert (found is not None) == is_text, row["key"]
        if found is not None:
            assert ENCODERS[found.encoders[0]] == row["block"]
            is_unused = row["key"].endswith(("position_ids", "logit_scale"))
            assert bool(found.parts) != is_unused, row["key"]


@pytest.mark.parametrize("arch_id", ["sd1", "sd2", "sdxl"])
def test_two_keys_never_become_the_same_parameter(arch_id: str) -> None:
    keys = [text_key(row["key"]) for row in golden_rows(arch_id)]
    names = [(key.encoders[0], part.name) for key in keys if key for part in key.parts]
    assert len(set(names)) == len(names)
    n_layers = {"sd1": [12], "sd2": [24], "sdxl": [12, 32]}[arch_id]
    # 16 tensors a layer, 2 embeddings, 2 of the final norm; OpenCLIP's projection.
    n_projections = {"sd1": 0, "sd2": 1, "sdxl": 1}[arch_id]
    expected = sum(16 * n + 4 for n in n_layers) + n_projections
    assert len(names) == expected


def test_fused_attention_becomes_three_shares_in_order() -> None:
    parts = openclip_parts("transformer.resblocks.7.attn.in_proj_bias")
    base = "text_model.encoder.layers.7.self_attn"
    assert parts == (
        Part(f"{base}.q_proj.bias", 0, 3),
        Part(f"{base}.k_proj.bias", 1, 3),
        Part(f"{base}.v_proj.bias", 2, 3),
    )


def test_projection_is_transposed_in_openclip_only() -> None:
    (raw,) = openclip_parts("text_projection")
    (linear,) = openclip_parts("text_projection.weight")
    assert (raw.name, linear.name) == ("text_projection.weight",) * 2
    assert raw.is_transposed
    assert not linear.is_transposed


@pytest.mark.parametrize(
    "name", ["logit_scale", "attn_mask", "transformer.resblocks.0.unknown.weight"]
)
def test_unknown_openclip_tensor_has_no_parameter(name: str) -> None:
    assert openclip_parts(name) == ()


@pytest.mark.parametrize(
    ("key", "canonical"),
    [
        (
            "cond_stage_model.transformer.encoder.layers.0.mlp.fc1.bias",
            "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.bias",
        ),
        (
            "cond_stage_model.transformer.text_model.final_layer_norm.bias",
            "cond_stage_model.transformer.text_model.final_layer_norm.bias",
        ),
        ("model.diffusion_model.out.2.bias", "model.diffusion_model.out.2.bias"),
    ],
    ids=["early", "current", "unet"],
)
def test_early_names_become_current_ones(key: str, canonical: str) -> None:
    assert canonical_key(key) == canonical


@pytest.mark.parametrize(
    ("key", "is_used"),
    [
        ("model.diffusion_model.out.2.bias", True),
        ("first_stage_model.encoder.conv_in.weight", True),
        ("first_stage_model.loss.logvar", False),
        ("model_ema.diffusion_modelout2bias", False),
        ("alphas_cumprod", False),
        ("v_pred", False),
        ("cond_stage_model.transformer.text_model.embeddings.position_ids", False),
        ("cond_stage_model.transformer.text_projection.weight", False),
        ("cond_stage_model.logit_scale", False),
        ("cond_stage_model.model.visual.proj", False),
        ("conditioner.embedders.1.model.text_projection", True),
        ("conditioner.embedders.1.model.logit_scale", False),
        ("conditioner.embedders.0.model.ln_final.weight", True),
    ],
)
def test_only_what_a_picture_depends_on_is_a_picture_key(
    key: str, is_used: bool
) -> None:
    assert is_picture_key(key) is is_used
