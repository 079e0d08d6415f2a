"""Every layout is recognised whole, without any component, and however it is named."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest

from lib_merge.arch import architectures, claims, detect_layout
from lib_merge.core.blocks import Component, TensorInfo
from lib_merge.core.dtypes import DType
from lib_merge.core.layouts import Layout, find_stored
from lib_merge.core.naming import CANONICAL
from lib_merge.errors import CheckpointError
from tests.arch.test_golden import ALL_IDS, infos

UNET = "model.diffusion_model."
TRANSFORMER_COUNTS = {
    "sd3_medium": (682, 2.03),
    "sd35_medium": (908, 2.24),
    "sd35_large": (1226, 8.06),
    "flux": (1160, 11.90),
    "auraflow": (331, 6.83),
    "hunyuan_dit": (1545, 1.52),
    "pixart": (611, 0.61),
}
"""Tensors in diffusers and billions of parameters, as published."""


def layout(arch_id: str) -> Layout:
    return detect_layout(infos(arch_id), where="x.safetensors")


def without(arch_id: str, component: Component) -> dict[str, TensorInfo]:
    role_of = architectures().get(arch_id).role_of
    return {
        key: info
        for key, info in infos(arch_id).items()
        if role_of(key).component is not component
    }


COMPONENTS = [
    (arch_id, component)
    for arch_id in ALL_IDS
    for component in dict.fromkeys(
        b.component for b in architectures().get(arch_id).blocks
    )
    if component is not Component.SCHEDULE
]


@pytest.mark.parametrize(
    ("arch_id", "component"), COMPONENTS, ids=[f"{a}-{c.value}" for a, c in COMPONENTS]
)
def test_layout_is_recognised_without_a_component(arch_id, component):
    rest = without(arch_id, component)
    # What SD3.5 and PixArt have beside their transformer is SD3's, and Flux's T5.
    borrowed = {
        "sd35_medium": "sd3_medium",
        "sd35_large": "sd3_medium",
        "pixart": "flux",
    }
    wanted = arch_id
    if component is Component.UNET:
        wanted = borrowed.get(arch_id, arch_id)
    assert claims(rest) == (wanted,)
    found = detect_layout(rest, where="x.safetensors")
    assert component not in found.components
    assert found.is_canonical


@pytest.mark.parametrize(
    "prefix", ["", "diffusion_model.", "unet.", "transformer.", "model.", "net."]
)
@pytest.mark.parametrize("arch_id", ALL_IDS)
def test_what_denoises_is_recognised_with_any_prefix(arch_id, prefix):
    own = architectures().get(arch_id).names[0].prefix
    unet = {
        key: info
        for key, info in infos(arch_id).items()
        if key.startswith(own) and "model_sampling" not in key
    }
    bare = {prefix + key[len(own) :]: info for key, info in unet.items()}
    found = detect_layout(bare, where="x.safetensors")
    assert claims(bare) == (arch_id,)
    assert dict(found.canonical) == unet
    assert [found.role_of(key) for key in bare] == [
        found.architecture.role_of(key) for key in unet
    ]


@pytest.mark.parametrize("arch_id", ALL_IDS)
def test_pipeline_is_recognised_and_means_the_same_tensors(arch_id):
    single = layout(arch_id)
    pipeline = single.as_pipeline()
    found = detect_layout(pipeline.infos, where="folder")
    assert claims(pipeline.infos) == (arch_id,)
    assert {b.place.prefix for b in found.bindings} == {
        names.folder for names in single.architecture.names
    }
    assert "diffusers" in found.naming
    for key, info in found.canonical.items():
        assert info.shape == single.infos[key].shape, key
    lost = {single.role_of(k) for k in single.infos if k not in found.canonical}
    kept = {
        b.id
        for b in single.architecture.blocks
        if b.component is not Component.SCHEDULE
    }
    assert {found.role_of(key).block for key in pipeline.infos} == {
        block
        for block in kept
        if any(single.role_of(k).block == block for k in single.infos)
    }
    assert all(role is not None for role in lost)


@pytest.mark.parametrize("arch_id", ALL_IDS)
def test_pipeline_of_each_component_alone_is_recognised(arch_id):
    pipeline = layout(arch_id).as_pipeline()
    folder = layout(arch_id).architecture.names[0].folder
    bare = {
        key[len(folder) :]: info
        for key, info in pipeline.infos.items()
        if key.startswith(folder)
    }
    assert claims(bare) == (arch_id,)


@pytest.mark.parametrize("arch_id", ALL_IDS)
def test_tensors_are_found_both_ways_between_namings(arch_id):
    single = layout(arch_id)
    pipeline = single.as_pipeline()
    for wanted, model in ((single, pipeline), (pipeline, single)):
        for key, info in wanted.infos.items():
            if wanted is single and key not in pipeline.canonical:
                continue
            stored = find_stored(wanted, key, model)
            assert stored is not None, key
            assert stored.info.shape == info.shape, key
            n_values = sum(run.stop - run.start for run in stored.runs)
            assert n_values == info.n_elements, key


@pytest.mark.parametrize("arch_id", TRANSFORMER_COUNTS)
def test_transformer_has_the_published_size(arch_id):
    n_tensors, billions = TRANSFORMER_COUNTS[arch_id]
    pipeline = layout(arch_id).as_pipeline()
    own = {
        key: info
        for key, info in pipeline.infos.items()
        # The places of SD3's patches are a buffer, no parameter.
        if key.startswith("transformer.")
        and not (arch_id.startswith("sd3") and key.endswith("pos_embed.pos_embed"))
    }
    assert len(own) == n_tensors
    assert sum(info.n_elements for info in own.values()) / 1e9 == pytest.approx(
        billions, abs=0.006
    )


@pytest.mark.parametrize(
    ("arch_id", "start", "component"),
    [
        ("sd1", "first_stage_model.", Component.VAE),
        ("sd1", "cond_stage_model.transformer.", Component.CLIP_L),
        ("sd2", "cond_stage_model.model.", Component.CLIP_H),
        ("sd2", "cond_stage_model.", Component.CLIP_H),
        ("sdxl", "conditioner.embedders.1.model.", Component.CLIP_G),
        ("sd1", "cond_stage_model.transformer.text_model.", Component.CLIP_L),
        ("flux", "vae.", Component.VAE),
        ("flux", "text_encoders.t5xxl.transformer.", Component.T5),
    ],
    ids=lambda value: str(value),
)
def test_bare_component_is_recognised(arch_id, start, component):
    bare = {
        key[len(start) :]: info
        for key, info in infos(arch_id).items()
        if key.startswith(start)
    }
    found = detect_layout(bare, where="x.safetensors")
    assert found.architecture.id == arch_id
    assert found.components == (component,)


def test_old_text_encoder_names_mean_the_same():
    old = {
        key.replace("transformer.text_model.", "transformer."): info
        for key, info in infos("sd1").items()
    }
    found = detect_layout(old, where="x.safetensors")
    assert found.canonical.keys() == infos("sd1").keys()
    assert found.is_single_file
    assert not found.is_canonical


CONV = UNET + "input_blocks.0.0.weight"
SCALAR = TensorInfo(DType.F32, ())
KINDS = {
    "plain": ("sd1", {}, "plain"),
    "inpainting": ("sd1", {CONV: (320, 9, 3, 3)}, "inpainting"),
    "pix2pix": ("sd1", {CONV: (320, 8, 3, 3)}, "instruct-pix2pix"),
    "depth": ("sd2", {CONV: (320, 5, 3, 3)}, "depth"),
    "sdxl inpainting": ("sdxl", {CONV: (320, 9, 3, 3)}, "inpainting, v-prediction"),
    "lcm": ("sd1", {UNET + "time_embed.cond_proj.weight": (320, 256)}, "lcm"),
    "flux fill": ("flux", {UNET + "img_in.weight": (3072, 384)}, "inpainting"),
}


@pytest.mark.parametrize("name", KINDS)
def test_kind_is_told_by_shapes_and_loose_tensors(name):
    arch_id, changes, kind = KINDS[name]
    tensors = infos(arch_id)
    tensors.update({k: TensorInfo(DType.F16, shape) for k, shape in changes.items()})
    found = detect_layout(tensors, where="x.safetensors")
    assert (found.architecture.id, found.kind) == (arch_id, kind)
    as_folder = detect_layout(found.as_pipeline().infos, where="folder")
    # Loose flags have no place in a pipeline.
    assert as_folder.kind == kind.replace(", v-prediction", "")


def test_kind_of_sdxl_is_plain_without_its_flags():
    from lib_merge.arch._ldm import MARKER_KEYS

    tensors = {k: v for k, v in infos("sdxl").items() if k not in MARKER_KEYS}
    assert detect_layout(tensors, where="x").kind == "plain"


def test_schnell_is_flux_without_guidance():
    tensors = {k: v for k, v in infos("flux").items() if ".guidance_in." not in k}
    found = detect_layout(tensors, where="x.safetensors")
    assert (found.architecture.id, found.kind) == ("flux", "schnell")


def segmind(n_deep: int) -> dict[str, TensorInfo]:
    """SDXL's tensors without its middle attention and its deep layers."""
    found = {}
    for key, info in infos("sdxl").items():
        if key.startswith((UNET + "middle_block.1.", UNET + "middle_block.2.")):
            continue
        rest = key.partition(".transformer_blocks.")[2]
        is_deep = ".input_blocks.7." in key or ".input_blocks.8." in key
        if is_deep and rest and int(rest.split(".")[0]) >= n_deep:
            continue
        found[key] = info
    return found


@pytest.mark.parametrize(("n_deep", "kind"), [(4, "ssd-1b"), (2, "vega")])
def test_small_sdxl_is_told_from_the_whole_one(n_deep, kind):
    tensors = segmind(n_deep)
    assert claims(tensors) == ("sdxl_small",)
    assert detect_layout(tensors, where="x").kind.split(",")[0] == kind


def test_deeper_transformer_is_not_taken_for_a_known_one():
    key = UNET + "joint_blocks.24.x_block.attn.qkv.weight"
    tensors = infos("sd3_medium") | {key: TensorInfo(DType.F16, (4608, 1536))}
    only = {k: v for k, v in tensors.items() if k.startswith(UNET)}
    with pytest.raises(CheckpointError, match="no known architecture"):
        detect_layout(only, where="x.safetensors")


def test_canonical_place_is_the_first_of_every_component():
    for architecture in architectures():
        for names in architecture.names:
            assert names.canonical.style is CANONICAL
            assert names.canonical.prefix == names.prefix
            assert names.in_folder.prefix == names.folder


def test_find_gives_nothing_where_a_part_of_a_fused_tensor_is_missing():
    single = layout("flux")
    stored = dict(single.as_pipeline().infos)
    del stored["transformer.transformer_blocks.0.attn.to_k.weight"]
    found = detect_layout(stored, where="folder")
    fused = UNET + "double_blocks.0.img_attn.qkv.weight"
    assert find_stored(single, fused, found) is None
    assert fused not in found.canonical


def test_wide_type_is_taken_where_parts_of_a_fused_tensor_differ():
    single = layout("flux")
    stored = dict(single.as_pipeline().infos)
    key = "transformer.transformer_blocks.0.attn.to_k.weight"
    stored[key] = replace(stored[key], dtype=DType.F32)
    found = detect_layout(stored, where="folder")
    fused = UNET + "double_blocks.0.img_attn.qkv.weight"
    assert find_stored(single, fused, found).info.dtype is DType.F32
    assert prod(found.canonical[fused].shape) == prod(single.infos[fused].shape)
