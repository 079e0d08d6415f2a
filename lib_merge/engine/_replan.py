"""Planning again for other numbers: trial after trial merges the same models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib_merge.arch import architectures
from lib_merge.checkpoint.header import FileState, file_state
from lib_merge.core.blocks import BlockId
from lib_merge.core.plan import KeyTask, MergeOp, ParamValue, Plan
from lib_merge.core.recipe import MergeNode, ModelNode, Recipe
from lib_merge.engine._settings import node_problems, node_values
from lib_merge.engine.planning import plan_recipe
from lib_merge.errors import MergeError

_DEPENDS_ON_NUMBERS = frozenset({"add_difference"})
"""Methods whose numbers decide which tensors they can merge at all."""


@dataclass(frozen=True)
class _Planned:
    """A plan, and what it was made from."""

    given: Recipe
    folders: tuple[str, ...]
    plan: Plan
    states: tuple[FileState, ...]


class Planner:
    """Plans recipes; one that differs from the last in numbers alone costs little."""

    def __init__(self) -> None:
        self._last: _Planned | None = None

    def plan(
        self, recipe: Recipe, folders: Sequence[str | os.PathLike[str]] = ()
    ) -> Plan:
        """What `plan_recipe` gives.

        Raises:
            RecipeError: Everything wrong with the recipe.
        """
        places = tuple(os.fspath(folder) for folder in folders)
        last = self._last
        plan = None
        if last is not None and last.folders == places and _are_same(last):
            plan = _with_numbers(last, recipe)
        if plan is None:
            plan = plan_recipe(recipe, folders)
        self._last = _Planned(recipe, places, plan, _states(plan))
        return plan


def _states(plan: Plan) -> tuple[FileState, ...]:
    return tuple(file_state(Path(file.path)) for _, file in plan.recipe.files())


def _are_same(last: _Planned) -> bool:
    """Whether the files are those that were planned with."""
    try:
        return _states(last.plan) == last.states
    except (OSError, MergeError):
        return False


def _with_numbers(last: _Planned, recipe: Recipe) -> Plan | None:
    """The last plan with a recipe's numbers; None where more than they differ."""
    old, new = last.given.nodes[-1], recipe.nodes[-1]
    if not isinstance(old, MergeNode) or not isinstance(new, MergeNode):
        return None
    if replace(recipe, nodes=(*recipe.nodes[:-1], old)) != last.given:
        return None
    if replace(new, params=old.params) != old or not _is_plain(recipe, new):
        return None
    architecture = architectures().get(last.plan.arch_id)
    if node_problems(len(recipe.nodes) - 1, new, architecture):
        return None
    values = node_values(new, architecture)
    if values.warnings != node_values(old, architecture).warnings:
        return None
    by_block: dict[BlockId, tuple[tuple[str, ParamValue], ...]] = {}

    def renewed(task: KeyTask) -> KeyTask:
        if not isinstance(task.op, MergeOp):
            return task
        if task.block not in by_block:
            by_block[task.block] = values.for_key("", task.block)
        params = by_block[task.block]
        if params == task.op.params:
            return task
        return replace(task, op=replace(task.op, params=params))

    planned = last.plan.recipe
    return replace(
        last.plan,
        recipe=replace(planned, nodes=(*planned.nodes[:-1], _moved(new, planned))),
        tasks=tuple(renewed(task) for task in last.plan.tasks),
    )


def _moved(node: MergeNode, planned: Recipe) -> MergeNode:
    """The new node with the planned one's inputs."""
    old = planned.nodes[-1]
    assert isinstance(old, MergeNode)
    return replace(old, params=node.params)


def _is_plain(recipe: Recipe, node: MergeNode) -> bool:
    """Whether one method merges model files, and its numbers go by block alone."""
    are_models = all(isinstance(part, ModelNode) for part in recipe.nodes[:-1])
    by_block = not any(setting.rules for _, setting in node.params)
    return are_models and by_block and node.method not in _DEPENDS_ON_NUMBERS
