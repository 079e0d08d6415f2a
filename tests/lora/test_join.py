"""LoRAs joined, resized and extracted: against the sums of their changes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lib_merge.checkpoint.header import read_header
from lib_merge.core.blocks import BlockId
from lib_merge.core.dtypes import DType
from lib_merge.core.recipe import LoraNode, ModelNode, Recipe, Setting
from lib_merge.engine.progress import JobProgress
from lib_merge.engine.save import merge_to_file
from lib_merge.errors import (
    Cancelled,
    InputError,
    NonFiniteError,
    OutputError,
    RecipeError,
)
from lib_merge.lora.extract import Wanted, extract_lora
from lib_merge.lora.factors import Keep, factorise, factorise_product
from lib_merge.lora.join import Weighted, join_loras
from lib_merge.lora.summary import summarise_lora
from tests.lora import makers
from tests.lora.test_bake import few_tensors

SHAPES = {makers.TO_Q: (20, 16), makers.TO_K2: (16, 768), makers.CONV: (12, 8, 3, 3)}


def lora(path, seed, *, kinds=("lora",) * 3, rank=3):
    """A LoRA of three modules; its changes by module."""
    modules, changes = [], {}
    for number, (name, shape) in enumerate(SHAPES.items()):
        kind = kinds[number]
        tensors = makers.module(kind, name, shape, rank=rank, seed=seed + 10 * number)
        modules.append(tensors)
        parts = makers.parts_of(tensors, name)
        changes[name] = makers.change_of(kind, parts, torch.zeros(shape))
    makers.save(path, *modules)
    return changes


def changes_in(path):
    """The changes that a written LoRA makes, by module."""
    tensors = load_file(str(path))
    found = {}
    for name, shape in SHAPES.items():
        parts = makers.parts_of(tensors, name)
        if "diff" in parts:
            found[name] = parts["diff"].double()
        elif parts:
            found[name] = makers.change_of("lora", parts, torch.zeros(shape))
    return found


def weighted(path, value=1.0, **blocks):
    """An input."""
    pairs = tuple((BlockId(block), weight) for block, weight in blocks.items())
    return Weighted(str(path), Setting(value, pairs))


def close(found, wanted, **options):
    assert set(found) == set(wanted)
    options = {"rtol": 1e-5, "atol": 1e-6, **options}
    for name, change in wanted.items():
        torch.testing.assert_close(found[name], change, **options)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    weights=st.lists(
        st.floats(-2, 2).filter(lambda w: abs(w) > 1e-3), min_size=1, max_size=4
    ),
    rank=st.integers(1, 6),
)
def test_concatenation_is_the_sum_of_the_changes(weights, rank, tmp_path):
    inputs, total = [], {}
    for number, weight in enumerate(weights):
        path = tmp_path / f"{number}.safetensors"
        for name, change in lora(path, 100 * number, rank=rank).items():
            total[name] = total.get(name, 0) + weight * change
        inputs.append(weighted(path, weight))
    out = tmp_path / "out.safetensors"
    joined = join_loras(inputs, out, overwrite=True)
    close(changes_in(out), total)
    assert joined.arch_id == "sd1"
    assert joined.n_modules == 3
    assert joined.ranks[1] == min(rank * len(weights), 16)
    assert joined.share == 1.0


def test_weights_are_by_block(tmp_path):
    changes = lora(tmp_path / "a.safetensors", 0)
    out = tmp_path / "out.safetensors"
    tensors = load_file(str(tmp_path / "a.safetensors"))
    text = makers.module("lora", makers.TEXT, (9, 8), seed=77)
    save_file(tensors | text, str(tmp_path / "a.safetensors"))
    join_loras([weighted(tmp_path / "a.safetensors", 0.5, BASE=0.25, IN01=2.0)], out)
    close(changes_in(out), {name: 2.0 * change for name, change in changes.items()})
    parts = makers.parts_of(load_file(str(out)), makers.TEXT)
    wanted = makers.change_of(
        "lora", makers.parts_of(text, makers.TEXT), torch.zeros(9, 8)
    )
    found = makers.change_of("lora", parts, torch.zeros(9, 8))
    torch.testing.assert_close(found, 0.25 * wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kinds", [("loha", "lokr", "loha"), ("lokr", "full", "full")])
def test_decomposition_takes_every_kind(kinds, tmp_path):
    one = lora(tmp_path / "a.safetensors", 0, kinds=kinds)
    two = lora(tmp_path / "b.safetensors", 50)
    out = tmp_path / "out.safetensors"
    inputs = [weighted(tmp_path / "a.safetensors", 0.5)]
    inputs += [weighted(tmp_path / "b.safetensors", -1.0)]
    joined = join_loras(inputs, out, keep=Keep(rank=99), dtype=DType.F32)
    close(changes_in(out), {name: 0.5 * one[name] - two[name] for name in one})
    assert joined.share == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    "keep",
    [Keep(rank=2), Keep(energy=0.8), Keep(rank=3, energy=0.5), Keep(5, is_quick=True)],
    ids=["rank", "energy", "both", "quick"],
)
def test_decomposition_is_the_best_of_its_rank(keep, tmp_path):
    changes = lora(tmp_path / "a.safetensors", 0, kinds=("full",) * 3)
    out = tmp_path / "out.safetensors"
    join_loras([weighted(tmp_path / "a.safetensors")], out, keep=keep, dtype=DType.F32)
    for name, found in changes_in(out).items():
        change = changes[name].flatten(1)
        left, sizes, right = torch.linalg.svd(change, full_matrices=False)
        rank = keep.rank or 99
        if keep.energy is not None:
            share = sizes.square().cumsum(0) / sizes.square().sum()
            rank = min(rank, 1 + int((share < keep.energy).sum()))
        best = left[:, :rank] * sizes[:rank] @ right[:rank]
        slack = 1.02 if keep.is_quick else 1.0 + 1e-5
        assert (found.flatten(1) - change).norm() <= slack * (best - change).norm()
        up = load_file(str(out))[f"{name}.lora_up.weight"]
        assert up.shape[1] == rank


@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    rank=st.integers(1, 6),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_change_of_low_rank_comes_back_exactly(rows, columns, rank, scale):
    rank = min(rank, rows, columns)
    up = makers.draw(1, rows, rank).double() * scale
    down = makers.draw(2, rank, columns).double()
    for found in (
        factorise(up @ down, Keep(rank=rank)),
        factorise_product(up, down, Keep(rank=rank)),
    ):
        assert found is not None
        torch.testing.assert_close(
            found.up @ found.down, up @ down, rtol=1e-6, atol=1e-8 * scale
        )
        assert found.rank <= rank


def test_nothing_has_no_factors():
    assert factorise(torch.zeros(4, 5), Keep(rank=2)) is None
    zero = torch.zeros(4, 1, dtype=torch.float64)
    assert factorise_product(zero, zero.mT, Keep(rank=2)) is None


def test_hundreds_make_a_soup(tmp_path):
    one = lora(tmp_path / "a.safetensors", 0)
    two = lora(tmp_path / "b.safetensors", 50)
    inputs = [
        weighted(tmp_path / f"{name}.safetensors", 1 / 200) for name in "ab" * 100
    ]
    out = tmp_path / "out.safetensors"
    joined = join_loras(inputs, out, keep=Keep(rank=6), dtype=DType.F32)
    close(changes_in(out), {name: (one[name] + two[name]) / 2 for name in one})
    assert joined.ranks == (6, 6)


def test_parts_of_a_fused_tensor_are_joined_with_the_whole(tmp_path):
    part = "transformer.transformer_blocks.0.attn.to_k"
    whole = "lora_unet_double_blocks_0_img_attn_qkv"
    k = makers.module("lora", part, (6, 10), seed=1)
    qkv = makers.module("lora", whole, (18, 10), seed=2)
    one = makers.save(tmp_path / "a.safetensors", k)
    two = makers.save(tmp_path / "b.safetensors", qkv)
    out = tmp_path / "out.safetensors"
    joined = join_loras([weighted(one, 2.0), weighted(two)], out)
    assert joined.arch_id == "flux"
    wanted = makers.change_of("lora", makers.parts_of(qkv, whole), torch.zeros(18, 10))
    wanted[6:12] += 2.0 * makers.change_of(
        "lora", makers.parts_of(k, part), torch.zeros(6, 10)
    )
    parts = makers.parts_of(load_file(str(out)), whole)
    found = makers.change_of("lora", parts, torch.zeros(18, 10))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_what_has_no_name_to_write_is_reported(tmp_path):
    tensors = makers.module("lora", "transformer.x_embedder", (8, 6))
    tensors["transformer.transformer_blocks.0.attn.norm_q.w_norm"] = torch.ones(4)
    tensors |= makers.module("lora", "lora_unet_nobody", (8, 6))
    path = makers.save(tmp_path / "a.safetensors", tensors)
    joined = join_loras([weighted(path)], tmp_path / "out.safetensors")
    assert "has 2 modules or tensors" in joined.warnings[0]
    assert "attn.norm_q" in joined.warnings[0]


def test_result_says_what_it_was_made_of(tmp_path):
    lora(tmp_path / "a.safetensors", 0)
    out = tmp_path / "out.safetensors"
    join_loras([weighted(tmp_path / "a.safetensors", 0.5)], out)
    metadata = read_header(out).metadata
    assert metadata["ss_base_model_version"] == "sd_v1"
    assert metadata["ss_network_dim"] == "3"
    assert '"a.safetensors"' in metadata["mergelab_lora"]


def test_result_appears_whole_or_not_at_all(tmp_path):
    lora(tmp_path / "a.safetensors", 0)
    progress = JobProgress(lambda snapshot: progress.cancel())
    with pytest.raises(Cancelled):
        join_loras(
            [weighted(tmp_path / "a.safetensors")],
            tmp_path / "out.safetensors",
            progress=progress,
        )
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_join_refuses_what_it_cannot_do(tmp_path):
    out = tmp_path / "out.safetensors"
    lora(tmp_path / "a.safetensors", 0)
    lora(tmp_path / "dora.safetensors", 0, kinds=("dora", "lora", "lora"))
    lora(tmp_path / "loha.safetensors", 0, kinds=("loha", "lora", "lora"))
    xl = makers.module("lora", "lora_unet_double_blocks_0_img_mlp_0", (8, 8))
    makers.save(tmp_path / "flux.safetensors", xl)
    names = ("a", "dora", "loha", "flux")
    a, dora, loha, flux = (weighted(tmp_path / f"{n}.safetensors") for n in names)
    with pytest.raises(RecipeError, match="holds DoRA, whose change depends") as caught:
        join_loras([dora, loha], out)
    assert "holds LoHa, which cannot be concatenated" in str(caught.value)
    with pytest.raises(InputError, match="different architectures"):
        join_loras([a, flux], out)
    with pytest.raises(InputError, match="No LoRA is named"):
        join_loras([], out)
    with pytest.raises(RecipeError, match="has no block 'IN99'"):
        join_loras([weighted(tmp_path / "a.safetensors", 1.0, IN99=1.0)], out)
    with pytest.raises(InputError, match="Nothing is left"):
        join_loras([weighted(tmp_path / "a.safetensors", 0.0)], out)
    with pytest.raises(OutputError, match="is the input"):
        join_loras([a], tmp_path / "a.safetensors", overwrite=True)
    with pytest.raises(NonFiniteError, match="does not fit float16"):
        join_loras([weighted(tmp_path / "a.safetensors", 1e12)], out, dtype=DType.F16)
    assert not out.exists()


def test_join_refuses_loras_of_different_sizes(tmp_path):
    lora(tmp_path / "a.safetensors", 0)
    tensors = makers.module("lora", makers.TO_Q, (40, 16))
    makers.save(tmp_path / "b.safetensors", tensors)
    inputs = [weighted(tmp_path / f"{name}.safetensors") for name in "ab"]
    with pytest.raises(InputError, match=r"of different sizes in .* 40 by 16"):
        join_loras(inputs, tmp_path / "out.safetensors")


@pytest.fixture
def pair(tmp_path):
    """A base, the LoRA baked into it, and the LoRA's changes by key."""
    base = few_tensors(dtype=torch.float32)
    save_file(base, str(tmp_path / "base.safetensors"))
    modules, changes = [], {}
    for name, key in makers.KEY_OF.items():
        shape = tuple(base[key].shape)
        rank = max(1, min(2, min(shape[:2])))
        tensors = makers.module("lora", name, shape, rank=rank)
        modules.append(tensors)
        parts = makers.parts_of(tensors, name)
        changes[name] = makers.change_of("lora", parts, base[key])
    makers.save(tmp_path / "lora.safetensors", *modules)
    nodes = (
        ModelNode(str(tmp_path / "base.safetensors")),
        LoraNode(str(tmp_path / "lora.safetensors"), 0),
    )
    recipe = Recipe(nodes=nodes, save_dtype=DType.F32)
    merge_to_file(recipe, tmp_path / "model.safetensors")
    return tmp_path, changes


@pytest.mark.parametrize("keep", [Keep(rank=2), Keep(energy=1.0)], ids=["rank", "all"])
def test_baking_and_extracting_gives_the_change_back(keep, pair):
    folder, changes = pair
    out = folder / "out.safetensors"
    wanted = Wanted(keep, DType.F32)
    files = (folder / "model.safetensors", folder / "base.safetensors")
    found = extract_lora(*files, out, wanted)
    assert found.n_modules == 4
    assert found.share == pytest.approx(1.0, abs=1e-6)
    tensors = load_file(str(out))
    for name, change in changes.items():
        parts = makers.parts_of(tensors, name)
        mine = makers.change_of("lora", parts, change)
        torch.testing.assert_close(mine, change, rtol=1e-3, atol=2e-6)


def test_extraction_of_components_and_vectors(pair):
    folder, _ = pair
    model = load_file(str(folder / "model.safetensors"))
    bias = makers.CONV_KEY.replace(".weight", ".bias")
    norm = "model.diffusion_model.input_blocks.1.1.norm.weight"
    model[bias] = model[bias] + 1.0
    model[norm] = model[norm] + 2.0
    save_file(model, str(folder / "model.safetensors"))
    files = (folder / "model.safetensors", folder / "base.safetensors")
    from lib_merge.core.blocks import Component

    plain = Wanted(Keep(rank=1), DType.F32, (Component.UNET,))
    found = extract_lora(*files, folder / "a.safetensors", plain)
    assert "2 differences of biases, norms or embeddings" in found.warnings[0]
    names = load_file(str(folder / "a.safetensors"))
    assert not any(name.startswith("lora_te") for name in names)
    whole = Wanted(Keep(rank=1), DType.F32, has_vectors=True)
    extract_lora(*files, folder / "b.safetensors", whole)
    names = load_file(str(folder / "b.safetensors"))
    assert torch.allclose(names[f"{makers.CONV}.diff_b"], torch.tensor(1.0))
    module = "lora_unet_down_blocks_0_attentions_0_norm"
    assert torch.allclose(names[f"{module}.w_norm"], torch.tensor(2.0))


def test_extraction_refuses_what_has_no_difference(pair):
    folder, _ = pair
    files = (folder / "base.safetensors", folder / "base.safetensors")
    with pytest.raises(InputError, match="are equal in all that a LoRA"):
        extract_lora(*files, folder / "out.safetensors", Wanted(Keep(rank=2)))
    assert not (folder / "out.safetensors").exists()


def test_summary_has_kinds_ranks_norms_and_words(tmp_path):
    changes = lora(tmp_path / "a.safetensors", 0, kinds=("lora", "loha", "lora"))
    tensors = load_file(str(tmp_path / "a.safetensors"))
    tags = '{"1_set": {"red hair": 5, "smile": 2}, "2_set": {"smile": 9}}'
    metadata = {"ss_tag_frequency": tags, "ss_output_name": "style"}
    save_file(tensors, str(tmp_path / "a.safetensors"), metadata)
    found = summarise_lora(tmp_path / "a.safetensors")
    assert found.label == "Stable Diffusion 1.x"
    assert found.kinds == {"LoRA": 2, "LoHa": 1}
    assert found.ranks == {3: 3}
    assert found.tags == (("smile", 11), ("red hair", 5))
    assert found.words == {"ss_output_name": "style"}
    norm = sum(float(change.square().sum()) for change in changes.values()) ** 0.5
    assert found.norms == {BlockId("IN01"): pytest.approx(norm, rel=1e-9)}
