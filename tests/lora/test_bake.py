"""LoRAs in recipes: baked by the engine, and as inputs of methods."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_merge.core.blocks import BlockId
from lib_merge.core.dtypes import DType
from lib_merge.core.recipe import (
    LoraNode,
    MergeNode,
    ModelNode,
    Recipe,
    Rule,
    Setting,
)
from lib_merge.engine.run import RunOptions
from lib_merge.engine.save import merge_to_file
from lib_merge.errors import NonFiniteError, RecipeError
from tests.lora import makers
from tests.support.checkpoints import tiny_tensors

MODULES = {
    makers.TO_Q: makers.TO_Q_KEY,
    makers.CONV: makers.CONV_KEY,
    makers.TEXT: makers.TEXT_KEY,
}


FEW = (
    *("model.diffusion_model.input_blocks.1.", "model.diffusion_model.out."),
    "model.diffusion_model.input_blocks.11.0.in_layers.",
    "cond_stage_model.transformer.text_model.encoder.layers.0.",
    "betas",
)


def few_tensors(seed=0, dtype=torch.float16):
    """A part of a tiny SD1 model, enough to be recognised and to bake into."""
    tensors = tiny_tensors("sd1", seed, dtype=dtype)
    return {key: t for key, t in tensors.items() if key.startswith(FEW)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A part of a tiny SD1 model."""
    path = tmp_path_factory.mktemp("models") / "m.safetensors"
    save_file(few_tensors(), str(path))
    return path


def lora_of(folder, model, kind="lora", name="l.safetensors", seed=0):
    """A LoRA with three modules, and its changes by key."""
    base = load_file(str(model))
    modules, changes = [], {}
    for module, key in MODULES.items():
        shape = tuple(base[key].shape)
        tensors = makers.module(kind, module, shape, seed=seed)
        modules.append(tensors)
        parts = makers.parts_of(tensors, module)
        changes[key] = makers.change_of(kind, parts, base[key])
    path = makers.save(folder / name, *modules, ss_base_model_version="sd_v1-5")
    return path, changes


def baked(folder, recipe, **options):
    """The tensors that a recipe gives."""
    out = folder / "out.safetensors"
    merge_to_file(recipe, out, overwrite=True, options=RunOptions(**options))
    return load_file(str(out))


def recipe_of(model, *loras, save=DType.F32, **options):
    """Some LoRAs, one on the other."""
    nodes = [ModelNode(str(model))]
    for path, strength in loras:
        nodes.append(LoraNode(str(path), len(nodes) - 1, strength))
    return Recipe(nodes=tuple(nodes), save_dtype=save, **options)


@pytest.mark.parametrize(
    "kind", ["lora", "loha", "lokr", "glora", "dora", "oft", "full"]
)
def test_baking_adds_the_change(kind, model, tmp_path):
    path, changes = lora_of(tmp_path, model, kind)
    before = load_file(str(model))
    after = baked(tmp_path, recipe_of(model, (path, Setting(0.7))))
    for key, tensor in before.items():
        if key not in changes:
            assert torch.equal(after[key].to(tensor.dtype), tensor), key
            continue
        wanted = tensor.double() + 0.7 * changes[key]
        torch.testing.assert_close(after[key].double(), wanted, rtol=2e-5, atol=2e-6)


def test_strengths_are_by_block_and_rule(model, tmp_path):
    path, changes = lora_of(tmp_path, model)
    strength = Setting(
        1.0,
        blocks=((BlockId("BASE"), 0.25), (BlockId("IN01"), 0.5)),
        rules=(Rule(-1.0, pattern="in_layers"),),
    )
    before = load_file(str(model))
    after = baked(tmp_path, recipe_of(model, (path, strength)))
    factors = {makers.TO_Q_KEY: 0.5, makers.CONV_KEY: -1.0, makers.TEXT_KEY: 0.25}
    for key, factor in factors.items():
        wanted = before[key].double() + factor * changes[key]
        torch.testing.assert_close(after[key].double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_strength_0_leaves_every_byte(kind, model, tmp_path):
    path, _ = lora_of(tmp_path, model, kind)
    after = baked(tmp_path, recipe_of(model, (path, Setting(0.0)), save=None))
    before = load_file(str(model))
    assert list(after) == list(before)
    for key, tensor in before.items():
        assert after[key].dtype is tensor.dtype
        assert torch.equal(after[key], tensor)


def test_several_loras_add_up(model, tmp_path):
    one, first = lora_of(tmp_path, model)
    two, second = lora_of(tmp_path, model, name="two.safetensors", seed=40)
    before = load_file(str(model))
    after = baked(tmp_path, recipe_of(model, (one, Setting(0.5)), (two, Setting(-0.3))))
    for key in first:
        wanted = before[key].double() + 0.5 * first[key] - 0.3 * second[key]
        torch.testing.assert_close(after[key].double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["lora", "lokr", "dora"])
def test_bits_do_not_depend_on_chunks_and_threads(kind, model, tmp_path):
    path, _ = lora_of(tmp_path, model, kind)
    recipe = recipe_of(model, (path, Setting(0.7)))
    first = baked(tmp_path, recipe, n_threads=1)
    for options in ({"chunk_elements": 4096, "n_threads": 2}, {"chunk_elements": 37}):
        again = baked(tmp_path, recipe, **options)
        assert all(torch.equal(again[key], first[key]) for key in first)


def test_delta_method_gets_the_exact_change(tmp_path):
    # At 4096 the steps of float32 are 2^-11: adding 2.2e-4 there and taking the base
    # off again would lose it wholly; twice as much is nearly a step.
    tensors = few_tensors(dtype=torch.float32)
    tensors[makers.TO_Q_KEY] = torch.full_like(tensors[makers.TO_Q_KEY], 4096.0)
    model = tmp_path / "big.safetensors"
    save_file(tensors, str(model))
    change = torch.full_like(tensors[makers.TO_Q_KEY], 2.2e-4)
    path = makers.save(tmp_path / "l.safetensors", {f"{makers.TO_Q}.diff": change})
    recipe = Recipe(
        nodes=(
            ModelNode(str(model)),
            LoraNode(str(path), 0),
            MergeNode("task_arithmetic", (0, 1), (("lam", Setting(2.0)),)),
        ),
        save_dtype=DType.F32,
    )
    after = baked(tmp_path, recipe)[makers.TO_Q_KEY]
    assert torch.equal(after, torch.full_like(after, 4096.0 + 2.0**-11))


@pytest.mark.parametrize("method", ["ties", "dare", "truncate_rank", "weighted_sum"])
def test_lora_stands_for_its_model_in_a_method(method, model, tmp_path):
    path, changes = lora_of(tmp_path, model)
    before = load_file(str(model))
    whole = {key: t.clone().float() for key, t in before.items()}
    for key, change in changes.items():
        whole[key] = (before[key].double() + change).float()
    for key, tensor in before.items():
        whole[key] = whole[key] if tensor.is_floating_point() else tensor
    other = tmp_path / "whole.safetensors"
    save_file(whole, str(other))
    merge = MergeNode(method, (0, 1))
    first = Recipe(nodes=(ModelNode(str(model)), LoraNode(str(path), 0), merge))
    second = Recipe(nodes=(ModelNode(str(model)), ModelNode(str(other)), merge))
    one, two = baked(tmp_path, first), baked(tmp_path, second)
    for key in changes:
        torch.testing.assert_close(one[key], two[key], rtol=2e-3, atol=2e-3)


def test_merge_can_stand_below_a_lora(model, tmp_path):
    path, _ = lora_of(tmp_path, model, "dora")
    other = tmp_path / "b.safetensors"
    save_file(few_tensors(1), str(other))
    nodes = (
        ModelNode(str(model)),
        ModelNode(str(other)),
        MergeNode("weighted_sum", (0, 1), (("alpha", Setting(0.5)),)),
        LoraNode(str(path), 2, Setting(0.5)),
    )
    after = baked(tmp_path, Recipe(nodes=nodes, save_dtype=DType.F32))
    a, b = load_file(str(model)), load_file(str(other))
    lora = load_file(str(path))
    for module, key in MODULES.items():
        mixed = (a[key].double() + b[key].double()) / 2
        change = makers.change_of("dora", makers.parts_of(lora, module), mixed)
        wanted = mixed + 0.5 * change
        torch.testing.assert_close(after[key].double(), wanted, rtol=2e-5, atol=2e-6)


def test_fused_tensor_takes_its_parts_where_they_belong(tmp_path):
    tensors = tiny_tensors("sdxl")
    model = tmp_path / "xl.safetensors"
    save_file(tensors, str(model))
    key = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"
    turned = "conditioner.embedders.1.model.text_projection"
    name = "lora_te2_text_model_encoder_layers_0_self_attn_{}_proj"
    n_rows, n_columns = tensors[key].shape
    shape = (n_rows // 3, n_columns)
    q = makers.module("lora", name.format("q"), shape)
    v = makers.module("lora", name.format("v"), shape, seed=9)
    sides = tensors[turned].shape[::-1]
    projection = makers.module("lora", "lora_te2_text_projection", sides, seed=20)
    path = makers.save(tmp_path / "l.safetensors", q, v, projection)
    after = baked(tmp_path, recipe_of(model, (path, Setting(1.0))))
    zero = torch.zeros(shape)
    change = torch.cat(
        [
            makers.change_of("lora", makers.parts_of(q, name.format("q")), zero),
            zero.double(),
            makers.change_of("lora", makers.parts_of(v, name.format("v")), zero),
        ]
    )
    wanted = tensors[key].double() + change
    torch.testing.assert_close(after[key].double(), wanted, rtol=1e-5, atol=1e-6)
    parts = makers.parts_of(projection, "lora_te2_text_projection")
    change = makers.change_of("lora", parts, torch.zeros(sides)).T
    wanted = tensors[turned].double() + change
    torch.testing.assert_close(after[turned].double(), wanted, rtol=1e-5, atol=1e-6)


FLUX = "model.diffusion_model."
FLUX_SHAPES = {
    "double_blocks.0.img_mod.lin.weight": (72, 12),
    "double_blocks.0.img_attn.qkv.weight": (36, 12),
    "double_blocks.18.img_attn.qkv.weight": (36, 12),
    "single_blocks.37.linear1.weight": (84, 12),
    "final_layer.adaLN_modulation.1.weight": (24, 12),
    "img_in.weight": (12, 8),
}


@pytest.mark.parametrize("prefix", [FLUX, ""], ids=["prefixed", "bare"])
def test_layers_of_diffusers_go_where_flux_has_them_fused(prefix, tmp_path):
    tensors = {
        key: makers.draw(number, *shape)
        for number, (key, shape) in enumerate(FLUX_SHAPES.items())
    }
    model = tmp_path / "flux.safetensors"
    save_file({prefix + key: t for key, t in tensors.items()}, str(model))
    parts = {
        "transformer_blocks.0.attn.to_k": (12, 12),
        "single_transformer_blocks.37.proj_mlp": (48, 12),
        "single_transformer_blocks.37.attn.to_q": (12, 12),
        "norm_out.linear": (24, 12),
    }
    modules, change = [], {}
    for seed, (name, shape) in enumerate(parts.items()):
        name = f"transformer.{name}"
        modules.append(makers.module("lora", name, shape, seed=10 * seed))
        own = makers.parts_of(modules[-1], name)
        change[name.split(".")[-1]] = makers.change_of("lora", own, torch.zeros(shape))
    path = makers.save(tmp_path / "l.safetensors", *modules)
    after = baked(tmp_path, recipe_of(model, (path, Setting(1.0))))
    wanted = {key: t.double().clone() for key, t in tensors.items()}
    wanted["double_blocks.0.img_attn.qkv.weight"][12:24] += change["to_k"]
    wanted["single_blocks.37.linear1.weight"][36:] += change["proj_mlp"]
    wanted["single_blocks.37.linear1.weight"][:12] += change["to_q"]
    last = wanted["final_layer.adaLN_modulation.1.weight"]
    last += change["linear"].roll(12, 0)
    for key, tensor in wanted.items():
        found = after[FLUX + key].double()
        torch.testing.assert_close(found, tensor, rtol=1e-5, atol=1e-6)


def test_norms_and_biases_are_added(model, tmp_path):
    key = "model.diffusion_model.input_blocks.1.1.norm.weight"
    bias = makers.CONV_KEY.replace(".weight", ".bias")
    before = load_file(str(model))
    n = len(before[key])
    tensors = {
        "lora_unet_down_blocks_0_attentions_0_norm.w_norm": makers.draw(1, n),
        "lora_unet_down_blocks_0_attentions_0_norm.b_norm": makers.draw(2, n),
        f"{makers.CONV}.diff_b": makers.draw(3, len(before[bias])),
    }
    path = makers.save(tmp_path / "l.safetensors", tensors)
    after = baked(tmp_path, recipe_of(model, (path, Setting(2.0))))
    for name, role in ((key, 1), (key.replace("weight", "bias"), 2), (bias, 3)):
        wanted = before[name].float() + 2.0 * makers.draw(role, len(before[name]))
        torch.testing.assert_close(after[name], wanted)


def test_saved_file_repeats_the_merge(model, tmp_path):
    from lib_merge.checkpoint.metadata import read_recipe

    path, _ = lora_of(tmp_path, model)
    out = tmp_path / "out.safetensors"
    merge_to_file(recipe_of(model, (path, Setting(0.5))), out)
    recipe = read_recipe(out)
    assert recipe is not None
    lora = recipe.nodes[1]
    assert isinstance(lora, LoraNode)
    assert (lora.path, len(lora.sha256 or "")) == ("l.safetensors", 64)
    again = tmp_path / "again.safetensors"
    merge_to_file(recipe, again, folders=[tmp_path, model.parent])
    assert again.read_bytes() == out.read_bytes()


def test_json_gives_an_equal_recipe_back(model, tmp_path):
    path, _ = lora_of(tmp_path, model)
    recipe = recipe_of(model, (path, Setting(0.5, ((BlockId("BASE"), 0.1),))))
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_every_fault_is_reported_at_once(model, tmp_path):
    tensors = makers.module("lora", makers.TO_K2, (5, 768))
    wrong = makers.save(tmp_path / "wrong.safetensors", tensors)
    recipe = recipe_of(
        model,
        (wrong, Setting(99.0)),
        (wrong, Setting(1.0, ((BlockId("IN77"), 1.0),))),
    )
    with pytest.raises(RecipeError, match="is outside -10 to 10") as caught:
        baked(tmp_path, recipe)
    text = str(caught.value)
    assert "IN77" in text
    assert "a LoRA for Stable Diffusion 1.x" in text
    assert "is 5x768" in text


def test_lora_of_another_architecture_says_both_by_name(model, tmp_path):
    tensors = makers.module(
        "lora", "lora_unet_double_blocks_0_img_attn_proj", (3072, 3072)
    )
    path = makers.save(tmp_path / "flux.safetensors", tensors)
    with pytest.raises(RecipeError, match=r"does not fit Stable Diffusion 1\.x: it is"):
        baked(tmp_path, recipe_of(model, (path, Setting(1.0))))


def test_what_is_not_applied_is_reported_by_name(model, tmp_path):
    path, _ = lora_of(tmp_path, model)
    tensors = load_file(str(path))
    tensors |= makers.module("lora", "lora_unet_nobody_knows", (4, 4))
    tensors["bundle_emb.x"] = torch.zeros(3)
    save_file(tensors, str(path))
    saved = merge_to_file(
        recipe_of(model, (path, Setting(1.0))), tmp_path / "out.safetensors"
    )
    assert any(
        "2 modules (bundle_emb.x, lora_unet_nobody_knows)" in w for w in saved.warnings
    )


def test_nan_in_a_lora_stops_the_merge_by_name(model, tmp_path):
    path, _ = lora_of(tmp_path, model)
    tensors = load_file(str(path))
    tensors[f"{makers.TO_Q}.lora_up.weight"][0, 0] = float("nan")
    save_file(tensors, str(path))
    with pytest.raises(NonFiniteError, match=r"l\.safetensors, tensor .*attn1_to_q"):
        baked(tmp_path, recipe_of(model, (path, Setting(1.0))))
    assert not (tmp_path / "out.safetensors").exists()
