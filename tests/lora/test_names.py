"""Module names of kohya, diffusers, PEFT, LyCORIS and ComfyUI, and what they mean."""

from __future__ import annotations

import re

import pytest

from lib_merge.lora.names import take_apart
from lib_merge.lora.targets import Rows, known_architectures, table_of
from tests.lora import makers
from tests.support.checkpoints import golden_rows, golden_shape

DOWN_KEY = makers.TO_Q_KEY
TEXT_Q = "conditioner.embedders.1.model.transformer.resblocks.3.attn.in_proj_weight"
FLUX = "model.diffusion_model."
NAMES = [
    ("sd1", "lora_unet_{}.lora_down.weight", "down", DOWN_KEY),
    ("sd1", "unet.{.}.lora_A.weight", "down", DOWN_KEY),
    ("sd1", "unet.{.}.lora_A.default.weight", "down", DOWN_KEY),
    ("sd1", "unet.{.}.lora.up.weight", "up", DOWN_KEY),
    ("sd1", "base_model.model.{.}.lora_B.weight", "up", DOWN_KEY),
    ("sd1", "base_model.model.unet.{.}.lora_B.weight", "up", DOWN_KEY),
    ("sd1", "unet.{.-}.processor.to_q_lora.up.weight", "up", DOWN_KEY),
    ("sd1", "{.-}.processor.to_q_lora.down.weight", "down", DOWN_KEY),
    ("sd1", "lycoris_{}.hada_w1_a", "hada_w1_a", DOWN_KEY),
    ("sd1", "lora_unet_{}.alpha", "alpha", DOWN_KEY),
    ("sd1", "unet.{.}.lora_magnitude_vector", "magnitude", DOWN_KEY),
]
DOTTED = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def meaning(arch_id, name):
    """(role, target) of a tensor's name."""
    found = take_apart(name)
    assert found is not None
    target = table_of(arch_id).find(found.family, found.flat)
    assert target is not None, found
    return found.role, target


@pytest.mark.parametrize(("arch_id", "form", "role", "key"), NAMES, ids=lambda v: v)
def test_name_means_its_tensor_in_every_spelling(arch_id, form, role, key):
    name = form.replace("{}", DOTTED.replace(".", "_"))
    name = name.replace("{.-}", DOTTED.removesuffix(".to_q")).replace("{.}", DOTTED)
    found, target = meaning(arch_id, name)
    assert (found, target.weight, target.rows) == (role, key, Rows())


@pytest.mark.parametrize(
    ("arch_id", "name", "key", "rows"),
    [
        (
            "sdxl",
            "lora_te2_text_model_encoder_layers_3_self_attn_k_proj.lora_up.weight",
            TEXT_Q,
            Rows(1, 2, 3),
        ),
        (
            "sdxl",
            "text_encoder_2.text_model.encoder.layers.3.self_attn.to_k_lora.up.weight",
            TEXT_Q,
            Rows(1, 2, 3),
        ),
        (
            "sdxl",
            "lora_unet_input_blocks_7_1_transformer_blocks_9_ff_net_2.alpha",
            FLUX + "input_blocks.7.1.transformer_blocks.9.ff.net.2.weight",
            Rows(),
        ),
        (
            "sdxl",
            "unet.down_blocks.2.attentions.0.transformer_blocks.9.ff.net.2.lora_A.weight",
            FLUX + "input_blocks.7.1.transformer_blocks.9.ff.net.2.weight",
            Rows(),
        ),
        (
            "sd2",
            "lora_te_text_model_encoder_layers_3_self_attn_v_proj.lora_up.weight",
            "cond_stage_model.model.transformer.resblocks.3.attn.in_proj_weight",
            Rows(2, 3, 3),
        ),
        (
            "flux",
            "lora_unet_double_blocks_18_img_attn_qkv.lora_up.weight",
            FLUX + "double_blocks.18.img_attn.qkv.weight",
            Rows(),
        ),
        (
            "flux",
            "transformer.transformer_blocks.18.attn.add_v_proj.lora_B.weight",
            FLUX + "double_blocks.18.txt_attn.qkv.weight",
            Rows(2, 3, 3),
        ),
        (
            "flux",
            "lora_transformer_single_transformer_blocks_37_proj_mlp.lora_up.weight",
            FLUX + "single_blocks.37.linear1.weight",
            Rows(3, 7, 7),
        ),
        (
            "flux",
            "diffusion_model.single_blocks.5.linear2.lora_A.weight",
            FLUX + "single_blocks.5.linear2.weight",
            Rows(),
        ),
        (
            "flux",
            "lora_te1_text_model_encoder_layers_11_mlp_fc2.lora_up.weight",
            "text_encoders.clip_l.transformer.text_model.encoder.layers.11.mlp.fc2"
            ".weight",
            Rows(),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 6 else "",
)
def test_name_means_rows_of_a_fused_tensor(arch_id, name, key, rows):
    _, target = meaning(arch_id, name)
    assert (target.weight, target.rows) == (key, rows)


def test_last_modulation_of_flux_has_its_halves_swapped_in_diffusers():
    _, theirs = meaning("flux", "transformer.norm_out.linear.lora_A.weight")
    _, ours = meaning("flux", "lora_unet_final_layer_adaLN_modulation_1.alpha")
    assert theirs.weight == ours.weight
    assert (theirs.is_rotated, ours.is_rotated) == (True, False)


@pytest.mark.parametrize("arch_id", ["sd1", "sd2", "sdxl"])
def test_every_matrix_of_the_unet_and_text_encoders_has_one_name(arch_id):
    names = {}
    for written in table_of(arch_id).written():
        names.setdefault(written.target.weight, []).append(written.target.rows)
    wanted = {
        row["key"]
        for row in golden_rows(arch_id)
        if row["treatment"] == "merge"
        and len(golden_shape(row)) > 1
        and not row["key"].startswith("first_stage_model.")
    }
    if arch_id == "sd2":
        # Diffusers leaves the last layer out, so nobody trains it.
        wanted = {key for key in wanted if ".resblocks.23." not in key}
    assert wanted - set(names) == set()
    for key in wanted:
        rows = names[key]
        assert rows == [Rows()] or [r.start for r in rows] == [0, 1, 2]


@pytest.mark.parametrize(
    "arch_id", [*known_architectures(), "sdxl_refiner", "sdxl_small"]
)
def test_written_names_are_read_back(arch_id):
    table = table_of(arch_id)
    for written in table.written():
        assert re.fullmatch(r"lora_(unet|te|te1|te2)_\w+", written.name)
        _, target = meaning(arch_id, f"{written.name}.lora_up.weight")
        assert target == written.target


@pytest.mark.parametrize(
    "name",
    [
        "model.diffusion_model.out.2.weight",
        "bundle_emb.x.string_to_param.*",
        "lora_unet_x.bias_values",
        "",
        "alpha",
    ],
)
def test_other_names_are_no_loras(name):
    assert take_apart(name) is None
