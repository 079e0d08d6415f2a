"""The commands about single files: inspect, repair, convert, components, select."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from lib_merge.cli import main
from tests.analysis.health.conftest import damaged_tensors
from tests.support.checkpoints import (
    names_in,
    tiny_part,
    tiny_tensors,
    write_checkpoint,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MERGELAB_CACHE_DIR", str(tmp_path / "cache"))
    models = tmp_path / "models"
    models.mkdir()
    write_checkpoint(models / "base.safetensors", tiny_tensors("sdxl", 1))
    write_checkpoint(models / "bad.safetensors", damaged_tensors())
    monkeypatch.chdir(models)
    return models


def test_folder_is_a_table_in_the_order_asked_for(folder, capsys):
    write_checkpoint(folder / "part.safetensors", tiny_part(1))
    (folder / "page.safetensors").write_bytes(b"<html>")
    assert main(["inspect", ".", "--sort", "size"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines[1:5]]
    assert names[0] in ("bad.safetensors", "base.safetensors")
    assert names[2:] == ["part.safetensors", "page.safetensors"]
    assert "unreadable" in lines[4]
    assert "lora 2" in "\n".join(lines)
    assert lines[5].startswith("4 files, ")


def test_folder_is_a_list_of_objects_as_json(folder, capsys):
    assert main(["inspect", ".", "--json", "--deep"]) == 0
    reports = json.loads(capsys.readouterr().out)
    assert [report["architecture"] for report in reports] == ["sdxl", "sdxl"]
    by_defect = {f["defect"]: f for f in reports[0]["findings"]}
    assert by_defect["non_finite"]["is_problem"] is True
    assert len(reports[0]["parts"]["vae"]["hash"]) == 16


def test_reference_names_what_is_its_own(folder, capsys):
    write_checkpoint(folder.parent / "sdxl_1.0.safetensors", tiny_tensors("sdxl", 1))
    words = ["base.safetensors", "--deep", "--reference", "../sdxl_1.0.safetensors"]
    assert main(["inspect", *words]) == 0
    text = capsys.readouterr().out
    assert text.count("same as sdxl_1.0.safetensors") == 4


def test_repair_says_what_it_would_do_and_writes_nothing(folder, capsys):
    before = names_in(folder)
    assert main(["repair", "bad.safetensors", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "would leave out 1 key (denoiser.sigmas)" in text
    assert "Not mended: 1 key with NaN or infinity" in text
    assert names_in(folder) == before


def test_repair_writes_a_sound_file_and_its_hash(folder, capsys):
    words = ["bad.safetensors", "good.safetensors", "--base", "base.safetensors"]
    assert main(["repair", *words, "--fill-dead"]) == 0
    assert "\nsha256 " in capsys.readouterr().out
    assert main(["inspect", "good.safetensors", "--deep"]) == 0
    assert "Problem" not in capsys.readouterr().out


def test_repair_of_a_sound_file_writes_nothing(folder, capsys):
    assert main(["repair", "base.safetensors", "o.safetensors"]) == 0
    assert "Nothing to mend" in capsys.readouterr().out
    assert "o.safetensors" not in names_in(folder)


def test_convert_writes_scaled_eight_bits(folder, capsys):
    assert main(["convert", "base.safetensors", "o.safetensors", "--to", "fp8"]) == 0
    assert "to float8_e4m3fn, each with its scale" in capsys.readouterr().out
    assert any(key.endswith(".scale_weight") for key in load_file("o.safetensors"))


def test_components_are_stripped_and_taken(folder, capsys):
    words = ["components", "base.safetensors", "o.safetensors"]
    assert main([*words, "--take", "text=bad.safetensors", "--strip", "vae"]) == 2
    assert "lacks 1 key" in capsys.readouterr().err
    write_checkpoint(folder / "c.safetensors", tiny_tensors("sdxl", 8))
    assert main([*words, "--take", "text=c.safetensors", "--strip", "vae"]) == 0
    text = capsys.readouterr().out
    assert "clip_l of c.safetensors" in text
    assert "clip_g of c.safetensors" in text
    assert "vae left out: 248 tensors" in text


BAD = {
    "repair_no_out": (["repair", "bad.safetensors"], "No output is named"),
    "repair_kind": (
        ["repair", "bad.safetensors", "--dry-run", "--keep", "legs"],
        "no such kind",
    ),
    "repair_fill": (
        ["repair", "bad.safetensors", "--dry-run", "--fill-dead"],
        "need --base FILE",
    ),
    "repair_eight": (
        ["repair", "bad.safetensors", "--dry-run", "--to", "fp8"],
        "convert does fp8",
    ),
    "convert_no_out": (["convert", "bad.safetensors", "--to", "fp16"], "No output"),
    "convert_int": (
        ["convert", "bad.safetensors", "--dry-run", "--to", "int8"],
        "nothing to convert to",
    ),
    "components_nothing": (
        ["components", "bad.safetensors", "--dry-run"],
        "Nothing is to be done",
    ),
    "components_word": (
        ["components", "bad.safetensors", "--dry-run", "--take", "vae"],
        "write COMPONENT=FILE",
    ),
    "components_name": (
        ["components", "bad.safetensors", "--dry-run", "--strip", "legs"],
        "unknown component 'legs'",
    ),
    "inspect_empty": (["inspect", "empty"], "holds no checkpoint"),
    "inspect_threads": (["inspect", ".", "--threads", "0"], "at least one"),
    "select_none": (["select", "show", "nobody"], "holds no selection"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_words_are_one_clear_error(folder, capsys, name):
    (folder / "empty").mkdir()
    words, message = BAD[name]
    assert main(words) == 2
    assert message in capsys.readouterr().err
