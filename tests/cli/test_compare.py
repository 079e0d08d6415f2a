"""`compare`: what it prints and writes, and what it says of bad input."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch

from lib_merge.cli import main
from tests.analysis.reference import moved, pair_loop, write_models
from tests.analysis.test_tables import published
from tests.support.checkpoints import (
    names_in,
    tiny_part,
    tiny_tensors,
    write_checkpoint,
)

UNET_KEY = "model.diffusion_model.input_blocks.4.0.in_layers.0.weight"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    base = tiny_part(1)
    states = {name: moved(base, i, 0.1) for i, name in enumerate("abc")}
    write_models(tmp_path, {"base": base, **states})
    shutil.copyfile(tmp_path / "a.safetensors", tmp_path / "copy.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


MODELS = ("a.safetensors", "b.safetensors", "c.safetensors")


def compare(*words: str) -> int:
    return main(["compare", *words])


def test_summary_names_models_distances_and_copies(folder, capsys):
    assert compare(*MODELS, "copy.safetensors", "--base", "base.safetensors") == 0
    text = capsys.readouterr().out
    assert "models        5, Stable Diffusion 1.x" in text
    assert "base          base" in text
    assert "Equal in every value: a, copy" in text
    states = [tiny_part(1), moved(tiny_part(1), 0, 0.1)]
    keys = [key for key in states[0] if key.startswith("model.diffusion_model")]
    distance = pair_loop(states, keys)[0, 1]
    line = next(line for line in text.splitlines() if line.startswith("  2 a "))
    assert line.split()[2] == f"{distance:.6g}"
    assert line.split()[4:6] == ["copy", "0"]


def test_list_of_models_is_taken(folder, capsys):
    (folder / "l.txt").write_text("\n".join(MODELS))
    assert compare("--list", "l.txt") == 0
    assert "models        3" in capsys.readouterr().out


def test_everything_is_written_where_it_was_asked_for(folder, capsys):
    words = ["--json", "o.json", "--csv", "o.csv", "--map", "m.png", "--svg", "h.svg"]
    assert compare(*MODELS, *words, "--by", "block") == 0
    assert {"o.json", "o.csv", "m.png", "h.svg"} <= set(names_in(folder))
    data = json.loads((folder / "o.json").read_text())
    assert {part["level"] for part in data["parts"]} == {"component", "block"}
    assert "block,IN04,a,b" in (folder / "o.csv").read_text()
    assert (folder / "h.svg").read_text().startswith("<svg")
    assert (folder / "m.png").read_bytes().startswith(b"\x89PNG")


def test_folder_gets_all_charts_of_a_pair(folder, capsys):
    words = ["--svg", "charts", "--pair", "a", "2", "--block", "IN04"]
    assert compare(*MODELS, *words, "--method", "smacof") == 0
    assert names_in(folder / "charts") == [
        "base.svg",
        "blocks.svg",
        "distances.svg",
        "histogram.svg",
        "map.svg",
    ]
    text = capsys.readouterr().out
    assert "\na and b:\n" in text
    assert "metric MDS" in (folder / "charts" / "map.svg").read_text()


def test_saved_comparison_stands_for_the_models(folder, capsys):
    assert compare(*MODELS, "--json", "o.json", "--by", "key") == 0
    before = capsys.readouterr().out
    for name in MODELS:
        (folder / name).unlink()
    assert compare("--matrix", "o.json", "--csv", "again.csv", "--by", "key") == 0
    after = capsys.readouterr().out
    assert [line for line in before.splitlines() if line.startswith("  2 b")] == [
        line for line in after.splitlines() if line.startswith("  2 b")
    ]
    assert UNET_KEY in (folder / "again.csv").read_text()


def test_published_matrix_stands_for_the_models(folder, capsys):
    (folder / "21b.json").write_text(json.dumps(published()))
    assert compare("--matrix", "21b.json", "--map", "m.svg") == 0
    text = capsys.readouterr().out
    assert "published matrix" in text
    assert "9.19" in text
    assert "21b-AstolfoMix" in (folder / "m.svg").read_text()


@pytest.mark.parametrize("how", ["sample", "exact"])
def test_merges_are_predicted_when_asked_for(folder, capsys, how):
    assert compare(*MODELS, "--base", "base.safetensors", "--predict", how) == 0
    text = capsys.readouterr().out
    for method in ("uniform_soup", "geometric_median", "ties_soup", "tsd"):
        assert f"unet      {method}" in text


def test_part_that_is_looked_at_can_be_chosen(folder, capsys):
    assert compare(*MODELS, "--part", "in04") == 0
    assert "\nin04 " in capsys.readouterr().out


def nan_model(folder) -> None:
    state = tiny_part(2)
    state[UNET_KEY][0] = float("nan")
    write_checkpoint(folder / "nan.safetensors", state)


def other_model(folder) -> None:
    write_checkpoint(folder / "xl.safetensors", tiny_tensors("sdxl", 1))


def wide_model(folder) -> None:
    state = {k: torch.cat((v, v)) if v.dim() else v for k, v in tiny_part(1).items()}
    write_checkpoint(folder / "wide.safetensors", state)


BAD = {
    "nothing": ((), 2, "No models are given"),
    "one": (MODELS[:1], 2, "too few to compare"),
    "twice": ((*MODELS, "./b.safetensors"), 2, "the same file is given twice"),
    "missing": ((*MODELS, "x.safetensors"), 2, "x.safetensors does not exist"),
    "missing base": ((*MODELS, "--base", "x.safetensors"), 2, "The base cannot be"),
    "nan": ((*MODELS, "nan.safetensors"), 1, "nan.safetensors holds NaN"),
    "architecture": ((*MODELS, "xl.safetensors"), 2, "xl.safetensors is Stable"),
    "size": ((*MODELS, "wide.safetensors"), 2, "wide.safetensors is of another size"),
    "memory": ((*MODELS, "--memory", "1MB"), 2, "too small for 3 models"),
    "size text": ((*MODELS, "--memory", "lots"), 2, "is no size"),
    "threads": ((*MODELS, "--threads", "0"), 2, "at least one thread"),
    "part": ((*MODELS, "--part", "IN99"), 2, "no part 'IN99'"),
    "pair": ((*MODELS, "--pair", "a", "z"), 2, "'z' is none of the models"),
    "block": ((*MODELS, "--block", "IN04"), 2, "--block draws a histogram"),
    "map name": ((*MODELS, "--map", "m.gif"), 2, "must end in .svg or .png"),
    "svg name": ((*MODELS, "--svg", "m.pdf"), 2, "must end in .svg or .png"),
    "folder": ((*MODELS, "--json", "gone/o.json"), 2, "The folder of gone/o.json"),
    "input": ((*MODELS, "--csv", "a.safetensors"), 2, "is one of the inputs"),
    "both": (("--matrix", "m.json", *MODELS), 2, "--matrix stands for models"),
    "no matrix": (("--matrix", "m.json"), 2, "m.json cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_compare_says_what_is_wrong_and_shows_nothing_when(folder, capsys, name):
    for make in (nan_model, other_model, wide_model):
        make(folder)
    before = names_in(folder)
    words, code, message = BAD[name]
    assert compare(*words) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("Error: ") == 1
    assert "Traceback" not in printed.err
    assert names_in(folder) == before


@pytest.mark.parametrize(("method", "module"), [("tsne", "sklearn"), ("umap", "umap")])
def test_missing_library_is_named_before_anything_is_read(
    folder, capsys, monkeypatch, method, module
):
    for name in [m for m in sys.modules if m.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    assert compare(*MODELS, "--method", method, "--map", "m.svg") == 2
    printed = capsys.readouterr()
    assert "pip install" in printed.err
    assert "Comparing" not in printed.err
