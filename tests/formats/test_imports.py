"""Files of other programs: named blocks, models, and what is not known of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lib_merge.core.block_orders import CSV_ORDER, RECIPE_TXT_ORDER
from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.recipe import (
    DEFAULT_COMPONENTS,
    MergeNode,
    ModelNode,
    Setting,
)
from lib_merge.errors import InputError, RecipeError
from lib_merge.formats.files import read_path
from lib_merge.formats.orders import ORDERS, WHOLE
from tests.formats import samples
from tests.formats.reading import (
    SHARED,
    alpha_of,
    by_block,
    leaves,
    numbers,
    of_text,
    recipe_of,
    sample,
)

# AutoMBW


@pytest.mark.parametrize(
    ("name", "order"),
    [("out.recipe.txt", RECIPE_TXT_ORDER), ("mbwrt.json", RECIPE_TXT_ORDER)],
)
def test_autombw_weights_go_to_the_blocks_of_their_order(
    name: str, order: tuple[BlockId, ...]
) -> None:
    recipe = recipe_of(sample(name))
    written = [round(i / 26, 3) for i in range(27)]
    alpha = by_block(alpha_of(recipe))
    assert [alpha.get(block, 0.0) for block in order] == written
    assert recipe.nodes[-1].components == (Component.UNET,)  # type: ignore[union-attr]
    assert [m.path for _, m in recipe.models()] == ["a.safetensors", "b.safetensors"]


def test_autombw_table_has_the_best_trial_first_and_no_models() -> None:
    imported = sample("trials.csv")
    best = imported.entry("best")
    assert dict(best.facts) == {"score": "0.625", "trial": "1"}
    assert by_block(best.weights or Setting(0.0))["IN00"] == 1.0
    assert any("names no models" in sentence for sentence in imported.unknown)
    with pytest.raises(InputError, match="--inputs A B"):
        best.with_models([])
    recipe = best.with_models(["x.safetensors", "y.safetensors"])
    assert recipe.models()[1][1].path == "y.safetensors"


def test_another_order_moves_out_and_time_embed_when_the_user_says_so() -> None:
    usual = by_block(alpha_of(recipe_of(sample("out.recipe.txt"))))
    swapped = by_block(
        alpha_of(recipe_of(sample("out.recipe.txt", order="rbm_sliders")))
    )
    assert usual["OUT"] == swapped["TIME_EMBED"]
    assert usual["TIME_EMBED"] == swapped["OUT"]


def test_sdxl_drops_the_sliders_that_it_has_no_blocks_for() -> None:
    alpha = by_block(alpha_of(recipe_of(sample("out.recipe.txt", arch="sdxl"))))
    assert not {"IN09", "IN10", "IN11", "OUT09", "OUT10", "OUT11"} & set(alpha)
    assert "LABEL_EMB" not in alpha


def test_unknown_sequence_of_the_metadata_asks() -> None:
    text = samples.MBWRT.replace("sl_OUT, sl_TIME", "sl_TIME, sl_OUT")
    with pytest.raises(RecipeError, match="--order"):
        of_text(text, "x.json")


RUNS = sorted((SHARED / "autombw" / "runs").glob("*.csv"))
ANSWERS = {
    "02b": (102, 0.4824, 0.5242, 76),
    "04b": (87, 0.4630, 0.5395, 59),
    "06b": (61, 0.5023, 0.5551, 33),
    "08b": (64, 0.4829, 0.5299, 36),
    "10b": (28, 0.5745, 0.5745, 0),
    "12b": (103, 0.5270, 0.5649, 82),
    "14b": (67, 0.5158, 0.6142, 39),
    "16b": (100, 0.5417, 0.6084, 90),
    "18b": (41, 0.5974, 0.6078, 13),
    "20b": (110, 0.5885, 0.6416, 82),
    "201b": (99, 0.5628, 0.6284, 71),
    "203b": (64, 0.5444, 0.6187, 36),
    "205b": (57, 0.5480, 0.5976, 29),
    "207b": (53, 0.5505, 0.6045, 25),
    "209b": (64, 0.5637, 0.6086, 36),
}


@pytest.mark.skipif(not RUNS, reason="no published runs here")
@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name.split("-")[0])
def test_published_run_has_the_known_best_trial_and_equals_its_recipe_txt(
    path: Path,
) -> None:
    n_trials, first, best_score, best = ANSWERS[path.name.split("-")[0]]
    imported = read_path(path)
    scores = {
        int(dict(entry.facts)["trial"]): float(dict(entry.facts)["score"])
        for entry in imported.entries
    }
    assert len(imported.entries) == n_trials
    assert round(scores[0], 4) == first
    assert (int(dict(imported.entries[0].facts)["trial"])) == best
    assert round(scores[best], 4) == best_score
    name = re.sub(r"-0-\d{4}-.*", "", path.stem)
    recipe = recipe_of(read_path(path.with_name(f"{name}.recipe.txt")))
    assert alpha_of(recipe) == imported.entries[0].weights


def test_csv_columns_are_in_their_own_order() -> None:
    weights = sample("trials.csv").entry("trial 0").weights or Setting(0.0)
    alpha = by_block(weights)
    written = [round(i / 26, 3) for i in range(27)]
    assert [alpha.get(block, 0.0) for block in CSV_ORDER] == written


# Presets


@pytest.mark.parametrize(
    ("count", "order"),
    [(25, "mbw25"), (26, "supermerger"), (20, "supermerger_sdxl"), (17, "lora17")],
)
def test_named_preset_is_in_the_order_of_its_kind_of_file(
    count: int, order: str
) -> None:
    entry = of_text(f"NAME\t{numbers(count)}", "p.tsv").entry("NAME")
    assert dict(entry.facts) == {"order": order}
    labels = next(o.labels for o in ORDERS if o.id == order)
    alpha = by_block(entry.weights or Setting(0.0))
    wanted = dict(zip(labels, map(float, numbers(count).split(",")), strict=True))
    assert {label: alpha[label] for label in labels} == wanted


def test_supermerger_blocks_hold_time_embed_out_and_vae() -> None:
    entry = of_text(f"NAME:{numbers(26)}", "p.txt").entry()
    alpha = by_block(entry.weights or Setting(0.0))
    assert alpha["TIME_EMBED"] == alpha["IN00"]
    assert alpha["OUT"] == alpha["OUT11"]
    assert alpha["VAE"] == alpha["BASE"]
    assert set(entry.components) == set(WHOLE)


@pytest.mark.parametrize(("count", "orders"), [(27, 3), (26, 3)])
def test_bare_numbers_that_fit_several_orders_ask(count: int, orders: int) -> None:
    with pytest.raises(RecipeError, match=f"come in {orders} orders.*--order"):
        of_text(numbers(count), "p.txt")


def test_given_order_of_another_length_is_refused() -> None:
    with pytest.raises(RecipeError, match="has 25 numbers, but there are 27"):
        of_text(numbers(27), "p.txt", order="mbw25")


def test_numbers_of_no_order_are_refused() -> None:
    with pytest.raises(RecipeError, match="in no order that MergeLab knows"):
        of_text(f"NAME\t{numbers(23)}", "p.txt")


def test_order_of_the_user_is_taken_for_bare_numbers() -> None:
    entry = of_text(numbers(27), "p.txt", order="autombw_csv").entry()
    alpha = by_block(entry.weights or Setting(0.0))
    assert alpha["OUT"] == round(14 / 64, 4)


# WebUI, supermerger, model-mixer


def test_webui_chain_resolves_to_ten_leaves_one_of_them_unknown() -> None:
    imported = sample("webui.json")
    found = leaves(recipe_of(imported))
    assert len(found) == 10
    assert all(0.0998 < weight < 0.1003 for weight in found.values())
    assert sum(found.values()) == pytest.approx(1.0)
    unknown = [name for name in found if name.startswith("unknown model")]
    assert unknown == ["unknown model: secondary model of m011.safetensors"]
    assert any("has no hash" in sentence for sentence in imported.unknown)
    assert any("m020.safetensors" in sentence for sentence in imported.unknown)


@pytest.mark.skipif(not (SHARED / "recipes").is_dir(), reason="no recipes here")
def test_webui_recipe_20a_resolves_to_its_leaf_weights() -> None:
    imported = read_path(SHARED / "recipes" / "recipe-20a.json")
    found = leaves(recipe_of(imported))
    unknown = {k: w for k, w in found.items() if k.startswith("unknown")}
    # One leaf was merged by supermerger itself: its two models share its weight.
    pair = found.pop("m049.safetensors") + found.pop("m050.safetensors")
    plain = [w for k, w in found.items() if k not in unknown]
    assert len(plain) == 17
    assert all(0.0499 < weight < 0.0502 for weight in (*plain, pair))
    assert len(unknown) == 2
    assert sum(unknown.values()) == pytest.approx(0.10, abs=1e-4)


def test_webui_blends_the_vae_and_saves_as_half() -> None:
    recipe = recipe_of(sample("webui.json"))
    node = recipe.nodes[-1]
    assert isinstance(node, MergeNode)
    assert set(node.components) == set(WHOLE)
    assert recipe.save_dtype is not None
    assert recipe.save_dtype.torch_name == "float16"


def webui(method: str, **changes: object) -> str:
    step = {
        "type": "webui",
        "primary_model_hash": samples.A,
        "secondary_model_hash": samples.B,
        "tertiary_model_hash": samples.C,
        "interp_method": method,
        "multiplier": 0.4,
        "save_as_half": False,
    }
    return samples.metadata({**step, **changes})


@pytest.mark.parametrize(
    ("method", "ours", "n_models"),
    [("Weighted sum", "weighted_sum", 2), ("Add difference", "add_difference", 3)],
)
def test_webui_methods_are_ours(method: str, ours: str, n_models: int) -> None:
    recipe = recipe_of(of_text(webui(method), "x.json"))
    node = recipe.nodes[-1]
    assert isinstance(node, MergeNode)
    assert node.method == ours
    assert len(recipe.models()) == n_models
    assert recipe.models()[0][1] == ModelNode("a.safetensors", samples.A)
    assert recipe.save_dtype is None


def test_webui_names_what_it_cannot_repeat() -> None:
    text = webui("Weighted sum", bake_in_vae="x.vae.pt", discard_weights="model_ema")
    unknown = " ".join(of_text(text, "x.json").unknown)
    assert "x.vae.pt" in unknown
    assert "model_ema" in unknown


def test_webui_recipe_without_any_hash_says_so() -> None:
    text = webui("Weighted sum", primary_model_hash=None, secondary_model_hash=None)
    imported = of_text(text, "x.json")
    assert len([s for s in imported.unknown if "has no hash" in s]) == 2
    assert len(recipe_of(imported).models()) == 2


def test_supermerger_step_has_blocks_layers_and_exclusions() -> None:
    alpha = alpha_of(recipe_of(sample("supermerger.json")))
    assert by_block(alpha)["BASE"] == 0.5
    assert by_block(alpha)["IN05"] == samples.HALVES_25[5]
    key = (
        "model.diffusion_model.output_blocks.4.1.transformer_blocks.0.attn1.to_q.weight"
    )
    assert _value(alpha, key, "OUT04") == 0.4
    key = "model.diffusion_model.input_blocks.5.0.in_layers.0.bias"
    assert _value(alpha, key, "IN05") == 0.2
    assert _value(alpha, "model.diffusion_model.middle_block.0.x.bias", "M00") != 0.2
    assert _value(alpha, "model.diffusion_model.time_embed.0.weight", "TIME_EMBED") == 0
    assert (
        _value(alpha, "model.diffusion_model.output_blocks.11.x.weight", "OUT11") == 0
    )


def _value(setting: Setting, key: str, block: str) -> float:
    return setting.value_for(key, BlockId(block))


def test_supermerger_include_leaves_all_else_at_model_a() -> None:
    step = samples.supermerger_step(elemental_merge="", Exclude=None)
    step = {**step, "Include": ["IN04", "attn2"]}
    del step["Exclude"]
    alpha = alpha_of(recipe_of(of_text(samples.metadata(step), "x.json")))
    prefix = "model.diffusion_model."
    assert _value(alpha, f"{prefix}input_blocks.4.0.in.weight", "IN04") > 0
    assert _value(alpha, f"{prefix}input_blocks.5.1.attn2.weight", "IN05") > 0
    assert _value(alpha, f"{prefix}input_blocks.5.1.attn1.weight", "IN05") == 0
    assert _value(alpha, "cond_stage_model.x.weight", "CLIP_L") == 0


@pytest.mark.parametrize(
    ("mode", "calc", "method"),
    [
        ("Weight sum", "normal", "weighted_sum"),
        ("Add difference", "normal", "add_difference"),
        ("Triple sum", "normal", "triple_sum"),
        ("sum Twice", "normal", "sum_twice"),
        ("Add difference", "trainDifference", "train_difference"),
        ("Add difference", "smoothAdd", "smooth_add"),
        ("Weight sum", "tensor2", "tensor_sum"),
    ],
)
def test_supermerger_modes_are_ours(mode: str, calc: str, method: str) -> None:
    step = samples.supermerger_step(
        mode=mode, calcmode=calc, mbw=False, elemental_merge=""
    )
    node = recipe_of(of_text(samples.metadata(step), "x.json")).nodes[-1]
    assert isinstance(node, MergeNode)
    assert node.method == method


@pytest.mark.parametrize("calc", ["cosineA", "self", "plus random", "extract"])
def test_supermerger_calculation_without_counterpart_is_refused(calc: str) -> None:
    step = samples.supermerger_step(calcmode=calc)
    with pytest.raises(RecipeError, match=re.escape(calc)):
        of_text(samples.metadata(step), "x.json")


def test_step_inside_a_chain_that_cannot_be_said_stays_a_file() -> None:
    inner = samples.supermerger_step(calcmode="cosineA", model_b=samples.C)
    listed = {**samples.LISTED, samples.B: {"name": "b", "sd_merge_recipe": inner}}
    step = json.loads(
        json.loads(webui("Weighted sum"))["__metadata__"]["sd_merge_recipe"]
    )
    imported = of_text(samples.metadata(step, listed), "x.json")
    assert [m.path for _, m in recipe_of(imported).models()] == ["a.safetensors", "b"]
    assert any("is taken as a file" in note for note in imported.notes)


def test_supermerger_history_has_a_recipe_a_row_by_short_hash() -> None:
    imported = sample("mergehistory.csv")
    first, second = (entry.recipe for entry in imported.entries)
    assert first is not None
    assert second is not None
    assert [m.path for _, m in first.models()] == ["0123456789", "abcdefabcd"]
    assert second.nodes[-1].method == "add_difference"  # type: ignore[union-attr]
    assert alpha_of(second) == Setting(0.3)


def test_model_mixer_chain_follows_its_modes() -> None:
    recipe = recipe_of(sample("mixer.json"))
    merges = [node for node in recipe.nodes if isinstance(node, MergeNode)]
    assert [node.method for node in merges] == [
        "weighted_sum",
        "add_difference",
        "ties",
    ]
    blocks = by_block(dict(merges[0].params)["alpha"])
    assert blocks["OUT"] == blocks["TIME_EMBED"] == blocks["OUT11"]
    assert merges[0].components == DEFAULT_COMPONENTS
    assert set(merges[1].components) == set(WHOLE)


def test_model_mixer_cosine_is_refused_with_its_reason() -> None:
    step = samples.mixer_step(calcmode=["Cosine", "Normal", "Normal"])
    with pytest.raises(RecipeError, match="leaves the UNet as it is"):
        of_text(samples.metadata(step), "x.json")


# mergekit


def test_mergekit_filters_become_rules_and_the_first_wins() -> None:
    recipe = recipe_of(sample("mergekit.yml"))
    node = recipe.nodes[-1]
    assert isinstance(node, MergeNode)
    params = dict(node.params)
    assert params["lam"] == Setting(0.9)
    assert params["drop_rate"] == Setting(0.5)
    weight = params["weight@2"]
    assert weight.value_for("x.attn.y", BlockId("IN04")) == 0.25
    assert weight.value_for("x.mlp.y", BlockId("IN04")) == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("merge_method: linear\nslices: []", "language model's layers"),
        ("merge_method: nearswap\nmodels:\n- model: a", "has no counterpart"),
        (
            "merge_method: ties\nmodels:\n- {model: a, parameters: {weight: 1}}",
            "needs a base_model",
        ),
        (
            "merge_method: linear\nmodels:\n- model: a\n  parameters: {weight: [0, 1]}",
            "not a gradient",
        ),
        (
            "merge_method: ties\nbase_model: b\nmodels:\n"
            "- {model: a, parameters: {weight: 1}}\n"
            "- {model: c, parameters: {weight: 2}}",
            "take part in the election",
        ),
    ],
)
def test_mergekit_recipe_that_does_not_apply_is_refused(
    text: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        of_text(text, "x.yml")
