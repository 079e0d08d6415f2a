"""`recipe`, and `merge --recipe`, on files of other programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_merge.checkpoint.hashes import file_sha256
from lib_merge.cli import main
from lib_merge.core.recipe import Recipe
from tests.formats import samples
from tests.formats.mecha_runs import write_models
from tests.support.checkpoints import names_in, write_checkpoint


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_models(tmp_path, 3)
    for name, text in samples.SAMPLES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


MECHA = 'model "m0"\nmodel "m1"\ncall "weighted_sum" &0 &1 alpha=0.25'


def test_show_tells_format_notes_models_and_merges(folder, capsys) -> None:
    assert main(["recipe", "show", "c.mecha"]) == 0
    text = capsys.readouterr().out
    assert "dialect (c)" in text
    assert "elects by magnitude" in text
    assert "unknown  The models are known by path only" in text
    assert "iso_z  (0, 4)" in text


def test_show_lists_entries_and_shows_one(folder, capsys) -> None:
    assert main(["recipe", "show", "presets.tsv"]) == 0
    assert "GRAD_26" in capsys.readouterr().out
    assert main(["recipe", "show", "presets.tsv", "--entry", "GRAD_26"]) == 0
    assert "BASE=0.5" in capsys.readouterr().out


@pytest.mark.parametrize("name", samples.SAMPLES)
def test_show_as_json_is_json_for_every_format(folder, capsys, name: str) -> None:
    assert main(["recipe", "show", name, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["entries"]
    for entry in data["entries"]:
        if entry["recipe"] is not None:
            Recipe.from_json(entry["recipe"])


def test_verify_finds_models_and_says_what_is_missing(folder, capsys) -> None:
    Path("r.mecha").write_text(MECHA)
    assert main(["recipe", "verify", "r.mecha", "--models", "."]) == 0
    assert "It can be run: sd1" in capsys.readouterr().out
    assert main(["recipe", "verify", "a.mecha", "--models", "."]) == 2
    text = capsys.readouterr().out
    assert "0 of 3 models found" in text
    assert "raw/base.safetensors" in text


def test_verify_finds_models_by_the_start_of_their_hash(folder, capsys) -> None:
    text = samples.SUPERMERGER_HISTORY
    for name, old in (("m0", "0123456789"), ("m1", "abcdefabcd"), ("m2", "fedcba9876")):
        text = text.replace(old, file_sha256(folder / f"{name}.safetensors")[:10])
    Path("mergehistory.csv").write_text(text)
    words = ["recipe", "verify", "mergehistory.csv", "--entry", "2", "--models", "."]
    assert main([*words, "--hash"]) == 0
    assert "m2.safetensors" in capsys.readouterr().out


def test_convert_writes_a_recipe_that_reads_back(folder, capsys) -> None:
    words = ["recipe", "convert", "trials.csv", "--entry", "best"]
    assert main([*words, "--inputs", "m0", "m1", "--out", "r.json"]) == 0
    recipe = Recipe.from_json(json.loads(Path("r.json").read_text()))
    assert recipe.models()[1][1].path == "m1"
    assert main([*words, "--inputs", "m0", "m1", "--out", "r.json"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "--inputs", "m0", "m1", "--to", "autombw"]) == 0
    assert "modelA=m0" in capsys.readouterr().out


def test_convert_names_a_model_that_the_file_does_not(folder, capsys) -> None:
    unknown = "unknown model: secondary model of m011.safetensors"
    words = ["recipe", "convert", "webui.json", "--name", f"{unknown}=x.safetensors"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "unknown model" not in text
    assert '"x.safetensors"' in text


def test_flatten_prints_leaf_weights_and_writes_one_mean(folder, capsys) -> None:
    assert main(["recipe", "flatten", "webui.json", "--out", "flat.json"]) == 0
    text = capsys.readouterr().out
    assert "10 leaves, together 1" in text
    assert "0.09990000  m025.safetensors" in text
    flat = Recipe.from_json(json.loads(Path("flat.json").read_text()))
    assert flat.nodes[-1].method == "weighted_mean"
    assert main(["recipe", "flatten", "c.mecha", "--json"]) == 0
    assert "not linear" in json.loads(capsys.readouterr().out)["kept"][0]


def test_metadata_of_a_checkpoint_is_a_recipe(folder, capsys) -> None:
    step = samples.metadata(samples.supermerger_step())
    metadata = json.loads(step)["__metadata__"]
    write_checkpoint(folder / "x.safetensors", {"a": torch.zeros(2)}, metadata)
    assert main(["recipe", "show", "x.safetensors"]) == 0
    assert "weighted_sum" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("r.mecha", MECHA),
        (
            "r.json",
            samples.metadata(
                {
                    "type": "webui",
                    "interp_method": "Weighted sum",
                    "primary_model_hash": "m0.safetensors",
                    "secondary_model_hash": "m1.safetensors",
                    "multiplier": 0.25,
                },
                {},
            ),
        ),
        (
            "r.yml",
            "merge_method: linear\nmodels:\n- {model: m0, parameters: {weight: 0.75}}\n"
            "- {model: m1, parameters: {weight: 0.25}}\nout_dtype: float32\n",
        ),
        (
            "r.recipe.txt",
            "modelA=m0.safetensors\nmodelB=m1.safetensors\n" + ",".join(["0.25"] * 27),
        ),
    ],
)
def test_merge_runs_recipes_of_other_programs(folder, capsys, name, text) -> None:
    Path(name).write_text(text)
    words = ["merge", "--recipe", name, "--models", ".", "--save-dtype", "float32"]
    assert main([*words, "--out", "o.safetensors"]) == 0
    merged = load_file("o.safetensors")
    m0, m1 = load_file("m0.safetensors"), load_file("m1.safetensors")
    key = "model.diffusion_model.middle_block.0.in_layers.0.weight"
    torch.testing.assert_close(merged[key], m0[key].lerp(m1[key], 0.25))


def test_merge_says_what_it_could_not_know(folder, capsys) -> None:
    Path("r.mecha").write_text(MECHA)
    words = ["merge", "--recipe", "r.mecha", "--models", ".", "--dry-run"]
    assert main(words) == 0
    assert "Note: The models are known by path only" in capsys.readouterr().err


BAD = {
    "order": (["show", "bare.txt"], "--order"),
    "several": (["convert", "presets.tsv"], "say which with --entry"),
    "entry": (["show", "presets.tsv", "--entry", "x"], "There is no entry 'x'"),
    "no_models": (["convert", "trials.csv", "--entry", "best"], "--inputs A B"),
    "models": (["convert", "a.mecha", "--inputs", "a", "b"], "leave --inputs out"),
    "no_recipe": (["show", "m0.safetensors"], "has no recipe in its metadata"),
    "no_file": (["show", "nothing.json"], "cannot be read"),
    "no_date": (["show", "a.mecha", "--as-of", "spring"], "is no date"),
    "no_name": (["convert", "a.mecha", "--name", "x=y"], "fits no model"),
    "cannot_say": (["convert", "c.mecha", "--to", "webui"], "weighted sums"),
}


@pytest.mark.parametrize("name", BAD)
def test_recipe_says_what_is_wrong_and_writes_nothing(folder, capsys, name) -> None:
    Path("bare.txt").write_text(",".join(["0.5"] * 27))
    before = names_in(folder)
    words, message = BAD[name]
    assert main(["recipe", *words]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert names_in(folder) == before
