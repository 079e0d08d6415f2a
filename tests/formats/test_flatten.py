"""Leaf weights: by hand on small graphs, against the engine, and in time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.dtypes import DType
from lib_merge.core.recipe import (
    MergeNode,
    ModelNode,
    Node,
    Pick,
    Recipe,
    Rule,
    SelectNode,
    Setting,
)
from lib_merge.engine.save import merge_to_file
from lib_merge.errors import RecipeError
from lib_merge.formats.flatten import flat_recipe, flatten, grouped
from lib_merge.formats.orders import WHOLE
from tests.formats.mecha_runs import assert_same, write_models
from tests.formats.reading import leaves

M = tuple(ModelNode(f"m{i}.safetensors") for i in range(4))


def recipe(*nodes: Node) -> Recipe:
    return Recipe((*M, *nodes), compute_dtype=DType.F64, save_dtype=DType.F64)


def merge(method: str, *inputs: int, **params: float) -> MergeNode:
    settings = tuple((name, Setting(value)) for name, value in params.items())
    return MergeNode(method, inputs, settings, WHOLE)


@pytest.mark.parametrize(
    ("node", "wanted"),
    [
        (merge("weighted_sum", 0, 1, alpha=0.25), [0.75, 0.25, 0, 0]),
        (merge("add_difference", 0, 1, 2, alpha=0.5), [1, 0.5, -0.5, 0]),
        (merge("triple_sum", 0, 1, 2, alpha=0.25, beta=0.5), [0.25, 0.25, 0.5, 0]),
        (merge("sum_twice", 0, 1, 2, alpha=0.5, beta=0.2), [0.4, 0.4, 0.2, 0]),
        (merge("amplify_difference", 0, 1, alpha=2.0), [-1, 2, 0, 0]),
        (merge("uniform_soup", 0, 1, 2, 3), [0.25] * 4),
        (merge("task_arithmetic", 0, 1, 2, lam=0.5, weight=0.5), [0.5, 0.25, 0.25, 0]),
        (
            merge("weighted_subtraction", 0, 1, alpha=0.5, beta=0.5),
            [4 / 3, -1 / 3, 0, 0],
        ),
        (merge("scale", 0, alpha=0.5), [0.5, 0, 0, 0]),
        (merge("uniform_soup", 0, 0, 1), [2 / 3, 1 / 3, 0, 0]),
    ],
    ids=lambda value: value.method if isinstance(value, MergeNode) else "",
)
def test_leaf_weights_of_one_merge(node: MergeNode, wanted: list[float]) -> None:
    found = leaves(recipe(node))
    assert [found.get(model.path, 0.0) for model in M] == pytest.approx(wanted)


def test_weights_of_models_and_blocks_are_kept_apart() -> None:
    alpha = Setting(0.5, ((BlockId("IN00-IN02"), 0.1), (BlockId("IN01"), 0.9)))
    node = MergeNode("weighted_sum", (0, 1), (("alpha", alpha),), (Component.UNET,))
    flat = flatten(recipe(node))
    shares = {
        cell.block: flat.leaves[1].weights[place]
        for place, cell in enumerate(flat.cells)
    }
    assert [shares[BlockId(b)] for b in ("IN00", "IN01", "IN03")] == [0.1, 0.9, 0.5]
    assert shares[BlockId("CLIP_L")] == shares[BlockId("VAE")] == 0.0


def test_selection_gives_a_block_whole_to_its_model() -> None:
    node = merge("weighted_sum", 0, 1, alpha=0.5)
    pick = SelectNode((4, 2), (Pick(1, (BlockId("CLIP_L"),)),))
    whole = recipe(node, pick)
    assert leaves(whole, "CLIP_L") == {
        M[0].path: 0.0,
        M[1].path: 0.0,
        M[2].path: 1.0,
    }


def test_rules_for_layers_have_weights_of_their_own() -> None:
    alpha = Setting(0.5, (), (Rule(1.0, (), "attn"),))
    node = MergeNode("weighted_sum", (0, 1), (("alpha", alpha),), WHOLE)
    names = [name for name, _ in grouped(flatten(recipe(node)))]
    assert any("/attn/" in name for name in names)


def test_merge_that_is_not_linear_stays_and_is_named() -> None:
    node = merge("ties", 0, 1, 2)
    flat = flatten(recipe(node, merge("weighted_sum", 3, 4, alpha=0.25)))
    assert [leaf.name for leaf in flat.leaves] == [M[3].path, "node 4 (ties)"]
    assert "not linear" in flat.kept[0]
    with pytest.raises(RecipeError, match="not linear"):
        flat_recipe(flat)


def test_flat_recipe_merges_to_the_same_tensors(tmp_path: Path) -> None:
    write_models(tmp_path, 4)
    blocks = Setting(0.3, ((BlockId("IN11"), 0.8), (BlockId("BASE"), 0.1)))
    inner = MergeNode("weighted_sum", (0, 1), (("alpha", blocks),))
    chain = recipe(inner, merge("uniform_soup", 4, 2, 3))
    results = []
    for name, one in (("chain", chain), ("flat", flat_recipe(flatten(chain, "sd1")))):
        merge_to_file(one, tmp_path / f"{name}.safetensors", folders=[tmp_path])
        results.append(load_file(tmp_path / f"{name}.safetensors"))
    assert_same(*results)


def test_chain_of_257_models_takes_under_a_second() -> None:
    models = [ModelNode(f"m{i}.safetensors") for i in range(257)]
    alpha = Setting(0.5, tuple((BlockId(f"IN{i:02d}"), i / 12) for i in range(12)))
    merges: list[Node] = []
    for i in range(1, 257):
        before = 0 if i == 1 else 255 + i
        merges.append(MergeNode("weighted_sum", (before, i), (("alpha", alpha),)))
    whole = Recipe((*models, *merges))
    flatten(whole)
    start = time.perf_counter()
    flat = flatten(whole)
    assert time.perf_counter() - start < 1.0
    assert len(flat.leaves) == 257
    for place in range(len(flat.cells)):
        assert sum(leaf.weights[place] for leaf in flat.leaves) == pytest.approx(1.0)
