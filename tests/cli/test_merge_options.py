"""`merge` over pools, with a base, further methods and parts of other models."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from lib_merge.checkpoint.metadata import read_recipe
from lib_merge.cli import main
from lib_merge.core.recipe import MergeNode, NonFinite, SelectNode
from tests.support.checkpoints import names_in, tiny_part, write_checkpoint

UNET_KEY = "model.diffusion_model.input_blocks.4.0.in_layers.0.weight"
OUT_KEY = "model.diffusion_model.out.2.weight"
TEXT_KEY = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
VAE_KEY = "first_stage_model.decoder.conv_in.weight"
FILES = tuple(f"{name}.safetensors" for name in "abcd")
OUT = ("--out", "o.safetensors", "--save-dtype", "float32")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for seed, name in enumerate("abcd"):
        write_checkpoint(tmp_path / f"{name}.safetensors", tiny_part(seed + 1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def parts():
    return [
        {
            key: t.double()
            for key, t in tiny_part(n + 1).items()
            if t.is_floating_point()
        }
        for n in range(4)
    ]


def merge(*words):
    return main(["merge", *words])


def result():
    return load_file("o.safetensors")


def close(found, expected):
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_weights_give_each_model_of_a_pool_its_own(folder, parts):
    assert merge("weighted_mean", *FILES[:3], "--weights", "0.5,0.3,0.2", *OUT) == 0
    a, b, c, _ = parts
    close(result()[UNET_KEY], 0.5 * a[UNET_KEY] + 0.3 * b[UNET_KEY] + 0.2 * c[UNET_KEY])
    names = [name for name, _ in read_recipe(folder / "o.safetensors").nodes[3].params]
    assert names == ["weight@1", "weight@2", "weight@3"]


def test_single_weights_and_blocks_of_one_model_are_set_by_name(folder, parts):
    words = ("--set", "weight@2=3", "--blocks", "weight@1:OUT=0")
    assert merge("weighted_mean", *FILES[:2], *words, *OUT) == 0
    a, b, *_ = parts
    close(result()[UNET_KEY], (a[UNET_KEY] + 3 * b[UNET_KEY]) / 4)
    close(result()[OUT_KEY], b[OUT_KEY])


def test_blocks_and_rules_set_the_parameter_that_they_name(folder, parts):
    words = ("--set", "alpha=0,beta=0.5", "--blocks", "beta:OUT=1")
    rule = ("--rule", "beta@BASE:final_layer_norm:0")
    assert merge("sum_twice", *FILES[:3], *words, *rule, *OUT) == 0
    a, _, c, _ = parts
    close(result()[UNET_KEY], (a[UNET_KEY] + c[UNET_KEY]) / 2)
    close(result()[OUT_KEY], c[OUT_KEY])
    close(result()[TEXT_KEY], a[TEXT_KEY])


def test_a_choice_is_set_by_its_name(folder):
    words = ("--set", "alpha=0.5,axis=columns", *OUT)
    assert merge("tensor_sum", *FILES[:2], *words) == 0
    node = read_recipe(folder / "o.safetensors").nodes[2]
    assert dict(node.params)["axis"].value == 1.0


def test_pool_is_read_from_a_list(folder, parts):
    (folder / "more").mkdir()
    (folder / "d.safetensors").rename(folder / "more" / "d.safetensors")
    (folder / "more" / "list.txt").write_text("# a pool\nd.safetensors\n\nb\n")
    words = ("--pool-from", "more/list.txt", "--models", ".")
    assert merge("uniform_soup", FILES[0], *words, *OUT) == 0
    expected = (parts[0][UNET_KEY] + parts[3][UNET_KEY] + parts[1][UNET_KEY]) / 3
    close(result()[UNET_KEY], expected)


def test_base_is_named_or_stands_first(folder, parts):
    words = ("--set", "alpha=2", *OUT)
    assert merge("amplify_difference", FILES[0], FILES[1], *words) == 0
    first = result()
    close(first[UNET_KEY], 2 * parts[1][UNET_KEY] - parts[0][UNET_KEY])
    named = ("amplify_difference", FILES[1], "--base", FILES[0], *words, "--overwrite")
    assert merge(*named) == 0
    assert all(torch.equal(first[key], tensor) for key, tensor in result().items())


def test_parts_have_another_method_and_take_other_models(folder, parts):
    code = merge(
        *("weighted_sum", *FILES[:2], "--set", "alpha=1"),
        *("--part", "BASE:uniform_soup", "--part", "OUT:weighted_sum:alpha=0.25"),
        *("--take", f"VAE={FILES[3]}", *OUT),
    )
    assert code == 0
    a, b, _, d = parts
    close(result()[UNET_KEY], b[UNET_KEY])
    close(result()[TEXT_KEY], (a[TEXT_KEY] + b[TEXT_KEY]) / 2)
    close(result()[OUT_KEY], 0.75 * a[OUT_KEY] + 0.25 * b[OUT_KEY])
    close(result()[VAE_KEY], d[VAE_KEY])
    nodes = read_recipe(folder / "o.safetensors").nodes
    assert isinstance(nodes[-1], SelectNode)


def test_a_method_follows_on_the_first_ones_result(folder, parts):
    code = merge(
        *("uniform_soup", *FILES[:3], "--then", "weighted_sum:alpha=0.5", *OUT),
    )
    assert code == 0
    a, b, c, _ = parts
    mean = (a[UNET_KEY] + b[UNET_KEY] + c[UNET_KEY]) / 3
    close(result()[UNET_KEY], (a[UNET_KEY] + mean) / 2)
    nodes = read_recipe(folder / "o.safetensors").nodes
    assert nodes[4] == MergeNode("weighted_sum", (0, 3), nodes[4].params)


def test_non_finite_values_are_left_out_when_asked(folder, parts, capsys):
    tensors = tiny_part(2)
    tensors[UNET_KEY][0] = float("nan")
    write_checkpoint(folder / "b.safetensors", tensors)
    assert merge("uniform_soup", *FILES[:3], *OUT) != 0
    assert "b.safetensors" in capsys.readouterr().err
    words = ("--non-finite", "leave_out", *OUT)
    assert merge("uniform_soup", *FILES[:3], *words) == 0
    close(result()[UNET_KEY], (parts[0][UNET_KEY] + parts[2][UNET_KEY]) / 2)
    recipe = read_recipe(folder / "o.safetensors")
    assert recipe.on_non_finite is NonFinite.LEAVE_OUT


A_B = ("weighted_sum", *FILES[:2])
SOUP = ("weighted_mean", *FILES[:3])
BAD = {
    "choice": (
        ("tensor_sum", *FILES[:2], "--set", "axis=diagonal"),
        "use one of: rows, columns",
    ),
    "unknown_parameter": ((*A_B, "--set", "beta=1"), "no parameter 'beta'"),
    "too_few_weights": ((*SOUP, "--weights", "1,2"), "2 numbers for 3 models"),
    "weights_of_none": ((*A_B, "--weights", "1,2"), "no number for each model"),
    "weights_twice": (
        (*SOUP, "--weights", "1,2,3", "--set", "weight@1=1"),
        "both give weight@1",
    ),
    "position_beyond_the_pool": (
        (*SOUP, "--set", "weight@4=1", "--dry-run"),
        "weight@4 is of model 4, but the pool has 3",
    ),
    "unnamed_block": ((*SOUP, "--blocks", "IN04=1"), "write e.g. weight@1:IN04=0.5"),
    "base_for_none": ((*A_B, "--base", FILES[2]), "takes no base"),
    "part_method": ((*A_B, "--part", "BASE:soup"), "Unknown merge method 'soup'"),
    "part_block": ((*A_B, "--part", "IN99:uniform_soup", "--dry-run"), "'IN99'"),
    "take": ((*A_B, "--take", "VAE"), "names no model"),
    "take_missing": ((*A_B, "--take", "VAE=x", "--dry-run"), "'x' was not found"),
    "no_list": ((*A_B, "--pool-from", "l.txt"), "l.txt cannot be read"),
    "recipe_and_part": (
        ("--recipe", "r.json", "--part", "BASE:uniform_soup", "--pool-from", "l.txt"),
        "leave out --pool-from, --part",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_merge_says_what_is_wrong_and_writes_nothing_when(folder, capsys, name):
    words, message = BAD[name]
    before = names_in(folder)
    assert merge(*words, *(() if "--dry-run" in words else OUT[:2])) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert names_in(folder) == before


def test_every_fault_of_the_options_is_reported_at_once(folder, capsys):
    words = ("--set", "beta=1", "--blocks", "IN04", "--rule", "x", "--take", "VAE")
    assert merge(*A_B, *words, *OUT[:2]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 4
