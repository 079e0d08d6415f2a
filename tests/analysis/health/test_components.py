"""Components of one file in another: across architectures, namings and lone files."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from lib_merge.analysis.health.components import ComponentOptions, plan_components
from lib_merge.analysis.health.rewrite import write_file
from lib_merge.arch import architectures
from lib_merge.core.blocks import Component
from lib_merge.errors import CheckpointError, InputError, RecipeError
from tests.support.checkpoints import tiny_tensors, write_checkpoint

SD1_TEXT = "cond_stage_model."
SDXL_TEXT = "conditioner.embedders.0."
CLIP_G = "conditioner.embedders.1."
VAE = "first_stage_model."
IDS = f"{SD1_TEXT}transformer.text_model.embeddings.position_ids"


def put_together(path, takes=None, **options):
    out = path.with_name("out.safetensors")
    plan = plan_components(path, ComponentOptions(takes or {}, **options))
    return load_file(write_file(plan.job, out, overwrite=True).path)


def same(a, b):
    return a.dtype == b.dtype and torch.equal(a, b)


@pytest.fixture
def sd1(tmp_path):
    return write_checkpoint(tmp_path / "sd1.safetensors", tiny_tensors("sd1", 1))


@pytest.fixture
def sdxl(tmp_path):
    return write_checkpoint(tmp_path / "sdxl.safetensors", tiny_tensors("sdxl", 2))


def test_clip_of_sdxl_is_put_into_sd1(sd1, sdxl):
    found = put_together(sd1, {Component.CLIP_L: sdxl})
    mine, theirs = load_file(sd1), load_file(sdxl)
    assert found.keys() == mine.keys()
    for key, tensor in found.items():
        name = key.replace(SD1_TEXT, SDXL_TEXT)
        assert same(tensor, theirs[name] if key.startswith(SD1_TEXT) else mine[key])


def test_unet_of_one_goes_with_clip_and_vae_of_another(sd1, tmp_path):
    other = tmp_path / "other.safetensors"
    write_checkpoint(other, tiny_tensors("sd1", 9))
    found = put_together(sd1, {Component.UNET: other})
    mine, theirs = load_file(sd1), load_file(other)
    for key, tensor in found.items():
        is_unet = key.startswith("model.diffusion_model.")
        assert same(tensor, theirs[key] if is_unet else mine[key])


@pytest.mark.parametrize("prefix", ["", VAE, "vae."], ids=["bare", "long", "vae"])
def test_vae_file_is_baked_in(sd1, tmp_path, prefix):
    fresh = {
        key.replace(VAE, ""): tensor.float()
        for key, tensor in tiny_tensors("sd1", 7).items()
        if key.startswith(VAE)
    }
    fresh["loss.logvar"] = torch.zeros(())
    named = {prefix + key: tensor for key, tensor in fresh.items()}
    path = write_checkpoint(tmp_path / "good.vae.safetensors", named)
    found = put_together(sd1, {Component.VAE: path})
    assert found.keys() == load_file(sd1).keys()
    vae = [key for key in found if key.startswith(VAE)]
    assert len(vae) == 248
    assert all(same(found[key], fresh[key.removeprefix(VAE)]) for key in vae)


def test_vae_is_stripped_and_baked_in_again(sd1, tmp_path):
    stripped = put_together(sd1, strips=frozenset({Component.VAE}))
    assert not any(key.startswith(VAE) for key in stripped)
    path = write_checkpoint(tmp_path / "stripped.safetensors", stripped)
    whole = put_together(path, {Component.VAE: sd1})
    assert whole.keys() == load_file(sd1).keys()


def diffusers_names(arch_id, component, tensors):
    """A component's tensors in diffusers names, split as ARCH's tables say."""
    architecture = architectures().get(arch_id)
    names = next(n for n in architecture.names if n.component is component)
    place = next(p for p in names.places if p.style.name == "diffusers")
    found = {}
    for key, tensor in tensors.items():
        if not key.startswith(names.prefix):
            continue
        rule = place.style.rule(key.removeprefix(names.prefix))
        if rule is None:
            continue
        pieces = tensor.chunk(len(rule.stored)) if len(rule.stored) > 1 else (tensor,)
        for name, piece in zip(rule.stored, pieces, strict=True):
            turned = piece.t() if rule.how.value == "transposed" else piece
            if rule.how.value == "as_conv":
                turned = turned.reshape(turned.shape[:2])
            found[name] = turned.contiguous()
    return found


@pytest.mark.parametrize("component", [Component.VAE, Component.CLIP_G])
def test_component_is_taken_from_a_file_in_diffusers_names(sdxl, tmp_path, component):
    fresh = tiny_tensors("sdxl", 5)
    named = diffusers_names("sdxl", component, fresh)
    if component is Component.CLIP_G:
        # Alone and of this width it would be taken for a CLIP-L.
        named = {f"text_encoder_2.{key}": tensor for key, tensor in named.items()}
        named |= {k: v for k, v in fresh.items() if not k.startswith(CLIP_G)}
    path = write_checkpoint(tmp_path / "lone.safetensors", named)
    found = put_together(sdxl, {component: path})
    prefix = VAE if component is Component.VAE else CLIP_G
    keys = [key for key in found if key.startswith(prefix)]
    spare = {key for key in keys if key.endswith("logit_scale")}
    assert len(keys) >= 248
    assert all(same(found[key], fresh[key]) for key in keys if key not in spare)


def test_position_ids_are_kept_or_fixed(tmp_path):
    tensors = tiny_tensors("sd1", 1)
    tensors[IDS] = torch.tensor([[0, 0, 3]]).half()
    path = write_checkpoint(tmp_path / "a.safetensors", tensors)
    strips = frozenset({Component.VAE})
    assert same(put_together(path, strips=strips)[IDS], tensors[IDS])
    assert same(put_together(path, fix_ids=True)[IDS], torch.tensor([[0, 1, 2]]))


def test_component_that_the_architecture_lacks_is_refused(sd1, sdxl):
    with pytest.raises(RecipeError, match=r"Stable Diffusion 1\.x has no clip_g"):
        put_together(sd1, {Component.CLIP_G: sdxl})


def test_component_of_other_widths_is_refused(sd1, tmp_path):
    tensors = tiny_tensors("sd1", 3)
    key = f"{SD1_TEXT}transformer.text_model.final_layer_norm.weight"
    tensors[key] = torch.zeros(5)
    path = write_checkpoint(tmp_path / "b.safetensors", tensors)
    with pytest.raises(RecipeError, match=r"does not fit sd1.*is \[5\], not \[12\]"):
        put_together(sd1, {Component.CLIP_L: path})


def test_incomplete_component_is_refused(sd1, tmp_path):
    tensors = tiny_tensors("sd1", 3)
    del tensors[f"{SD1_TEXT}transformer.text_model.final_layer_norm.weight"]
    path = write_checkpoint(tmp_path / "b.safetensors", tensors)
    with pytest.raises(RecipeError, match="lacks 1 key"):
        put_together(sd1, {Component.CLIP_L: path})


def test_component_is_refused_when_it_is_both_taken_and_stripped(sd1, sdxl):
    strips = frozenset({Component.CLIP_L})
    with pytest.raises(InputError, match="taken and left out"):
        put_together(sd1, {Component.CLIP_L: sdxl}, strips=strips)


def test_lora_has_no_component_to_give(sd1, tmp_path):
    tensors = {"lora_unet_x.lora_up.weight": torch.ones(2, 2)}
    path = write_checkpoint(tmp_path / "l.safetensors", tensors)
    with pytest.raises(CheckpointError, match="It is: LoRA"):
        put_together(sd1, {Component.VAE: path})
