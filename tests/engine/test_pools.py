"""Methods of every kind through the engine: any cut, budget and nesting, same bits."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from lib_merge.core.blocks import BlockId
from lib_merge.core.dtypes import DType
from lib_merge.core.recipe import (
    MergeNode,
    ModelNode,
    NonFinite,
    Pick,
    Recipe,
    SelectNode,
    Setting,
    simple_recipe,
)
from lib_merge.engine._work import work_bytes
from lib_merge.engine.planning import plan_recipe
from lib_merge.engine.progress import JobProgress
from lib_merge.engine.run import RunOptions, run_plan
from lib_merge.errors import InputError, NonFiniteError, RecipeError
from lib_merge.methods import methods
from tests.engine.test_run import UNET_KEY, MemorySink, run, same_bits
from tests.support.checkpoints import tiny_part, tiny_tensors, write_checkpoint
from tests.support.method_doubles import DOUBLES, neighbour_sum

CLIP_KEY = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
LARGE_KEY = UNET_KEY.replace("in_layers.0", "in_layers.2")
"""More values than one measuring run has."""

NAMES = "abcde"


def part(seed):
    """A dozen tensors of every kind, one of them large."""
    tensors = tiny_part(seed, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    tensors[LARGE_KEY] = torch.randn(64, 320, 3, 3, generator=generator)
    return tensors


@pytest.fixture(autouse=True)
def doubles(monkeypatch):
    for method in DOUBLES:
        monkeypatch.setitem(methods()._items, method.id, method)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    for seed, name in enumerate(NAMES):
        write_checkpoint(folder / f"{name}.safetensors", part(seed + 1))
    return folder


def files(folder, names=NAMES):
    return tuple(str(folder / f"{name}.safetensors") for name in names)


def tensors_of(names=NAMES):
    return [part(NAMES.index(name) + 1) for name in names]


def recipe_of(folder, method, names=NAMES, params=None, **options):
    options = {"save_dtype": DType.F32, "compute_dtype": DType.F64, **options}
    return simple_recipe(method, files(folder, names), params, **options)


CASES = {
    "by_norm": ("abcde", {}),
    "dropped": ("abcde", {"seed": Setting(7), "weight@2": Setting(3.0)}),
    "reversed_delta": ("ab", {"lam": Setting(0.5)}),
    "rotated_weights": ("ab", {}),
    "row_means": ("a", {}),
    "slab_sums": ("a", {}),
    "weighted_mean": ("abcde", {"weight": Setting(2.0), "weight@5": Setting(0.5)}),
    "tgmd": ("abcde", {"seed": Setting(3.0)}),
    "dgmla": ("abcde", {}),
    "ties": ("abcde", {"density": Setting(0.3)}),
    "model_stock_consecutive": ("abcde", {}),
    "iso_z": ("ab", {}),
    "slerp": ("ab", {"alpha": Setting(0.3)}),
    "extract": ("abc", {"beta": Setting(0.25)}),
}


@pytest.mark.parametrize("name", CASES)
def test_engine_gives_what_the_method_gives_in_memory(folder, name):
    names, params = CASES[name]
    values, _ = run(recipe_of(folder, name, names, params))
    method = methods().get(name)
    given = {n: s.value for n, s in params.items() if "@" not in n}
    if "weight@2" in params:
        given["weight"] = (1.0, 3.0, 1.0, 1.0)
    if "weight@5" in params:
        given["weight"] = (2.0, 2.0, 2.0, 2.0, 0.5)
    models = tensors_of(names)
    for key in (UNET_KEY, CLIP_KEY, LARGE_KEY):
        wanted = method.call_with([m[key].double() for m in models], given, key=key)
        assert torch.equal(values[key], wanted.float().flatten()), key


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "options",
    [
        RunOptions(n_threads=3),
        RunOptions(chunk_elements=4096),
        RunOptions(chunk_elements=1000, n_threads=2),
        RunOptions(budget_bytes=32 << 20),
    ],
    ids=["threads", "chunks", "both", "budget"],
)
def test_bits_are_the_same_however_the_work_is_cut(folder, name, options):
    names, params = CASES[name]
    recipe = recipe_of(folder, name, names, params)
    whole, _ = run(recipe, RunOptions(n_threads=1))
    cut, _ = run(recipe, options)
    assert same_bits(whole, cut)


def test_slabs_are_told_true_edges_from_cuts(folder):
    recipe = recipe_of(folder, "slab_sums", "a")
    values, _ = run(recipe, RunOptions(chunk_elements=16, n_threads=1))
    for key, tensor in tensors_of("a")[0].items():
        if key.startswith("model.diffusion_model.") and tensor.ndim:
            wanted = neighbour_sum(tensor.double()).float().flatten()
            torch.testing.assert_close(values[key], wanted, rtol=1e-6, atol=1e-6)


def nested(folder, *nodes, names=NAMES, **options):
    models = tuple(ModelNode(path) for path in files(folder, names))
    return Recipe(
        nodes=(*models, *nodes),
        **{"save_dtype": DType.F32, "compute_dtype": DType.F64, **options},
    )


@pytest.mark.parametrize("n_threads", [1, 2], ids=["one", "two"])
def test_methods_nest_in_any_order(folder, n_threads):
    recipe = nested(
        folder,
        MergeNode("by_norm", (0, 1, 2, 3, 4)),  # 5
        MergeNode("row_means", (5,)),  # 6
        MergeNode("reversed_delta", (0, 6)),  # 7
        MergeNode("slab_sums", (7,)),  # 8
        MergeNode("by_norm", (0, 8, 1)),  # 9
        MergeNode("weighted_sum", (9, 2), (("alpha", Setting(0.25)),)),
    )
    values, _ = run(recipe, RunOptions(n_threads=n_threads))
    call = {m.id: m.call_with for m in methods()}
    for key in (UNET_KEY, CLIP_KEY, LARGE_KEY):
        a, b, c, d, e = (m[key].double() for m in tensors_of())
        five = call["by_norm"]([a, b, c, d, e], {})
        seven = call["reversed_delta"]([a, call["row_means"]([five], {})], {})
        nine = call["by_norm"]([a, call["slab_sums"]([seven], {}), b], {})
        wanted = call["weighted_sum"]([nine, c], {"alpha": 0.25})
        assert torch.equal(values[key], wanted.float().flatten())


def test_select_takes_blocks_components_and_patterns_from_other_nodes(folder):
    recipe = nested(
        folder,
        MergeNode("uniform_soup", (0, 1, 2)),
        SelectNode(
            (5, 1, 2, 3),
            (
                Pick(1, (BlockId("CLIP_L"),)),
                Pick(2, (BlockId("VAE"),)),
                Pick(3, (BlockId("IN01-IN04"),), "in_layers"),
                Pick(0, pattern=r"in_layers\.2"),
            ),
        ),
    )
    values, _ = run(recipe)
    a, b, c, d, _ = tensors_of()
    assert torch.equal(values[CLIP_KEY], b[CLIP_KEY].flatten())
    vae = "first_stage_model.decoder.conv_in.weight"
    assert torch.equal(values[vae], c[vae].flatten())
    assert torch.equal(values[UNET_KEY], d[UNET_KEY].flatten())
    mean = (a[LARGE_KEY].double() + b[LARGE_KEY] + c[LARGE_KEY]) / 3
    assert torch.equal(values[LARGE_KEY], mean.float().flatten())


def test_select_survives_its_json(folder):
    recipe = nested(
        folder,
        SelectNode((0, 1), (Pick(1, (BlockId("M00"),), "attn"),)),
        on_non_finite=NonFinite.LEAVE_OUT,
    )
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize(
    ("picks", "message"),
    [
        ((Pick(1, (BlockId("IN99"),)),), "no block or component 'IN99'"),
        ((Pick(5, (BlockId("M00"),)),), "picks input 5, but has 2"),
    ],
    ids=["block", "input"],
)
def test_select_is_refused_when_it_names_what_is_not_there(folder, picks, message):
    with pytest.raises(RecipeError, match=message):
        plan_recipe(nested(folder, SelectNode((0, 1), picks)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("weight@9", "is of model 9, but the pool has 5"),
        ("weight@0", "no parameter 'weight@0'"),
        ("weights", "no parameter 'weights'"),
    ],
    ids=str,
)
def test_weight_of_a_model_is_refused_when_there_is_none(folder, name, message):
    with pytest.raises(RecipeError, match=message):
        plan_recipe(recipe_of(folder, "weighted_mean", params={name: Setting(1.0)}))


def test_one_number_for_all_models_takes_no_position(folder):
    with pytest.raises(RecipeError, match="seed is one number for all models"):
        plan_recipe(recipe_of(folder, "dropped", params={"seed@1": Setting(1.0)}))


def with_nan(tmp_path, name="c"):
    """Five models, one of them with two bad values in one key."""
    paths = []
    for seed, letter in enumerate(NAMES):
        tensors = tiny_part(seed + 1, dtype=torch.float32)
        if letter == name:
            tensors[UNET_KEY].view(-1)[1] = float("nan")
            tensors[UNET_KEY].view(-1)[3] = float("-inf")
        paths.append(str(write_checkpoint(tmp_path / f"{letter}.safetensors", tensors)))
    return paths


@pytest.mark.parametrize("method", ["by_norm", "dropped", "weighted_mean"])
def test_pool_stops_and_names_file_key_and_count(tmp_path, method):
    recipe = simple_recipe(method, tuple(with_nan(tmp_path)))
    with pytest.raises(NonFiniteError, match=r"c\.safetensors has 2 of 5") as caught:
        run(recipe)
    assert UNET_KEY in str(caught.value)
    assert "--non-finite leave_out" in str(caught.value)


@pytest.mark.parametrize("method", ["by_norm", "dropped", "weighted_mean"])
def test_pool_leaves_a_model_out_for_the_key_where_it_is_not_finite(tmp_path, method):
    paths = tuple(with_nan(tmp_path))
    options = {"on_non_finite": NonFinite.LEAVE_OUT, "save_dtype": DType.F32}
    values, report = run(simple_recipe(method, paths, **options))
    assert report.left_out == ((UNET_KEY, 2, 2),)
    models = [tiny_part(i + 1, dtype=torch.float32) for i in range(5)]
    without = [models[i] for i in (0, 1, 3, 4)]
    if method == "dropped":
        # The others keep the draws of their own places.
        models[2][UNET_KEY] = models[0][UNET_KEY]
        without = models
    found = (
        methods()
        .get(method)
        .call_with([m[UNET_KEY] for m in without], {}, key=UNET_KEY)
    )
    assert torch.equal(values[UNET_KEY], found.flatten())
    other = methods().get(method).call_with([m[CLIP_KEY] for m in models], {}, CLIP_KEY)
    assert torch.equal(values[CLIP_KEY], other.flatten())


def test_base_cannot_be_left_out(tmp_path):
    paths = tuple(with_nan(tmp_path, "a"))
    recipe = simple_recipe("by_norm", paths, on_non_finite=NonFinite.LEAVE_OUT)
    with pytest.raises(NonFiniteError, match=r"a\.safetensors has 2.*needs it"):
        run(recipe)


def test_pool_does_without_a_model_that_lacks_a_key(tmp_path):
    paths = with_nan(tmp_path, "none")
    tensors = tiny_part(3, dtype=torch.float32)
    del tensors[UNET_KEY]
    write_checkpoint(tmp_path / "c.safetensors", tensors)
    recipe = simple_recipe("uniform_soup", tuple(paths), save_dtype=DType.F32)
    with pytest.raises(RecipeError, match=r"c\.safetensors lacks 1 key"):
        plan_recipe(recipe)
    lenient = simple_recipe(
        "uniform_soup", tuple(paths), save_dtype=DType.F32, is_missing_ok=True
    )
    values, _ = run(lenient)
    models = [tiny_part(i + 1, dtype=torch.float32)[UNET_KEY] for i in (0, 1, 3, 4)]
    wanted = methods().get("uniform_soup").call_with(models, {})
    assert torch.equal(values[UNET_KEY], wanted.flatten())


def test_pool_of_one_and_of_twins_is_merged_with_a_warning(folder):
    plan = plan_recipe(recipe_of(folder, "uniform_soup", "a"))
    assert "pool of one model" in plan.warnings[-1]
    plan = plan_recipe(recipe_of(folder, "uniform_soup", "abca"))
    assert "same model 2 times: a.safetensors, a.safetensors" in plan.warnings[-1]
    plan = plan_recipe(recipe_of(folder, "by_norm", "abca"))
    assert "base is also in the pool" in plan.warnings[-1]
    values, _ = run(recipe_of(folder, "uniform_soup", "a"))
    assert torch.equal(values[UNET_KEY], tensors_of("a")[0][UNET_KEY].flatten())


def test_base_of_another_family_is_warned_of(tmp_path):
    base = tiny_tensors("sd1", 1, dtype=torch.float32)
    near = tiny_tensors("sd1", 2, dtype=torch.float32)
    paths = {}
    for name, root in (("own", base), ("strange", near)):
        paths[name] = str(write_checkpoint(tmp_path / f"{name}.safetensors", root))
    pool = []
    for seed in (3, 4, 5, 6):
        noise = tiny_tensors("sd1", seed, dtype=torch.float32)
        tuned = {
            k: v + 0.1 * noise[k] if v.is_floating_point() else v
            for k, v in base.items()
        }
        pool.append(str(write_checkpoint(tmp_path / f"{seed}.safetensors", tuned)))
    warned = plan_recipe(simple_recipe("by_norm", (paths["strange"], *pool))).warnings
    assert any("times farther from the mean of the pool" in w for w in warned)
    assert plan_recipe(simple_recipe("by_norm", (paths["own"], *pool))).warnings == ()


def test_progress_ends_at_what_was_announced(folder):
    for name in CASES:
        names, params = CASES[name]
        plan = plan_recipe(recipe_of(folder, name, names, params))
        progress = JobProgress()
        progress.start("x", work_bytes(plan))
        run_plan(plan, MemorySink(plan), RunOptions(n_threads=2), progress)
        assert progress.snapshot().done == work_bytes(plan), name


def test_budget_too_small_for_a_whole_tensor_names_it(folder):
    plan = plan_recipe(recipe_of(folder, "reversed_delta", "ab"))
    with pytest.raises(InputError, match=r"'[\w.]+' must be held whole\); give at"):
        run_plan(plan, MemorySink(plan), RunOptions(budget_bytes=50_000))


CHILD = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from pathlib import Path
from lib_merge.core.recipe import simple_recipe
from lib_merge.engine.save import merge_to_file
folder = Path(sys.argv[1])
pool = tuple(str(folder / f"{i}.safetensors") for i in range(120))
merge_to_file(simple_recipe("uniform_soup", pool), folder / "out.safetensors")
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_pool_of_hundreds_works_with_few_file_handles(tmp_path):
    total = None
    for i in range(120):
        tensors = tiny_part(i + 1)
        write_checkpoint(tmp_path / f"{i}.safetensors", tensors)
        values = tensors[UNET_KEY].float()
        total = values if total is None else total + values
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "out.safetensors")[UNET_KEY]
    assert torch.equal(found, (total / 120).half())
