"""Models of one architecture merge to the same whatever their keys are called."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_merge.analysis.models import find_models
from lib_merge.checkpoint.hashes import file_sha256, known_sha256
from lib_merge.checkpoint.header import file_state, read_header
from lib_merge.checkpoint.reader import CheckpointReader
from lib_merge.core.recipe import Setting, simple_recipe
from lib_merge.engine.planning import plan_recipe
from lib_merge.engine.resolve import recipe_models
from lib_merge.engine.run import RunOptions
from lib_merge.engine.save import merge_to_file
from lib_merge.errors import CheckpointError, RecipeError
from tests.support.checkpoints import tiny_tensors, write_checkpoint, write_tiny
from tests.support.pipelines import pipeline_tensors, write_pipeline, write_shards

ARCHITECTURES = ("sd1", "sd2", "sdxl", "sd3_medium", "flux", "auraflow")
LEFT_OUT = {"sd2": 13, "sdxl": 1}
"""Tensors with no name in diffusers: the last layer that SD2 does not use."""


def merged(folder, *paths, method="weighted_sum", name="out", **options):
    params = {"alpha": Setting(0.3)} if method == "weighted_sum" else None
    recipe = simple_recipe(method, tuple(map(str, paths)), params, **options)
    out = folder / f"{name}.safetensors"
    merge_to_file(recipe, out, options=RunOptions(n_threads=1, chunk_elements=4096))
    return load_file(out)


def same(one, two):
    assert one.keys() == two.keys()
    return [key for key in one if not torch.equal(one[key], two[key])]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def models(request, tmp_path_factory):
    """Models a and b as single files, b also as a pipeline (the last one in shards)."""
    folder = tmp_path_factory.mktemp(request.param)
    write_tiny(folder / "a.safetensors", request.param, 1)
    write_tiny(folder / "b.safetensors", request.param, 2)
    n_shards = 3 if request.param == "auraflow" else 1
    tensors = pipeline_tensors(folder / "b.safetensors")
    write_pipeline(folder / "b", tensors, n_shards=n_shards)
    return request.param, folder


def test_merge_is_the_same_when_the_second_model_is_a_pipeline(models, tmp_path):
    _, folder = models
    wanted = merged(tmp_path, folder / "a.safetensors", folder / "b.safetensors")
    found = merged(tmp_path, folder / "a.safetensors", folder / "b", name="mixed")
    only_single = set(load_file(folder / "b.safetensors"))
    header = read_header(folder / "b")
    assert header.is_pipeline
    differing = same(found, wanted)
    arch_id, _ = models
    # What the pipeline has no tensor for is taken from the first model.
    a = load_file(folder / "a.safetensors")
    assert all(torch.equal(found[key], a[key]) for key in differing)
    assert len(differing) <= LEFT_OUT.get(arch_id, 3)
    assert only_single >= set(differing)


def test_merge_is_saved_as_a_single_file_when_the_first_model_is_a_pipeline(
    models, tmp_path
):
    _, folder = models
    wanted = merged(tmp_path, folder / "b.safetensors", folder / "a.safetensors")
    found = merged(tmp_path, folder / "b", folder / "a.safetensors", name="mixed")
    assert set(found) <= set(wanted)
    assert not [k for k in found if not torch.equal(found[k], wanted[k])]


def test_names_stay_the_first_models_when_a_component_is_merged(models, tmp_path):
    """A bare UNet in diffusers names, fused tensors of the other split for it."""
    _, folder = models
    tensors = pipeline_tensors(folder / "b.safetensors")
    unet = next(
        n for n in ("unet.", "transformer.") if any(k.startswith(n) for k in tensors)
    )
    bare = {k[len(unet) :]: t for k, t in tensors.items() if k.startswith(unet)}
    save_file(bare, str(tmp_path / "bare.safetensors"))
    found = merged(tmp_path, tmp_path / "bare.safetensors", folder / "a.safetensors")
    assert set(found) == set(bare)
    merged(tmp_path, folder / "b.safetensors", folder / "a.safetensors", name="whole")
    wanted = pipeline_tensors(tmp_path / "whole.safetensors")
    assert not [k for k in found if not torch.equal(found[k], wanted[unet + k])]


def test_pipeline_gives_the_single_files_bits_back(models, tmp_path):
    """Single file to pipeline and back, every bit of every tensor."""
    _, folder = models
    single = load_file(folder / "b.safetensors")
    recipe = simple_recipe(
        "weighted_sum",
        (str(folder / "b"), str(folder / "a.safetensors")),
        {"alpha": Setting(0.0)},
        save_dtype=None,
    )
    options = RunOptions(n_threads=1)
    merge_to_file(recipe, tmp_path / "back.safetensors", options=options)
    back = load_file(tmp_path / "back.safetensors")
    assert not [k for k in back if not torch.equal(back[k], single[k])]
    assert len(single) - len(back) <= 30


def test_flux_parts_are_cut_by_hand(tmp_path):
    """What fused, swapped and renamed means, told without the tables."""
    single = tiny_tensors("flux", 7)
    write_checkpoint(tmp_path / "x.safetensors", single)
    found = pipeline_tensors(tmp_path / "x.safetensors")
    own, new = "model.diffusion_model.", "transformer."
    fused = single[f"{own}single_blocks.3.linear1.weight"]
    n = fused.shape[1]
    stem = f"{new}single_transformer_blocks.3."
    for i, part in enumerate("qkv"):
        expected = fused[i * n : (i + 1) * n]
        assert torch.equal(found[f"{stem}attn.to_{part}.weight"], expected)
    assert torch.equal(found[f"{stem}proj_mlp.weight"], fused[3 * n :])
    final = single[f"{own}final_layer.adaLN_modulation.1.bias"]
    shift, scale = final.chunk(2)
    assert torch.equal(found[f"{new}norm_out.linear.bias"], torch.cat([scale, shift]))
    key = f"{own}double_blocks.0.txt_attn.norm.key_norm.scale"
    name = f"{new}transformer_blocks.0.attn.norm_added_k.weight"
    assert torch.equal(found[name], single[key])


def test_open_clip_is_split_and_turned_by_hand(tmp_path):
    single = tiny_tensors("sdxl", 7)
    write_checkpoint(tmp_path / "x.safetensors", single)
    found = pipeline_tensors(tmp_path / "x.safetensors")
    own = "conditioner.embedders.1.model."
    projection = single[f"{own}text_projection"]
    turned = found["text_encoder_2.text_projection.weight"]
    assert torch.equal(turned, projection.t())
    fused = single[f"{own}transformer.resblocks.5.attn.in_proj_bias"]
    stem = "text_encoder_2.text_model.encoder.layers.5.self_attn."
    parts = torch.cat([found[f"{stem}{p}_proj.bias"] for p in "qkv"])
    assert torch.equal(parts, fused)
    conv = single["first_stage_model.decoder.mid.attn_1.q.weight"]
    matrix = found["vae.decoder.mid_block.attentions.0.to_q.weight"]
    assert conv.ndim == 4
    assert torch.equal(matrix, conv[:, :, 0, 0])


@pytest.fixture(scope="module")
def sd1(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folders")
    write_tiny(folder / "a.safetensors", "sd1", 1)
    write_pipeline(folder / "b", pipeline_tensors(folder / "a.safetensors"), n_shards=2)
    return folder


def test_folder_is_found_by_its_name_among_the_models(sd1):
    recipe = simple_recipe("weighted_sum", ("b", "a"), {"alpha": Setting(0.5)})
    paths = [m.path for _, m in recipe_models(recipe, [sd1]).models()]
    assert paths == [str(sd1 / "b"), str(sd1 / "a.safetensors")]


def test_files_of_a_pipeline_are_no_models_of_their_own(sd1):
    recipe = simple_recipe(
        "weighted_sum", ("diffusion_pytorch_model", "a"), {"alpha": Setting(0.5)}
    )
    with pytest.raises(RecipeError, match="diffusion_pytorch_model' was not found"):
        recipe_models(recipe, [sd1])


@pytest.mark.parametrize(
    "path", ["b/unet", "b/unet/diffusion_pytorch_model.safetensors.index.json"]
)
def test_shards_are_read_as_one_model(sd1, path):
    header = read_header(sd1 / path)
    assert len(header.parts) == 2
    assert not header.is_pipeline
    key = "mid_block.resnets.0.conv1.weight"
    single = load_file(sd1 / "a.safetensors")
    wanted = single["model.diffusion_model.middle_block.0.in_layers.2.weight"]
    with CheckpointReader(header) as reader:
        assert torch.equal(reader.read(key).view(wanted.shape), wanted)
    assert header.n_bytes == sum(part.n_bytes for part in header.parts)


def test_folder_has_a_hash_that_changes_with_its_files(sd1, tmp_path):
    tensors = pipeline_tensors(sd1 / "a.safetensors")
    one = file_sha256(write_pipeline(tmp_path / "one", tensors))
    assert known_sha256(tmp_path / "one") == one
    assert file_sha256(write_pipeline(tmp_path / "two", tensors)) == one
    key = "vae.decoder.conv_in.bias"
    other = tensors | {key: tensors[key] + 1}
    assert file_sha256(write_pipeline(tmp_path / "three", other)) != one


def test_folder_has_another_state_when_a_file_in_it_changes(sd1, tmp_path):
    tensors = pipeline_tensors(sd1 / "a.safetensors")
    folder = write_pipeline(tmp_path / "x", tensors)
    before = file_state(folder)
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({"decoder.conv_in.bias": torch.zeros(3)}, str(file))
    assert file_state(folder) != before


def broken(folder, what):
    tensors = {f"w{i}": torch.zeros(2) for i in range(4)}
    folder.mkdir()
    if what == "shard":
        index = write_shards(folder, "model", tensors, 2)
        (folder / "model-00002-of-00002.safetensors").unlink()
        return index
    if what == "index":
        index = write_shards(folder, "model", tensors, 2)
        index.write_text('{"weight_map": [1]}')
        return index
    if what == "pickle":
        (folder / "model_index.json").write_text(json.dumps({"unet": ["a", "b"]}))
        (folder / "unet").mkdir()
        (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"x")
        return folder
    if what == "json":
        (folder / "model_index.json").write_text("{")
        return folder
    if what == "nothing":
        (folder / "model_index.json").write_text('{"scheduler": ["a", "b"]}')
    return folder


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("shard", "names 1 shards that are not there"),
        ("index", "lists no shards"),
        ("pickle", "holds no weights in .safetensors \\(only .bin\\)"),
        ("json", "no readable JSON"),
        ("nothing", "names none of unet"),
        ("empty", "is a folder"),
    ],
)
def test_broken_folder_is_refused_with_its_reason(tmp_path, what, message):
    with pytest.raises(CheckpointError, match=message):
        read_header(broken(tmp_path / "x", what))


def test_model_of_another_architecture_is_refused_whatever_its_names(sd1, tmp_path):
    write_tiny(tmp_path / "xl.safetensors", "sdxl", 1)
    recipe = simple_recipe(
        "weighted_sum", (str(sd1 / "b"), str(tmp_path / "xl.safetensors"))
    )
    with pytest.raises(RecipeError, match=r"b is Stable Diffusion 1\.x; xl"):
        plan_recipe(recipe)


def test_comparing_asks_for_single_file_names(sd1):
    with pytest.raises(CheckpointError, match=r"diffusers names.*convert it first"):
        find_models([sd1 / "a.safetensors", sd1 / "b"])
