"""Merges to files: whole, with their recipe, repeatable from themselves, or absent."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import lib_merge
from lib_merge.checkpoint import _positional
from lib_merge.checkpoint.hashes import file_sha256, known_sha256
from lib_merge.checkpoint.metadata import read_recipe
from lib_merge.core.dtypes import DType
from lib_merge.core.recipe import ModelNode, NonFinite, Setting, simple_recipe
from lib_merge.engine import save
from lib_merge.engine.progress import JobProgress
from lib_merge.engine.run import RunOptions
from lib_merge.engine.save import merge_to_file
from lib_merge.errors import (
    Cancelled,
    CheckpointError,
    DiskFullError,
    NonFiniteError,
    OutputError,
    RecipeError,
    ResourceError,
)
from tests.support.checkpoints import (
    names_in,
    tiny_part,
    tiny_tensors,
    write_checkpoint,
    write_tiny,
)

UNET_KEY = "model.diffusion_model.input_blocks.4.0.in_layers.0.weight"


@pytest.fixture
def folder(tmp_path):
    write_checkpoint(tmp_path / "a.safetensors", tiny_part(1))
    write_checkpoint(tmp_path / "b.safetensors", tiny_part(2))
    return tmp_path


def recipe_of(folder, **options):
    files = (str(folder / "a.safetensors"), str(folder / "b.safetensors"))
    return simple_recipe("weighted_sum", files, {"alpha": Setting(0.3)}, **options)


INPUTS = ["a.safetensors", "b.safetensors"]


@pytest.mark.parametrize("n_threads", [None, 1, 3], ids=["auto", "one", "three"])
def test_saved_file_holds_the_merge_when_opened_by_safetensors(folder, n_threads):
    out = folder / "out.safetensors"
    saved = merge_to_file(
        recipe_of(folder), out, options=RunOptions(n_threads=n_threads)
    )
    found = load_file(out)
    a, b = tiny_part(1), tiny_part(2)
    assert set(found) == set(a)
    expected = torch.lerp(a[UNET_KEY].float(), b[UNET_KEY].float(), 0.3).half()
    assert torch.equal(found[UNET_KEY], expected)
    assert saved.path == out
    assert saved.sha256 == hashlib.sha256(out.read_bytes()).hexdigest()
    assert known_sha256(out) == saved.sha256
    assert names_in(folder) == [*INPUTS, "out.safetensors"]


def test_metadata_is_strings_and_names_every_input_by_hash(folder):
    out = folder / "out.safetensors"
    merge_to_file(recipe_of(folder), out)
    with safe_open(str(out), framework="pt") as file:
        metadata = file.metadata()
    hashes = [file_sha256(folder / name, cache=False) for name in INPUTS]
    assert all(isinstance(value, str) for value in metadata.values())
    assert metadata["format"] == "pt"
    assert metadata["mergelab_version"] == lib_merge.__version__
    nodes = json.loads(metadata["mergelab_recipe"])["nodes"]
    assert [node.get("model") for node in nodes[:2]] == INPUTS
    assert [node.get("sha256") for node in nodes[:2]] == hashes
    assert set(json.loads(metadata["sd_merge_models"])) == set(hashes)
    assert json.loads(metadata["sd_merge_recipe"])["type"] == "mergelab"
    assert str(folder) not in json.dumps(metadata)


@pytest.mark.parametrize("is_cold", [True, False], ids=["cold", "warm"])
def test_saved_file_alone_repeats_the_merge_when_parents_are_found(folder, is_cold):
    if not is_cold:
        for name in INPUTS:
            file_sha256(folder / name)
    one = merge_to_file(recipe_of(folder), folder / "one.safetensors")
    recipe = read_recipe(folder / "one.safetensors")
    assert recipe == one.recipe
    two = merge_to_file(recipe, folder / "two.safetensors", folders=[folder])
    assert two.sha256 == one.sha256


def test_merge_finds_renamed_parents_by_hash_when_it_is_known(folder):
    one = merge_to_file(recipe_of(folder), folder / "one.safetensors")
    (folder / "sub").mkdir()
    moved = folder / "sub" / "renamed.safetensors"
    (folder / "a.safetensors").rename(moved)
    file_sha256(moved)
    two = merge_to_file(one.recipe, folder / "two.safetensors", folders=[folder])
    assert torch.equal(load_file(one.path)[UNET_KEY], load_file(two.path)[UNET_KEY])


def test_merge_refuses_before_work_when_a_parent_has_another_content(folder):
    one = merge_to_file(recipe_of(folder), folder / "one.safetensors")
    write_checkpoint(folder / "b.safetensors", tiny_part(99))
    with pytest.raises(RecipeError, match=r"b\.safetensors has SHA-256"):
        merge_to_file(one.recipe, folder / "two.safetensors", folders=[folder])
    assert names_in(folder) == [*INPUTS, "one.safetensors"]


def test_merge_keeps_the_history_of_its_parents(folder):
    parent = tiny_part(7)
    history = {"sd_merge_models": json.dumps({"f" * 64: {"name": "grandparent"}})}
    write_checkpoint(folder / "a.safetensors", parent, history)
    out = folder / "out.safetensors"
    merge_to_file(recipe_of(folder), out)
    with safe_open(str(out), framework="pt") as file:
        models = json.loads(file.metadata()["sd_merge_models"])
    assert models["f" * 64]["name"] == "grandparent"
    assert len(models) == 3


@pytest.mark.parametrize("broken", ["{", "[1]", '"x"'], ids=repr)
def test_merge_ignores_history_when_a_parents_is_damaged(folder, broken):
    write_checkpoint(
        folder / "a.safetensors", tiny_part(7), {"sd_merge_models": broken}
    )
    merge_to_file(recipe_of(folder), folder / "out.safetensors")
    assert read_recipe(folder / "out.safetensors") is not None


def test_merge_overwrites_only_when_allowed(folder):
    out = folder / "out.safetensors"
    out.write_text("precious")
    with pytest.raises(OutputError, match=r"out\.safetensors exists"):
        merge_to_file(recipe_of(folder), out)
    assert out.read_text() == "precious"
    merge_to_file(recipe_of(folder), out, overwrite=True)
    assert read_recipe(out) is not None


@pytest.mark.parametrize("kind", ["same", "symlink", "hardlink", "dots"])
def test_merge_refuses_when_the_output_is_an_input(folder, kind):
    a = folder / "a.safetensors"
    before = a.read_bytes()
    out = {"same": a, "dots": folder / "x" / ".." / "a.safetensors"}.get(
        kind, folder / "link.safetensors"
    )
    if kind == "symlink":
        out.symlink_to(a)
    elif kind == "hardlink":
        os.link(a, out)
    elif kind == "dots":
        (folder / "x").mkdir()
    names = names_in(folder)
    with pytest.raises(OutputError, match=r"is the input .*a\.safetensors itself"):
        merge_to_file(recipe_of(folder), out, overwrite=True)
    assert a.read_bytes() == before
    assert names_in(folder) == names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such/out.safetensors", "does not exist"),
        ("out.ckpt", r"must end in \.safetensors"),
        ("folder.safetensors", "is a folder"),
    ],
    ids=["no_folder", "suffix", "is_folder"],
)
def test_merge_refuses_when_the_output_cannot_be(folder, name, message):
    (folder / "folder.safetensors").mkdir()
    with pytest.raises(OutputError, match=message):
        merge_to_file(recipe_of(folder), folder / name)


def test_merge_refuses_when_the_folder_may_not_be_written(folder, monkeypatch):
    monkeypatch.setattr(save.os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match="may not be written to"):
        merge_to_file(recipe_of(folder), folder / "out.safetensors")


def test_merge_reports_recipe_and_output_together_when_both_are_wrong(folder):
    recipe = simple_recipe("weighted_sun", ("a", "b"))
    with pytest.raises(RecipeError, match="weighted_sun") as caught:
        merge_to_file(recipe, folder / "out.ckpt", folders=[folder])
    assert "must end in .safetensors" in caught.value.problems[-1]


def test_merge_refuses_before_the_first_byte_when_the_disk_is_full(folder, monkeypatch):
    usage = shutil.disk_usage(folder)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(save, "PendingFile", None)
    with pytest.raises(DiskFullError, match=r"needs 0\.\d+ GB, the disk of"):
        merge_to_file(recipe_of(folder), folder / "out.safetensors")
    assert names_in(folder) == INPUTS


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.ENOSPC, DiskFullError), (errno.EIO, ResourceError)],
    ids=["full", "broken"],
)
@pytest.mark.parametrize("operation", ["write_at", "sync"])
def test_merge_leaves_nothing_when_the_disk_fails_midway(
    folder, monkeypatch, operation, code, kind
):
    calls = []

    def fail(self, *args):
        calls.append(args)
        if operation == "sync" or len(calls) > 5:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(_positional.PositionalFile, operation, fail)
    with pytest.raises(kind, match=r"out\.safetensors"):
        merge_to_file(recipe_of(folder), folder / "out.safetensors")
    assert names_in(folder) == INPUTS


@pytest.mark.parametrize("n_threads", [1, 2], ids=["one", "two"])
def test_merge_leaves_nothing_when_cancelled_midway(folder, n_threads):
    progress = JobProgress(lambda s: s.done and progress.cancel(), min_interval_s=0)
    with pytest.raises(Cancelled, match="stopped as asked"):
        merge_to_file(
            recipe_of(folder),
            folder / "out.safetensors",
            options=RunOptions(n_threads=n_threads),
            progress=progress,
        )
    assert names_in(folder) == INPUTS


def test_merge_leaves_the_old_file_when_a_result_is_not_finite(folder):
    out = folder / "out.safetensors"
    out.write_text("precious")
    tensors = tiny_part(2)
    tensors[UNET_KEY].fill_(60_000)
    write_checkpoint(folder / "b.safetensors", tensors)
    recipe = recipe_of(folder)
    node = replace(recipe.nodes[2], params=(("alpha", Setting(2.0)),))
    with pytest.raises(NonFiniteError, match=UNET_KEY):
        merge_to_file(
            replace(recipe, nodes=(*recipe.nodes[:2], node)), out, overwrite=True
        )
    assert out.read_text() == "precious"
    assert names_in(folder) == [*INPUTS, "out.safetensors"]


def test_merge_warns_when_a_model_is_not_finite(folder):
    tensors = tiny_part(2)
    tensors[UNET_KEY].fill_(float("nan"))
    write_checkpoint(folder / "b.safetensors", tensors)
    recipe = recipe_of(folder, on_non_finite=NonFinite.KEEP)
    saved = merge_to_file(recipe, folder / "out.safetensors")
    assert "1 keys hold NaN" in saved.warnings[-1]


def test_merge_fails_when_the_file_does_not_read_back(folder, monkeypatch):
    monkeypatch.setattr(_positional.PositionalFile, "write_at", lambda *args: None)
    with pytest.raises((CheckpointError, ResourceError), match=r"\.tmp"):
        merge_to_file(recipe_of(folder), folder / "out.safetensors")
    assert names_in(folder) == INPUTS


@pytest.mark.parametrize("save_dtype", [DType.F8_E4M3, DType.F64, None], ids=str)
def test_saved_file_is_readable_when_types_are_mixed(folder, save_dtype):
    out = folder / "out.safetensors"
    merge_to_file(recipe_of(folder, save_dtype=save_dtype), out)
    found = load_file(out)
    wanted = "float16" if save_dtype is None else save_dtype.torch_name
    assert str(found[UNET_KEY].dtype) == f"torch.{wanted}"
    assert found["betas"].dtype is torch.float32


def test_one_model_alone_is_pruned_and_converted(folder):
    write_tiny(folder / "ema.safetensors", "sd1", 5, with_ema=True, dtype=torch.float32)
    recipe = simple_recipe("weighted_sum", ("x", "y"))
    recipe = replace(recipe, nodes=(ModelNode(str(folder / "ema.safetensors")),))
    merge_to_file(recipe, folder / "out.safetensors")
    found = load_file(folder / "out.safetensors")
    expected = tiny_tensors("sd1", 5, dtype=torch.float32)
    assert set(found) == set(expected)
    assert torch.equal(found[UNET_KEY], expected[UNET_KEY].half())
