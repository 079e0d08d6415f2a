"""`lora`, and LoRAs in `merge`, from the command line."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_merge.checkpoint.metadata import read_recipe
from lib_merge.cli import main
from lib_merge.core.recipe import LoraNode, Setting
from lib_merge.formats.lora_text import read_lora_text
from lib_merge.formats.request import Lora
from tests.lora import makers
from tests.lora.test_bake import few_tensors, lora_of

OUT = ("--out", "o.safetensors", "--save-dtype", "float32")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model m, a LoRA l of it, and its changes."""
    save_file(few_tensors(), str(tmp_path / "m.safetensors"))
    save_file(few_tensors(1), str(tmp_path / "n.safetensors"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def changes(folder):
    return lora_of(folder, folder / "m.safetensors")[1]


def test_lora_is_baked_into_one_model(changes):
    assert main(["merge", "m.safetensors", "--lora", "l.safetensors:0.5", *OUT]) == 0
    before, after = load_file("m.safetensors"), load_file("o.safetensors")
    for key, change in changes.items():
        wanted = before[key].double() + 0.5 * change
        torch.testing.assert_close(after[key].double(), wanted, rtol=1e-5, atol=1e-6)


def test_lora_is_baked_into_a_merge_and_stands_for_a_model(changes):
    command = ["merge", "task_arithmetic", "m.safetensors", "n.safetensors"]
    command += ["lora:l.safetensors:0.5:BASE=0", "--set", "lam=1"]
    command += ["--lora", "l.safetensors:-1", *OUT]
    assert main(command) == 0
    recipe = read_recipe("o.safetensors")
    assert recipe is not None
    loras = [n for n in recipe.nodes if isinstance(n, LoraNode)]
    assert [(n.base, n.strength) for n in loras] == [
        (0, Setting(0.5, (("BASE", 0.0),))),
        (3, Setting(-1.0)),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("m.safetensors", "--lora", "no.safetensors"), "'no.safetensors' was not fo"),
        (("m.safetensors", "--lora", "l.safetensors:x"), "'x' is no number"),
        (("m.safetensors", "--lora", "l.safetensors:1:Q"), "'Q' is no pair"),
        (("m.safetensors", "--lora", "l.safetensors:99"), "outside -10 to 10"),
        (("m.safetensors", "--lora", "n.safetensors"), "is no LoRA"),
        (
            ("m.safetensors", "--lora", "l.safetensors", "--set", "alpha=1"),
            "--set is of a method",
        ),
        (
            ("task_arithmetic", "lora:l.safetensors", "m.safetensors"),
            "has no model to stand on",
        ),
    ],
    ids=["missing", "number", "pair", "limit", "checkpoint", "set", "first"],
)
def test_merge_says_what_is_wrong(words, message, changes, capsys):
    assert main(["merge", *words, *OUT]) == 2
    assert message in capsys.readouterr().err


def test_dry_run_names_the_lora(changes, capsys):
    words = ["m.safetensors", "--lora", "l.safetensors", "--dry-run"]
    assert main(["merge", *words]) == 0
    shown = capsys.readouterr().out
    assert "LoRA  1" in shown
    assert "3 of them merged" in shown


def test_loras_are_shown_joined_resized_and_extracted(folder, changes, capsys):
    assert main(["lora", "show", "l.safetensors", "l.safetensors"]) == 0
    assert "Stable Diffusion 1.x" in capsys.readouterr().out
    join = ["lora", "merge", "l.safetensors:0.5", "l.safetensors", "--mean"]
    assert main([*join, "--out", "j.safetensors"]) == 0
    resize = ["lora", "resize", "j.safetensors", "--energy", "1"]
    assert main([*resize, "--out", "r.safetensors", "--dtype", "float32"]) == 0
    tensors = load_file("r.safetensors")
    for name in (makers.TO_Q, makers.CONV, makers.TEXT):
        parts = makers.parts_of(tensors, name)
        change = changes[makers.KEY_OF[name]]
        found = makers.change_of("lora", parts, change)
        torch.testing.assert_close(found, 0.75 * change, rtol=1e-4, atol=1e-5)
    extract = ["lora", "extract", "n.safetensors", "m.safetensors", "--rank", "2"]
    assert main([*extract, "--out", "e.safetensors"]) == 0
    assert "energy kept" in capsys.readouterr().out


def test_soup_is_read_from_a_list(folder, changes):
    (folder / "list.txt").write_text("# two\nl.safetensors\nl.safetensors:0.5\n")
    words = ["lora", "merge", "--pool-from", "list.txt", "--how", "svd", "--rank", "4"]
    assert main([*words, "--out", "j.safetensors"]) == 0
    assert (folder / "j.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("merge", "l.safetensors", "--rank", "4"), "are for --how svd"),
        (("merge", "l.safetensors", "--how", "svd"), "Say how much is kept"),
        (("resize", "l.safetensors", "--rank", "0"), "at least 1"),
        (("resize", "l.safetensors", "--energy", "1.5"), "a share above 0"),
        (("resize", "l.safetensors", "--energy", "0.5", "--quick"), "needs a --rank"),
        (("resize", "l.safetensors", "--rank", "2", "--dtype", "fp8"), "too narrow"),
        (("extract", "m.safetensors", "m.safetensors", "--rank", "2"), "are equal"),
        (("merge",), "No LoRA is named"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_lora_says_what_is_wrong(words, message, changes, capsys):
    assert main(["lora", *words, "--out", "o.safetensors"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a b.safetensors", Lora("a b.safetensors")),
        ("a:0.5", Lora("a", Setting(0.5))),
        (" a : -1 ", Lora("a", Setting(-1.0))),
        ("a::in04=1", Lora("a", Setting(1.0, (("IN04", 1.0),)))),
        (r"C:\x\a.safetensors:0.5", Lora(r"C:\x\a.safetensors", Setting(0.5))),
        (
            "a:0.5:BASE=0.25, IN01-IN03 = 2",
            Lora("a", Setting(0.5, (("BASE", 0.25), ("IN01-IN03", 2.0)))),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_text_of_a_lora_is_read(text, wanted):
    problems: list[str] = []
    assert read_lora_text(text, "LoRA", problems) == wanted
    assert problems == []


@pytest.mark.parametrize("text", ["", ":", ":0.5", "a:b", "a:1:c", "a:1:c=d", "a:nan"])
def test_text_that_is_no_lora_is_reported(text):
    problems: list[str] = []
    read_lora_text(text, "LoRA", problems)
    assert problems
