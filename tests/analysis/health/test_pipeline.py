"""Single file to a diffusers folder and back: names, configs, values bit by bit."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_merge.analysis.health.convert import ConvertOptions, plan_convert
from lib_merge.analysis.health.deep import read_deep, with_namesakes
from lib_merge.analysis.health.look import find_checkpoints, inspect_files
from lib_merge.analysis.health.pipeline import plan_pipeline, write_pipeline
from lib_merge.analysis.health.rewrite import write_file
from lib_merge.core.dtypes import DType
from lib_merge.engine.progress import JobProgress
from lib_merge.errors import Cancelled, InputError, OutputError, RecipeError
from tests.support.checkpoints import names_in, tiny_tensors, write_checkpoint

FOLDERS = {
    "sd1": ("unet", "vae", "text_encoder"),
    "sdxl": ("unet", "vae", "text_encoder", "text_encoder_2"),
}


def pipeline_of(path, arch_id):
    """A pipeline's folder with configs and no weights."""
    path.mkdir()
    index = {name: ["diffusers", "Some"] for name in FOLDERS[arch_id]}
    (path / "model_index.json").write_text(json.dumps(index))
    for name in FOLDERS[arch_id]:
        (path / name).mkdir()
        (path / name / "config.json").write_text(f'{{"of": "{name}"}}')
    (path / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"old weights")
    return path


@pytest.mark.parametrize("arch_id", FOLDERS)
def test_model_goes_to_a_folder_and_back_bit_by_bit(tmp_path, arch_id):
    tensors = tiny_tensors(arch_id, 1, with_ema=arch_id == "sd1")
    path = write_checkpoint(tmp_path / "a.safetensors", tensors)
    like = pipeline_of(tmp_path / "like", arch_id)
    write_pipeline(plan_pipeline(path, like), tmp_path / "folder")
    plan = plan_convert(tmp_path / "folder", ConvertOptions(None, is_single=True))
    back = load_file(write_file(plan.job, tmp_path / "back.safetensors").path)
    prefixes = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")
    wanted = {
        key: tensor
        for key, tensor in tensors.items()
        if key.startswith((*prefixes, "conditioner."))
        and not key.endswith(("logit_scale", "position_ids"))
    }
    found = {key: back[key] for key in wanted}
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert {key.split(".")[0] for key in back} <= {key.split(".")[0] for key in wanted}


def test_folder_has_the_configs_and_only_new_weights(tmp_path):
    path = write_checkpoint(tmp_path / "a.safetensors", tiny_tensors("sd1", 1))
    like = pipeline_of(tmp_path / "like", "sd1")
    written = write_pipeline(plan_pipeline(path, like, DType.BF16), tmp_path / "out")
    assert names_in(tmp_path / "out" / "unet") == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    assert names_in(tmp_path / "out" / "text_encoder") == [
        "config.json",
        "model.safetensors",
    ]
    unet = load_file(tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in unet.values()} == {torch.bfloat16}
    assert "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight" in unet
    assert all(one.path.is_file() for one in written)


def test_folder_is_one_model_whose_components_are_recognised(tmp_path):
    path = write_checkpoint(tmp_path / "a.safetensors", tiny_tensors("sdxl", 1))
    like = pipeline_of(tmp_path / "like", "sdxl")
    write_pipeline(plan_pipeline(path, like), tmp_path / "b_folder")
    (like / "model_index.json").unlink()
    paths = find_checkpoints(tmp_path)
    assert [one.name for one in paths] == ["a.safetensors", "b_folder"]
    _, folder = with_namesakes(read_deep(inspect_files(paths)))
    assert "diffusers names" in folder.contents.kin
    for component in ("unet", "vae", "clip_l"):
        assert folder.part(component).same_as == ("a.safetensors",)


def test_old_names_of_a_text_encoder_become_those_of_today(tmp_path):
    tensors = tiny_tensors("sd1", 1)
    old = {
        key.replace("transformer.text_model.", "transformer."): tensor
        for key, tensor in tensors.items()
    }
    path = write_checkpoint(tmp_path / "nai.safetensors", old)
    plan = plan_convert(path, ConvertOptions(None, is_single=True))
    found = load_file(write_file(plan.job, tmp_path / "o.safetensors").path)
    assert found.keys() == tensors.keys()
    assert "197 tensors get the names of single files" in plan.sentences


def test_folder_is_refused_when_a_component_has_no_place(tmp_path):
    path = write_checkpoint(tmp_path / "a.safetensors", tiny_tensors("sdxl", 1))
    like = pipeline_of(tmp_path / "like", "sd1")
    with pytest.raises(RecipeError, match="has no text_encoder_2"):
        plan_pipeline(path, like)


def test_folder_is_refused_when_the_model_lacks_a_component(tmp_path):
    tensors = tiny_tensors("sd1", 1)
    pruned = {k: v for k, v in tensors.items() if not k.startswith("first_stage")}
    path = write_checkpoint(tmp_path / "a.safetensors", pruned)
    like = pipeline_of(tmp_path / "like", "sd1")
    with pytest.raises(RecipeError, match="has nothing for vae"):
        plan_pipeline(path, like)


def test_template_is_refused_when_it_is_no_pipeline(tmp_path):
    path = write_checkpoint(tmp_path / "a.safetensors", tiny_tensors("sd1", 1))
    with pytest.raises(InputError, match="is no pipeline's folder"):
        plan_pipeline(path, tmp_path)
    like = pipeline_of(tmp_path / "like", "sd1")
    with pytest.raises(InputError, match="not written in float8_e4m3fn"):
        plan_pipeline(path, like, DType.F8_E4M3)


def test_nothing_is_left_behind_when_writing_is_stopped(tmp_path):
    path = write_checkpoint(tmp_path / "a.safetensors", tiny_tensors("sd1", 1))
    like = pipeline_of(tmp_path / "like", "sd1")
    plan = plan_pipeline(path, like)
    before = names_in(tmp_path)
    progress = JobProgress()
    progress.cancel()
    with pytest.raises(Cancelled):
        write_pipeline(plan, tmp_path / "out", progress)
    assert names_in(tmp_path) == before


def test_existing_folder_is_never_written_into(tmp_path):
    path = write_checkpoint(tmp_path / "a.safetensors", tiny_tensors("sd1", 1))
    like = pipeline_of(tmp_path / "like", "sd1")
    with pytest.raises(OutputError, match="exists; choose another name"):
        write_pipeline(plan_pipeline(path, like), like)


def test_names_of_a_lora_stay_as_they_are(tmp_path):
    path = tmp_path / "l.safetensors"
    save_file({"lora_unet_x.lora_up.weight": torch.ones(2, 2)}, path)
    with pytest.raises(InputError, match="its names stay as they are"):
        plan_convert(path, ConvertOptions(None, is_single=True))
