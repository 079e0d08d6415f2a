"""A plan with other numbers is what planning anew would give."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lib_merge.core.blocks import BlockId
from lib_merge.core.recipe import MergeNode, Recipe, Rule, Setting, simple_recipe
from lib_merge.engine import _replan
from lib_merge.engine._replan import Planner
from lib_merge.engine.planning import plan_recipe
from lib_merge.errors import CheckpointError, RecipeError
from lib_merge.methods import methods
from tests.support.checkpoints import tiny_part, write_checkpoint

BLOCKS = ("BASE", "IN04", "M00", "OUT11", "OUT")
METHODS = ("weighted_sum", "add_difference", "weighted_mean", "ties", "slerp")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate("abc"):
        tensors = tiny_part(seed + 1, dtype=torch.float32)
        write_checkpoint(tmp_path / f"{name}.safetensors", tensors)
    return tmp_path


def recipe_of(folder: Path, method: str, draw: random.Random) -> Recipe:
    """A recipe with random numbers for every per-block parameter."""
    spec = methods().get(method)
    n_models = 3 if spec.is_pool else spec.min_models
    files = tuple(str(folder / f"{name}.safetensors") for name in "abc"[:n_models])
    params = {}
    for param in spec.block_params:
        if param.param.choices or param.param.is_integer:
            continue
        values = tuple((BlockId(b), draw.uniform(0.1, 0.9)) for b in BLOCKS)
        params[param.name] = Setting(draw.uniform(0.1, 0.9), values)
    return simple_recipe(method, files, params)


def with_last(recipe: Recipe, node: MergeNode) -> Recipe:
    """The recipe with another merge at its end."""
    return replace(recipe, nodes=(*recipe.nodes[:-1], node))


@pytest.fixture
def n_full(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts plans that were made from nothing."""
    calls: list[int] = []
    monkeypatch.setattr(
        _replan, "plan_recipe", lambda *args: calls.append(1) or plan_recipe(*args)
    )
    return calls


@pytest.mark.parametrize("method", [m for m in METHODS if m in methods()])
def test_numbers_alone_give_the_plan_that_planning_anew_gives(
    method: str, folder: Path, n_full: list[int]
) -> None:
    draw = random.Random(5)
    planner = Planner()
    for _ in range(4):
        recipe = recipe_of(folder, method, draw)
        assert planner.plan(recipe) == plan_recipe(recipe)
    assert len(n_full) == (4 if method == "add_difference" else 1)


def test_other_recipes_are_planned_anew(folder: Path, n_full: list[int]) -> None:
    draw = random.Random(5)
    planner = Planner()
    first = recipe_of(folder, "weighted_sum", draw)
    last = first.nodes[-1]
    assert isinstance(last, MergeNode)
    ruled = Setting(0.5, rules=(Rule(0.1, pattern="attn"),))
    others = [
        replace(first, keep_ema=not first.keep_ema),
        replace(first, nodes=(*first.nodes[:-1], replace(last, inputs=(1, 0)))),
        replace(
            first, nodes=(*first.nodes[:-1], replace(last, params=(("alpha", ruled),)))
        ),
    ]
    for other in (first, *others):
        assert planner.plan(other) == plan_recipe(other)
    assert len(n_full) == 4


def test_wrong_numbers_and_changed_files_are_found(folder: Path) -> None:
    draw = random.Random(5)
    planner = Planner()
    recipe = recipe_of(folder, "weighted_sum", draw)
    planner.plan(recipe)
    last = recipe.nodes[-1]
    assert isinstance(last, MergeNode)
    wrong = replace(last, params=(("alpha", Setting(0.5, ((BlockId("IN99"), 1.0),))),))
    with pytest.raises(RecipeError, match="IN99"):
        planner.plan(with_last(recipe, wrong))
    (folder / "b.safetensors").write_bytes(b"no checkpoint")
    with pytest.raises((RecipeError, CheckpointError), match=r"b\.safetensors"):
        planner.plan(recipe_of(folder, "weighted_sum", draw))
