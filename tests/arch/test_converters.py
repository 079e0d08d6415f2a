"""Our names and values against diffusers' own converters and model classes."""

from __future__ import annotations

import pytest
import torch

from lib_merge.arch import detect_layout
from tests.arch.test_golden import infos
from tests.support.checkpoints import tiny_tensors, write_checkpoint
from tests.support.golden_lists import COMPACT
from tests.support.pipelines import pipeline_tensors

pytestmark = pytest.mark.slow
UNET = "model.diffusion_model."


@pytest.fixture(scope="module")
def converters():
    """The functions by which diffusers loads single files."""
    return pytest.importorskip("diffusers.loaders.single_file_utils")


def ours(tmp_path, tensors, folder):
    write_checkpoint(tmp_path / "x.safetensors", tensors)
    found = pipeline_tensors(tmp_path / "x.safetensors")
    return {k[len(folder) :]: t for k, t in found.items() if k.startswith(folder)}


def assert_equal(found, wanted):
    assert set(found) == set(wanted)
    differing = [
        key
        for key in found
        if found[key].shape != wanted[key].shape
        or not torch.equal(found[key], wanted[key])
    ]
    assert differing == []


@pytest.mark.parametrize(
    ("arch_id", "config"),
    [
        ("sd1", {"layers_per_block": 2}),
        ("sd2", {"layers_per_block": 2}),
        ("sdxl", {"layers_per_block": 2, "addition_embed_type": "text_time"}),
        ("sdxl_refiner", {"layers_per_block": 2, "addition_embed_type": "text_time"}),
    ],
    ids=["sd1", "sd2", "sdxl", "sdxl_refiner"],
)
def test_unet_equals_diffusers_conversion(converters, tmp_path, arch_id, config):
    tensors = tiny_tensors(arch_id, 3)
    wanted = converters.convert_ldm_unet_checkpoint(dict(tensors), config)
    assert_equal(ours(tmp_path, tensors, "unet."), wanted)


@pytest.mark.parametrize("arch_id", ["sd1", "sd3_medium", "flux"])
def test_vae_equals_diffusers_conversion(converters, tmp_path, arch_id):
    tensors = tiny_tensors(arch_id, 3)
    config = {"down_block_types": [""] * 4, "up_block_types": [""] * 4}
    wanted = converters.convert_ldm_vae_checkpoint(dict(tensors), config)
    assert_equal(ours(tmp_path, tensors, "vae."), wanted)


@pytest.mark.parametrize(
    ("arch_id", "name"),
    [
        ("sd3_medium", "convert_sd3_transformer_checkpoint_to_diffusers"),
        ("sd35_medium", "convert_sd3_transformer_checkpoint_to_diffusers"),
        ("sd35_large", "convert_sd3_transformer_checkpoint_to_diffusers"),
        ("auraflow", "convert_auraflow_transformer_checkpoint_to_diffusers"),
    ],
    ids=["sd3_medium", "sd35_medium", "sd35_large", "auraflow"],
)
def test_transformer_equals_diffusers_conversion(converters, tmp_path, arch_id, name):
    tensors = tiny_tensors(arch_id, 3)
    prefix = "model." if arch_id == "auraflow" else UNET
    own = {k[len(prefix) :]: t for k, t in tensors.items() if k.startswith(prefix)}
    own = {k: t for k, t in own.items() if not k.startswith("model_sampling.")}
    wanted = getattr(converters, name)(own)
    assert_equal(ours(tmp_path, tensors, "transformer."), wanted)


def test_flux_equals_diffusers_conversion(converters, tmp_path):
    """The converter cuts at 3072 rows, so only the rows are of the real size."""
    tensors = {
        key: tensor
        for key, tensor in tiny_tensors("flux", 3).items()
        if key.startswith(UNET)
    }
    for key in list(tensors):
        if ".linear1." in key:
            width = () if key.endswith("bias") else (2,)
            generator = torch.Generator().manual_seed(len(key))
            tensors[key] = torch.randn(21504, *width, generator=generator).half()
    bare = {k[len(UNET) :]: t for k, t in tensors.items()}
    wanted = converters.convert_flux_transformer_checkpoint_to_diffusers(bare)
    assert_equal(ours(tmp_path, tensors, "transformer."), wanted)


class _Config:
    hidden_size = 20


class _TextModel:
    config = _Config()


def test_open_clip_equals_diffusers_conversion(converters, tmp_path):
    tensors = tiny_tensors("sdxl", 3)
    wanted = converters.convert_open_clip_checkpoint(
        _TextModel(), dict(tensors), prefix="conditioner.embedders.1.model."
    )
    assert_equal(ours(tmp_path, tensors, "text_encoder_2."), wanted)


@pytest.mark.parametrize("arch_id", COMPACT)
def test_names_and_shapes_are_those_of_diffusers_class(arch_id):
    pytest.importorskip("diffusers")
    from tests.support.published_models import transformer_infos

    single = detect_layout(infos(arch_id), where="x.safetensors")
    folder = single.architecture.names[0].folder
    found = {
        key[len(folder) :]: info.shape
        for key, info in single.as_pipeline().infos.items()
        if key.startswith(folder)
    }
    wanted = {key: info.shape for key, info in transformer_infos(arch_id).items()}
    assert found == wanted
