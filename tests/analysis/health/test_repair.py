"""Repairs: every defect mended into a new file, values of all else kept bit by bit."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lib_merge.analysis.health.deep import read_deep
from lib_merge.analysis.health.defects import Defect
from lib_merge.analysis.health.job import CHANGES
from lib_merge.analysis.health.look import inspect_files
from lib_merge.analysis.health.repair import RepairOptions, plan_repair
from lib_merge.analysis.health.rewrite import write_file
from lib_merge.checkpoint.hashes import file_sha256
from lib_merge.core.dtypes import DType
from lib_merge.engine.progress import JobProgress
from lib_merge.errors import (
    Cancelled,
    CheckpointError,
    InputError,
    NonFiniteError,
    OutputError,
)
from tests.analysis.health.conftest import (
    CLIP_G,
    DEAD_KEY,
    FLAT_KEY,
    IDS,
    LOST_KEY,
    NAN_KEY,
    damaged_tensors,
)
from tests.support.checkpoints import names_in, tiny_tensors, write_checkpoint


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and bool(torch.equal(a, b))


@pytest.fixture
def mended(damaged, base, tmp_path):
    options = RepairOptions(base=base, fill_dead=True, drop={Defect.SCHEDULE})
    plan = plan_repair(damaged, options)
    return write_file(plan.job, tmp_path / "good.safetensors"), plan


def test_nothing_is_wrong_any_more_when_everything_is_mended(mended):
    written, plan = mended
    assert plan.left == ()
    (found,) = read_deep(inspect_files([written.path]))
    assert found.all_problems() == ()
    assert found.notes() == ()
    assert written.sha256 == file_sha256(written.path, cache=False)


def test_every_tensor_has_the_values_that_it_should(mended, base):
    tensors, before, sound = (
        load_file(mended[0].path),
        damaged_tensors(),
        load_file(base),
    )
    for key in (NAN_KEY, LOST_KEY, DEAD_KEY):
        assert same(tensors.pop(key), sound[key])
    projection = tensors.pop(f"{CLIP_G}text_projection")
    assert same(projection, before[f"{CLIP_G}text_projection.weight"].t())
    assert same(tensors.pop(FLAT_KEY), before[FLAT_KEY][:, :, None, None])
    ids = tensors.pop(IDS)
    assert same(ids, torch.arange(ids.numel())[None])
    assert all(same(tensor, before[key]) for key, tensor in tensors.items())
    assert len(tensors) == 2515 - 6


def test_metadata_is_kept_and_tells_of_the_repair(mended):
    with safe_open(mended[0].path, "pt") as file:
        metadata = file.metadata()
    assert metadata["note"] == "mine"
    assert metadata["sd_merge_recipe"] == '{"type": "webui"}'
    (change,) = json.loads(metadata[CHANGES])
    assert change["change"] == "repair"
    assert change["of"] == "bad.safetensors"
    assert list(mended[1].sentences()) == change["steps"]


def test_repair_says_what_stays_wrong_when_there_is_no_base(damaged):
    plan = plan_repair(damaged, RepairOptions())
    left = "\n".join(plan.left)
    assert f"1 key missing ({LOST_KEY})" in left
    assert "with NaN or infinity" in left
    assert "all zero" in left
    assert "text_projection" not in left
    kept = {tensor.key for tensor in plan.job.tensors}
    assert "betas" in kept
    assert "denoiser.sigmas" not in kept


def test_defects_are_left_when_they_are_to_be_kept(damaged):
    keep = frozenset({Defect.LORA, Defect.POSITION_IDS, Defect.EMA})
    plan = plan_repair(damaged, RepairOptions(keep=keep))
    infos = {tensor.key: tensor.info for tensor in plan.job.tensors}
    assert infos[IDS].dtype is DType.F16
    assert "model_ema.decay" in infos
    assert any(key.startswith("lora_te1") for key in infos)


def test_sound_file_needs_no_step(base):
    plan = plan_repair(base, RepairOptions())
    assert plan.steps == ()
    assert plan.left == ()


def test_absent_vae_is_filled_only_when_asked_for(tmp_path, base):
    pruned = {
        k: v
        for k, v in tiny_tensors("sdxl", 4).items()
        if not k.startswith("first_stage_model.")
    }
    path = write_checkpoint(tmp_path / "pruned.safetensors", pruned)
    without = plan_repair(path, RepairOptions(base=base))
    assert without.steps == ()
    assert "absent with the whole component" in "\n".join(without.left)
    options = RepairOptions(base=base, fill_components=True)
    plan = plan_repair(path, options)
    written = write_file(plan.job, tmp_path / "whole.safetensors")
    tensors, sound = load_file(written.path), load_file(base)
    vae = [key for key in sound if key.startswith("first_stage_model.")]
    assert len(vae) == 248
    assert all(same(tensors[key], sound[key]) for key in vae)


def test_weights_are_cast_and_constants_are_not(tmp_path, base):
    plan = plan_repair(base, RepairOptions(dtype=DType.F32, is_deep=False))
    tensors = load_file(write_file(plan.job, tmp_path / "o.safetensors").path)
    sound = load_file(base)
    for key, tensor in tensors.items():
        if sound[key].dtype == torch.float16:
            assert same(tensor, sound[key].float())
        else:
            assert same(tensor, sound[key])


def test_pickled_file_is_mended_into_a_safetensors_file(tmp_path, base):
    tensors = damaged_tensors()
    torch.save({"state_dict": tensors}, tmp_path / "old.ckpt")
    plan = plan_repair(tmp_path / "old.ckpt", RepairOptions(base=base))
    written = write_file(plan.job, tmp_path / "new.safetensors")
    assert same(load_file(written.path)[LOST_KEY], load_file(base)[LOST_KEY])


def test_base_of_another_architecture_is_refused(tmp_path, damaged):
    other = write_checkpoint(tmp_path / "sd1.safetensors", tiny_tensors("sd1", 1))
    with pytest.raises(InputError, match="give a base of the same architecture"):
        plan_repair(damaged, RepairOptions(base=other))


def test_base_is_refused_when_it_is_damaged_itself(tmp_path, damaged, base):
    tensors = load_file(base)
    tensors[NAN_KEY] = tensors[NAN_KEY] * float("nan")
    write_checkpoint(base, tensors)
    plan = plan_repair(damaged, RepairOptions(base=base))
    before = names_in(tmp_path)
    with pytest.raises(NonFiniteError, match="give another base"):
        write_file(plan.job, tmp_path / "good.safetensors")
    assert names_in(tmp_path) == before


def test_lora_file_is_refused(tmp_path):
    path = write_checkpoint(
        tmp_path / "l.safetensors", {"lora_unet_x.lora_up.weight": torch.ones(2, 2)}
    )
    with pytest.raises(CheckpointError, match="only whole checkpoints"):
        plan_repair(path, RepairOptions())


def test_output_is_refused_when_it_is_an_input(damaged, base):
    plan = plan_repair(damaged, RepairOptions(base=base))
    with pytest.raises(OutputError, match="is the input"):
        write_file(plan.job, base, overwrite=True)


def test_nothing_is_left_behind_when_writing_is_stopped(tmp_path, damaged, base):
    plan = plan_repair(damaged, RepairOptions(base=base))
    before = names_in(tmp_path)
    progress = JobProgress()
    progress.cancel()
    with pytest.raises(Cancelled):
        write_file(plan.job, tmp_path / "good.safetensors", progress=progress)
    assert names_in(tmp_path) == before
