"""Plans: what happens to every key, and every fault at once."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.dtypes import DType
from lib_merge.core.plan import CopyOp, MergeOp
from lib_merge.core.recipe import (
    MergeNode,
    ModelNode,
    Recipe,
    Rule,
    Setting,
    simple_recipe,
)
from lib_merge.engine.planning import plan_recipe
from lib_merge.errors import RecipeError
from tests.support.checkpoints import (
    golden_rows,
    tiny_tensors,
    write_checkpoint,
    write_tiny,
)

VAE_KEY = "first_stage_model.decoder.conv_in.weight"
UNET_KEY = "model.diffusion_model.input_blocks.4.0.in_layers.0.weight"
TEXT_KEY = "cond_stage_model.transformer.text_model.final_layer_norm.weight"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two SD1 models (a, b), one SDXL (xl), one with EMA (ema), all tiny."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny(folder / "a.safetensors", "sd1", 1)
    write_tiny(folder / "b.safetensors", "sd1", 2)
    write_tiny(folder / "c.safetensors", "sd1", 3)
    write_tiny(folder / "xl.safetensors", "sdxl", 1)
    write_tiny(folder / "two.safetensors", "sd2", 1)
    write_tiny(folder / "ema.safetensors", "sd1", 4, with_ema=True)
    return folder


def recipe_of(folder, *names, method="weighted_sum", params=None, **options):
    paths = tuple(str(folder / f"{name}.safetensors") for name in names)
    return simple_recipe(method, paths, params, **options)


def ops(plan):
    return {task.key: task.op for task in plan.tasks}


@pytest.mark.parametrize(("arch_id", "names"), [("sd1", ("a", "b"))], ids=["sd1"])
def test_plan_follows_the_golden_list_when_options_are_default(models, arch_id, names):
    plan = plan_recipe(recipe_of(models, *names))
    tasks = {task.key: task for task in plan.tasks}
    rows = [row for row in golden_rows(arch_id) if row["treatment"] != "ema"]
    assert set(tasks) == {row["key"] for row in rows}
    for row in rows:
        task = tasks[row["key"]]
        is_merged = row["treatment"] == "merge" and row["component"] != "vae"
        assert isinstance(task.op, MergeOp if is_merged else CopyOp), row["key"]
        assert (task.block, task.component.value) == (row["block"], row["component"])
    assert plan.arch_id == arch_id
    assert plan.n_bytes_out == sum(task.n_bytes for task in plan.tasks)
    assert plan.warnings == ()


def test_plan_gives_each_key_its_value_when_blocks_and_rules_are_set(models):
    setting = Setting(
        0.5,
        blocks=(
            (BlockId("IN03-IN05"), 0.1),
            (BlockId("IN04"), 0.2),
            (BlockId("BASE"), 0.9),
        ),
        rules=(
            Rule(0.3, (BlockId("IN04"),), "attn"),
            Rule(0.4, (), r"attn2\.to_k"),
        ),
    )
    plan = plan_recipe(recipe_of(models, "a", "b", params={"alpha": setting}))
    alpha = {
        key: dict(op.params)["alpha"]
        for key, op in ops(plan).items()
        if isinstance(op, MergeOp)
    }
    prefix = "model.diffusion_model.input_blocks."
    attention = "1.transformer_blocks.0."
    assert alpha[f"{prefix}5.0.in_layers.0.weight"] == 0.1
    assert alpha[f"{prefix}4.0.in_layers.0.weight"] == 0.2
    assert alpha[f"{prefix}4.{attention}attn1.to_k.weight"] == 0.3
    assert alpha[f"{prefix}4.{attention}attn2.to_k.weight"] == 0.4
    assert alpha[f"{prefix}7.{attention}attn2.to_k.weight"] == 0.4
    assert alpha[f"{prefix}7.{attention}attn1.to_k.weight"] == 0.5
    assert alpha[TEXT_KEY] == 0.9


def test_plan_merges_the_vae_only_when_asked(models):
    plan = plan_recipe(recipe_of(models, "a", "b"))
    assert ops(plan)[VAE_KEY] == CopyOp(0)
    asked = recipe_of(models, "a", "b", components=(Component.VAE,))
    plan = plan_recipe(asked)
    assert isinstance(ops(plan)[VAE_KEY], MergeOp)
    assert ops(plan)[UNET_KEY] == CopyOp(0)


def test_plan_drops_ema_unless_it_is_kept(models):
    keys = ops(plan_recipe(recipe_of(models, "ema", "b")))
    assert not any(key.startswith("model_ema.") for key in keys)
    kept = plan_recipe(recipe_of(models, "ema", "b", keep_ema=True))
    ema = [task for task in kept.tasks if task.key.startswith("model_ema.")]
    assert len(ema) == 688
    assert all(task.op == CopyOp(0) for task in ema)


@pytest.mark.parametrize(
    ("save", "merged", "copied"),
    [
        (DType.F16, DType.F16, DType.F16),
        (DType.F32, DType.F32, DType.F32),
        (DType.BF16, DType.BF16, DType.BF16),
        (DType.F8_E4M3, DType.F8_E4M3, DType.F16),
        (None, DType.F16, DType.F16),
    ],
    ids=["f16", "f32", "bf16", "fp8", "keep"],
)
def test_plan_chooses_types_when_saving_in(models, save, merged, copied):
    plan = plan_recipe(recipe_of(models, "a", "b", save_dtype=save))
    tasks = {task.key: task for task in plan.tasks}
    assert tasks[UNET_KEY].dtype is merged
    assert tasks[VAE_KEY].dtype is copied
    assert tasks["betas"].dtype is DType.F32
    ids = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    assert tasks[ids].dtype is DType.I64


def test_plan_nests_operations_when_the_recipe_is_a_graph(models):
    paths = [str(models / f"{name}.safetensors") for name in "abc"]
    recipe = Recipe(
        nodes=(
            *(ModelNode(path) for path in paths),
            MergeNode("weighted_sum", (1, 2), (("alpha", Setting(0.25)),)),
            MergeNode("weighted_sum", (0, 3)),
        )
    )
    op = ops(plan_recipe(recipe))[UNET_KEY]
    inner = MergeOp("weighted_sum", (CopyOp(1), CopyOp(2)), (("alpha", 0.25),))
    assert op == MergeOp("weighted_sum", (CopyOp(0), inner), (("alpha", 0.5),))
    assert ops(plan_recipe(recipe))[VAE_KEY] == CopyOp(0)


def test_plan_finds_models_when_only_names_and_folders_are_given(models):
    plan = plan_recipe(simple_recipe("weighted_sum", ("a", "b.safetensors")), [models])
    found = [model.path for _, model in plan.recipe.models()]
    assert found == [str(models / "a.safetensors"), str(models / "b.safetensors")]


def test_plan_normalises_text_model_prefix_when_a_model_leaves_it_out(models, tmp_path):
    tensors = tiny_tensors("sd1", 5)
    short = {key.replace(".text_model.", "."): t for key, t in tensors.items()}
    path = write_checkpoint(tmp_path / "short.safetensors", short)
    recipe = simple_recipe("weighted_sum", (str(models / "a.safetensors"), str(path)))
    plan = plan_recipe(recipe)
    assert isinstance(ops(plan)[TEXT_KEY], MergeOp)
    assert plan.warnings == ()


def problems_of(recipe, folders=()):
    with pytest.raises(RecipeError, match=r"\w") as caught:
        plan_recipe(recipe, folders)
    return caught.value.problems


FAULTS = {
    "unknown_method": (
        {"method": "weighted_sun"},
        "did you mean 'weighted_sum'",
    ),
    "too_few_models": ({"names": "a"}, "takes 2 models, 1 given"),
    "too_many_models": ({"names": "abc"}, "takes 2 models, 3 given"),
    "unknown_parameter": (
        {"params": {"gamma": Setting(1)}},
        "no parameter 'gamma'; it has: alpha",
    ),
    "out_of_bounds": ({"params": {"alpha": Setting(7)}}, "alpha=7 (everywhere)"),
    "block_out_of_bounds": (
        {"params": {"alpha": Setting(0, ((BlockId("IN04"), 9.0),))}},
        "alpha=9 (block IN04)",
    ),
    "not_a_number": ({"params": {"alpha": Setting(float("nan"))}}, "no finite number"),
    "unknown_block": (
        {"params": {"alpha": Setting(0, ((BlockId("IN77"), 0.5),))}},
        "no block 'IN77'",
    ),
    "backward_range": (
        {"params": {"alpha": Setting(0, ((BlockId("IN07-IN04"), 0.5),))}},
        "no block 'IN07-IN04'",
    ),
    "rule_block": (
        {"params": {"alpha": Setting(0, (), (Rule(0.5, (BlockId("X"),)),))}},
        "no block 'X'",
    ),
    "bad_regex": (
        {"params": {"alpha": Setting(0, (), (Rule(0.5, (), "attn("),))}},
        "'attn(' is no regular expression",
    ),
    "a_is_b": ({"names": "aa"}, "A equal to B"),
    "b_is_c": ({"method": "add_difference", "names": "abb"}, "B equal to C"),
    "missing_file": ({"names": ["a", "nowhere"]}, "nowhere.safetensors' was not found"),
    "mixed": ({"names": ["a", "xl"]}, "different architectures"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_plan_reports_when_recipe_has(models, name):
    changes, message = FAULTS[name]
    names = changes.get("names", "ab")
    params = changes.get("params")
    method = changes.get("method", "weighted_sum")
    found = problems_of(recipe_of(models, *names, method=method, params=params))
    assert any(message in problem for problem in found), found


def test_plan_reports_all_faults_at_once(models):
    setting = Setting(5, ((BlockId("IN77"), 9.0),), (Rule(0.5, (), "["),))
    found = problems_of(
        recipe_of(models, "a", "xl", params={"alpha": setting, "beta": Setting(1)})
    )
    wanted = ["different arch", "alpha=5", "IN77'", "alpha=9", "'['", "'beta'"]
    for part in wanted:
        assert sum(part in problem for problem in found) == 1, (part, found)


def test_plan_allows_a_equal_to_c_when_the_difference_is_amplified(models):
    recipe = recipe_of(models, "a", "b", "a", method="add_difference")
    assert isinstance(ops(plan_recipe(recipe))[UNET_KEY], MergeOp)


def test_plan_finds_equal_inputs_when_one_is_a_copy_with_other_metadata(
    models, tmp_path
):
    copy = write_checkpoint(
        tmp_path / "copy.safetensors", tiny_tensors("sd1", 1), {"note": "a copy"}
    )
    recipe = simple_recipe("weighted_sum", (str(models / "a.safetensors"), str(copy)))
    assert "A equal to B" in problems_of(recipe)[0]


def test_plan_finds_equal_inputs_when_one_is_a_link(models, tmp_path):
    link = tmp_path / "link.safetensors"
    link.symlink_to(models / "a.safetensors")
    recipe = simple_recipe("weighted_sum", (str(models / "a.safetensors"), str(link)))
    assert "A equal to B" in problems_of(recipe)[0]


def test_plan_reports_missing_keys_unless_they_are_allowed(models, tmp_path):
    tensors = tiny_tensors("sd1", 5)
    del tensors[UNET_KEY], tensors[TEXT_KEY]
    path = write_checkpoint(tmp_path / "part.safetensors", tensors)
    recipe = simple_recipe("weighted_sum", (str(models / "a.safetensors"), str(path)))
    (problem,) = problems_of(recipe)
    assert "part.safetensors lacks 2 keys" in problem
    assert UNET_KEY in problem
    plan = plan_recipe(replace(recipe, is_missing_ok=True))
    assert ops(plan)[UNET_KEY] == CopyOp(0)
    assert "lacks 2 keys" in plan.warnings[0]


def test_plan_reports_shapes_when_they_differ(models, tmp_path):
    tensors = tiny_tensors("sd1", 5)
    first = "model.diffusion_model.input_blocks.0.0.weight"
    tensors[first] = torch.zeros(5, 9, 3, 3, dtype=torch.float16)
    path = write_checkpoint(tmp_path / "wide.safetensors", tensors)
    recipe = simple_recipe("weighted_sum", (str(models / "a.safetensors"), str(path)))
    (problem,) = problems_of(recipe)
    assert f"{first} is [5, 9, 3, 3], not [5, 4, 3, 3]" in problem


def test_plan_reports_integers_when_the_first_model_has_floats(models, tmp_path):
    tensors = tiny_tensors("sd1", 5)
    tensors[UNET_KEY] = tensors[UNET_KEY].to(torch.int32)
    path = write_checkpoint(tmp_path / "ints.safetensors", tensors)
    recipe = simple_recipe("weighted_sum", (str(models / "a.safetensors"), str(path)))
    assert f"{UNET_KEY} is int32" in problems_of(recipe)[0]


def test_plan_copies_with_a_warning_when_keys_are_unknown(models, tmp_path):
    tensors = tiny_tensors("sd1", 5)
    tensors["lora_te1.weight"] = torch.ones(3)
    path = write_checkpoint(tmp_path / "extra.safetensors", tensors)
    a = str(models / "a.safetensors")
    plan = plan_recipe(simple_recipe("weighted_sum", (str(path), a)))
    assert ops(plan)["lora_te1.weight"] == CopyOp(0)
    assert "1 key (lora_te1.weight) unknown" in plan.warnings[0]


def test_plan_warns_when_a_later_model_has_more(models, tmp_path):
    tensors = tiny_tensors("sd1", 5)
    del tensors[UNET_KEY]
    path = write_checkpoint(tmp_path / "part.safetensors", tensors)
    a = str(models / "a.safetensors")
    plan = plan_recipe(simple_recipe("weighted_sum", (str(path), a)))
    assert f"a.safetensors has 1 key ({UNET_KEY})" in plan.warnings[0]


def test_plan_warns_when_a_block_value_has_no_effect(models):
    setting = Setting(0.5, ((BlockId("VAE"), 0.3),))
    plan = plan_recipe(recipe_of(models, "a", "b", params={"alpha": setting}))
    assert "block VAE has no effect" in plan.warnings[0]


def test_plan_reports_when_a_named_hash_is_another(models, tmp_path):
    from lib_merge.checkpoint.hashes import file_sha256

    path = tmp_path / "a.safetensors"
    shutil.copy(models / "a.safetensors", path)
    file_sha256(path)
    recipe = recipe_of(models, "a", "b")
    named = {0: ModelNode(str(path), "0" * 64)}
    (problem,) = problems_of(recipe.with_models(named))
    assert "the recipe wants 0000000000" in problem
