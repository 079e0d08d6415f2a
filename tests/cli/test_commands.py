"""The command line: its fixed words, its exit codes and its messages."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from lib_merge.checkpoint.metadata import read_recipe
from lib_merge.cli import main
from lib_merge.core.blocks import Component
from lib_merge.core.dtypes import DType
from lib_merge.core.recipe import Rule, Setting
from lib_merge.methods import methods
from tests.support.checkpoints import names_in, tiny_part, write_checkpoint, write_tiny

UNET_KEY = "model.diffusion_model.input_blocks.4.0.in_layers.0.weight"
OUT_KEY = "model.diffusion_model.out.2.weight"
VAE_KEY = "first_stage_model.decoder.conv_in.weight"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for seed, name in enumerate("abc"):
        write_checkpoint(tmp_path / f"{name}.safetensors", tiny_part(seed + 1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def merge(*words):
    return main(["merge", *words])


def test_methods_lists_every_method_as_text(capsys):
    assert main(["methods"]) == 0
    text = capsys.readouterr().out
    assert "weighted_sum  (Weighted sum)" in text
    assert "alpha = 0.5  (-1 to 2, per block)" in text
    assert "models: MODELS..." in text
    assert all(f"\n{method.id}  (" in text for method in methods())
    assert "Not here: MADGRAD, Fisher merging and RegMean" in text
    for kind in ("Few models (", "Any number of models (", "Over whole tensors ("):
        assert kind in text


def test_methods_lists_every_method_as_json(capsys):
    assert main(["methods", "--json"]) == 0
    listed = {entry["id"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert {"weighted_sum", "add_difference", "uniform_soup"} <= set(listed)
    assert listed["add_difference"]["params"][0]["low"] == -2
    assert listed["weighted_mean"]["params"][0]["per_model"] is True
    assert listed["weighted_sum"]["has_base"] is False
    assert listed["weighted_sum"]["over"] == "elements"
    assert listed["tensor_sum"]["params"][2]["choices"] == ["rows", "columns"]


def test_methods_shows_the_whole_docstring_when_one_is_named(capsys):
    assert main(["methods", "weighted_sum"]) == 0
    text = capsys.readouterr().out
    assert "Degenerate inputs: equal tensors come back unchanged" in text
    assert "add_difference" not in text
    assert main(["methods", "wighted_sum"]) == 2
    assert "did you mean 'weighted_sum'" in capsys.readouterr().err


def test_methods_brings_the_table_of_a_file_up_to_date(tmp_path, capsys):
    from lib_merge.cli.methods import BEGIN, END, markdown

    path = tmp_path / "README.md"
    path.write_text(f"above\n{BEGIN}\nstale\n{END}\nbelow\n")
    assert main(["methods", "--markdown", str(path)]) == 0
    assert path.read_text() == f"above\n{markdown()}\nbelow\n"
    capsys.readouterr()
    assert main(["methods", "--markdown"]) == 0
    assert capsys.readouterr().out == markdown() + "\n"
    path.write_text("nothing to replace")
    assert main(["methods", "--markdown", str(path)]) == 2
    assert "no table of methods" in capsys.readouterr().err


def test_methods_starts_without_torch():
    code = (
        "import sys; from lib_merge.cli import main; main(['methods']); "
        "heavy = {'torch', 'numpy', 'gradio', 'optuna'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_merge_writes_the_file_when_given_the_fixed_words(folder, capsys):
    code = merge(
        *("weighted_sum", "a.safetensors", "b.safetensors", "--out", "o.safetensors"),
        *("--set", "alpha=0.3", "--blocks", "IN04=0.7,M00=0.1", "--memory", "2GB"),
        *("--precision", "float64", "--save-dtype", "float32", "--device", "cpu"),
    )
    assert code == 0
    found = load_file(folder / "o.safetensors")
    a, b = tiny_part(1), tiny_part(2)
    for key, alpha in ((UNET_KEY, 0.7), (OUT_KEY, 0.3)):
        exact = a[key].double() + alpha * (b[key].double() - a[key].double())
        torch.testing.assert_close(found[key], exact.float())
    recipe = read_recipe(folder / "o.safetensors")
    assert recipe.compute_dtype is DType.F64
    assert recipe.nodes[2].params[0][1].blocks == (("IN04", 0.7), ("M00", 0.1))
    printed = capsys.readouterr()
    assert "sha256" in printed.out
    assert "100%" in printed.err


def test_merge_takes_every_other_option(folder):
    code = merge(
        *("weighted_sum", "a", "b", "--models", ".", "--out", "o.safetensors"),
        *("--rule", "IN03-IN05:in_layers:0.9", "--rule", r":out\.2:0.2"),
        *("--components", "unet,vae", "--threads", "2", "--save-dtype", "keep"),
        *("--missing-ok", "--keep-ema", "--save-recipe", "r.json"),
    )
    assert code == 0
    node = read_recipe(folder / "o.safetensors").nodes[2]
    assert node.components == (Component.UNET, Component.VAE)
    assert node.params[0][1] == Setting(
        0.5, (), (Rule(0.9, ("IN03-IN05",), "in_layers"), Rule(0.2, (), r"out\.2"))
    )
    a, b = tiny_part(1), tiny_part(2)
    found = load_file(folder / "o.safetensors")
    for key, alpha in ((UNET_KEY, 0.9), (OUT_KEY, 0.2), (VAE_KEY, 0.5)):
        expected = torch.lerp(a[key].float(), b[key].float(), alpha).half()
        assert torch.equal(found[key], expected), key
    saved = json.loads((folder / "r.json").read_text())
    assert saved == read_recipe(folder / "o.safetensors").to_json()


@pytest.mark.parametrize("source", ["json", "safetensors"])
def test_merge_repeats_bit_by_bit_when_given_the_recipe(folder, source):
    words = ("weighted_sum", "a.safetensors", "b.safetensors", "--set", "alpha=0.3")
    assert merge(*words, "--out", "o.safetensors", "--save-recipe", "o.json") == 0
    (folder / "new").mkdir()
    assert merge("--recipe", f"o.{source}", "--out", "new/o.safetensors") == 0
    first = (folder / "o.safetensors").read_bytes()
    assert (folder / "new" / "o.safetensors").read_bytes() == first


def test_merge_finds_renamed_models_by_hash_when_their_folder_is_named(folder):
    words = ("weighted_sum", "a.safetensors", "b.safetensors")
    assert merge(*words, "--out", "o.safetensors") == 0
    (folder / "old").mkdir()
    (folder / "a.safetensors").rename(folder / "old" / "renamed.safetensors")
    code = merge(
        *("--recipe", "o.safetensors", "--out", "p.safetensors", "--models", "old"),
    )
    assert code == 0
    one, two = (load_file(folder / f"{n}.safetensors") for n in "op")
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_dry_run_shows_the_plan_and_writes_nothing(folder, capsys):
    before = names_in(folder)
    assert merge("weighted_sum", "a.safetensors", "b.safetensors", "--dry-run") == 0
    text = capsys.readouterr().out
    assert "architecture  sd1" in text
    assert "14 of them merged" in text
    assert "passes        1 over most of the merged tensors" in text
    assert re.search(r"memory +\S+ [kM]B of buffers, \d+ thread", text)
    assert names_in(folder) == before


def test_inspect_shows_everything_as_json(folder, capsys):
    path = write_tiny(folder / "ema.safetensors", "sd1", 5, with_ema=True)
    assert main(["inspect", str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["architecture"] == "sd1"
    assert report["n_keys"] == 1831
    assert report["dtypes"]["int64"] == 1
    assert report["n_ema_params"] > 0
    assert sum(report["blocks"].values()) == sum(report["components"].values())
    assert report["n_params"] == report["n_ema_params"] + sum(report["blocks"].values())
    assert report["problems"] == []
    assert report["recipe"] is None


def test_inspect_shows_the_recipe_as_text_when_merged(folder, capsys):
    merge("weighted_sum", "a.safetensors", "b.safetensors", "--out", "o.safetensors")
    capsys.readouterr()
    assert main(["inspect", "o.safetensors"]) == 0
    text = capsys.readouterr().out
    assert "Stable Diffusion 1.x" in text
    assert '"method": "weighted_sum"' in text
    assert "metadata mergelab_version" in text
    assert "Problem: Nothing is there of: " in text


def test_inspect_reports_a_problem_when_the_architecture_is_unknown(folder, capsys):
    write_checkpoint(folder / "lora.safetensors", {"lora.up": torch.zeros(2)})
    assert main(["inspect", "lora.safetensors"]) == 0
    assert "Problem: lora.safetensors is of no known" in capsys.readouterr().out


A_B = ("weighted_sum", "a.safetensors", "b.safetensors")
BAD = {
    "nothing": ((), "Nothing to merge"),
    "no_out": (A_B, "No output is named"),
    "unknown_method": (("wighted_sum", "a", "b"), "did you mean 'weighted_sum'"),
    "no_models": (("weighted_sum", "--out", "o.safetensors"), "has no inputs"),
    "missing": ((*A_B[:2], "x", "--out", "o.safetensors"), "'x' was not found"),
    "same": ((*A_B[:2], A_B[1], "--out", "o.safetensors"), "A equal to B"),
    "bad_set": ((*A_B, "--set", "alpha"), "is no NAME=VALUE pair"),
    "bad_number": ((*A_B, "--set", "alpha=lots"), "'lots' is no number"),
    "nan": ((*A_B, "--set", "alpha=nan"), "is no number"),
    "twice": ((*A_B, "--blocks", "IN04=1,IN04=0"), "IN04 is given twice"),
    "bad_block": (
        (*A_B, "--blocks", "IN99=1", "--out", "o.safetensors"),
        "no block 'IN99'",
    ),
    "bad_rule": ((*A_B, "--rule", "IN04=0.3"), "write BLOCKS:PATTERN:VALUE"),
    "bad_memory": ((*A_B, "--memory", "lots", "--out", "o.safetensors"), "is no size"),
    "tiny_memory": ((*A_B, "--memory", "1kB", "--out", "o.safetensors"), "too small"),
    "bad_threads": ((*A_B, "--threads", "0", "--out", "o.safetensors"), "at least one"),
    "bad_precision": ((*A_B, "--precision", "float7"), "Unknown precision 'float7'"),
    "narrow_precision": ((*A_B, "--precision", "float16"), "too narrow to merge in"),
    "bad_save_dtype": ((*A_B, "--save-dtype", "int64"), "is no float type"),
    "bad_components": ((*A_B, "--components", "unet,soul"), "component 'soul'"),
    "bad_device": (
        (*A_B, "--device", "warp:9", "--out", "o.safetensors"),
        "Device 'warp:9' cannot be used",
    ),
    "blocks_without_parameter": (
        ("uniform_soup", *A_B[1:], "--blocks", "IN04=1"),
        "uniform_soup has none",
    ),
    "recipe_and_words": (
        (*A_B, "--recipe", "r.json", "--out", "o.safetensors"),
        "leave out words",
    ),
    "no_recipe_file": (("--recipe", "r.json", "--out", "o.safetensors"), "r.json"),
    "no_recipe_inside": (
        ("--recipe", "a.safetensors", "--out", "o.safetensors"),
        "has no recipe in its metadata",
    ),
    "bad_suffix": ((*A_B, "--out", "o.ckpt"), "must end in .safetensors"),
    "output_is_input": ((*A_B, "--out", "b.safetensors", "--overwrite"), "itself"),
}


@pytest.mark.parametrize("name", BAD)
def test_merge_says_what_is_wrong_and_writes_nothing_when(folder, capsys, name):
    words, message = BAD[name]
    before = names_in(folder)
    assert merge(*words) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert names_in(folder) == before


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": "mergelab-recipe", "version": 99}'], ids=repr
)
def test_merge_refuses_when_the_recipe_file_is_damaged(folder, capsys, content):
    (folder / "r.json").write_text(content)
    assert merge("--recipe", "r.json", "--out", "o.safetensors") == 2
    assert "Error: " in capsys.readouterr().err


def test_debug_shows_the_traceback(folder, capsys):
    assert main(["--debug", "inspect", "nowhere.safetensors"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_exit_code_is_one_when_the_fault_is_not_the_inputs(folder, capsys):
    tensors = tiny_part(2)
    tensors[UNET_KEY].fill_(60_000)
    write_checkpoint(folder / "b.safetensors", tensors)
    assert merge(*A_B, "--set", "alpha=2", "--out", "o.safetensors") == 1
    assert "does not fit float16" in capsys.readouterr().err
    assert "o.safetensors" not in names_in(folder)
