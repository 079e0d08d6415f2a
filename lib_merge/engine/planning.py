"""Turns a recipe into a plan from headers alone, reporting every fault at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from lib_merge.checkpoint.hashes import known_sha256
from lib_merge.checkpoint.header import Header, read_header
from lib_merge.core.blocks import PLAIN, Architecture
from lib_merge.core.layouts import Layout
from lib_merge.core.plan import Plan
from lib_merge.core.recipe import LoraNode, MergeNode, Recipe, SelectNode
from lib_merge.engine._key_faults import PlanModels
from lib_merge.engine._keys import KeyPlanner, KeyPlans
from lib_merge.engine._loras import bound_loras
from lib_merge.engine._pools import equal_input_problems, pool_warnings
from lib_merge.engine._settings import (
    LoraValues,
    NodeValues,
    SelectValues,
    lora_problems,
    lora_values,
    node_problems,
    node_values,
    select_problems,
    select_values,
)
from lib_merge.engine.layouts import layout_of, output_layout
from lib_merge.engine.resolve import recipe_models
from lib_merge.errors import CheckpointError, RecipeError, UnknownIdError
from lib_merge.lora.fit import BoundLora
from lib_merge.methods import methods

__all__ = ["plan_recipe", "recipe_models"]


def plan_recipe(recipe: Recipe, folders: Sequence[str | os.PathLike[str]] = ()) -> Plan:
    """Resolve what happens to every key; of tensors a few samples are read at most.

    Args:
        recipe: Paths may be relative, or bare names of files in `folders`.
        folders: Where checkpoints lie.

    Returns:
        The plan; its recipe holds absolute paths.

    Raises:
        RecipeError: Every fault found: missing or damaged files, mixed
            architectures, missing keys and shapes that differ, unknown methods,
            parameters and blocks, values out of bounds, equal inputs.
    """
    problems: list[str] = []
    problems += _method_problems(recipe)
    try:
        recipe = recipe_models(recipe, folders)
    except RecipeError as fault:
        raise RecipeError([*problems, *fault.problems]) from fault
    headers, faults = _headers(recipe)
    problems += faults
    layouts, faults = _layouts(headers)
    problems += faults
    problems += _hash_problems(recipe)
    architecture = _architecture(recipe, layouts)
    if architecture is None:
        raise RecipeError(problems)
    warnings: list[str] = []
    for index, node in enumerate(recipe.nodes):
        if isinstance(node, MergeNode):
            problems += node_problems(index, node, architecture)
            problems += equal_input_problems(node, headers)
        elif isinstance(node, SelectNode):
            problems += select_problems(index, node, architecture)
        elif isinstance(node, LoraNode):
            problems += lora_problems(index, node, architecture)
    loras, faults, notes = bound_loras(recipe, headers, architecture)
    problems += faults
    if not problems:
        values, warnings = _all_values(recipe, architecture, loras)
        warnings += notes
        plans = KeyPlanner(recipe, _models(recipe, headers, layouts), values).plan()
        problems += plans.problems
        warnings += plans.warnings
    if problems:
        raise RecipeError(problems)
    warnings += pool_warnings(recipe, headers)
    return _plan(recipe, architecture, headers, plans, warnings)


def _plan(
    recipe: Recipe,
    architecture: Architecture,
    headers: Mapping[int, Header],
    plans: KeyPlans,
    warnings: Sequence[str],
) -> Plan:
    return Plan(
        recipe=recipe,
        arch_id=architecture.id,
        tasks=plans.tasks,
        n_bytes_in=sum(t.n_elements * t.element_bytes for t in plans.tasks),
        n_bytes_out=sum(task.n_bytes for task in plans.tasks),
        warnings=tuple(warnings),
    )


def _method_problems(recipe: Recipe) -> list[str]:
    """Faults that need no file: unknown methods and numbers of models."""
    problems = []
    for index, node in enumerate(recipe.nodes):
        if not isinstance(node, MergeNode):
            continue
        try:
            method = methods().get(node.method)
        except UnknownIdError as fault:
            problems.append(f"Node {index}: {fault}")
            continue
        if not method.accepts(len(node.inputs)):
            wanted = f"{'at least ' if method.is_pool else ''}{method.min_models}"
            problems.append(
                f"Node {index}: {method.id} takes {wanted} models, {len(node.inputs)} "
                f"given; its inputs are {', '.join(s.name for s in method.inputs)}."
            )
    return problems


def _headers(recipe: Recipe) -> tuple[dict[int, Header], list[str]]:
    headers, problems = {}, []
    for index, model in recipe.models():
        try:
            headers[index] = read_header(model.path)
        except CheckpointError as fault:
            problems.append(str(fault))
    return headers, problems


def _layouts(headers: Mapping[int, Header]) -> tuple[dict[int, Layout], list[str]]:
    """What every model is, and what speaks against merging them."""
    found: dict[int, Layout] = {}
    problems = []
    for index, header in headers.items():
        try:
            found[index] = layout_of(header)
        except CheckpointError as fault:
            problems.append(str(fault))
    if len({layout.architecture.id for layout in found.values()}) > 1:
        listed = "; ".join(
            f"{headers[index].path.name} is {_label(layout)}"
            for index, layout in found.items()
        )
        problems.append(
            f"The models are of different architectures ({listed}); "
            "merge only models of one architecture."
        )
    return found, problems


def _label(layout: Layout) -> str:
    """What people call a model."""
    label = layout.architecture.label
    return label if layout.kind == PLAIN else f"{label}, {layout.kind}"


def _architecture(recipe: Recipe, layouts: Mapping[int, Layout]) -> Architecture | None:
    """The first model's architecture, or that of one that could be read."""
    first = layouts.get(recipe.first_model()) or next(iter(layouts.values()), None)
    return first.architecture if first else None


def _models(
    recipe: Recipe, headers: Mapping[int, Header], layouts: Mapping[int, Layout]
) -> PlanModels:
    first = recipe.first_model()
    output = output_layout(recipe, headers[first])
    return PlanModels(headers, layouts, first, output)


def _hash_problems(recipe: Recipe) -> list[str]:
    problems = []
    for _, model in recipe.files():
        if model.sha256 is None or not Path(model.path).is_file():
            continue
        known = known_sha256(model.path)
        if known not in (None, model.sha256):
            problems.append(
                f"{model.path} has SHA-256 {known[:10] if known else ''}, the recipe "
                f"wants {model.sha256[:10]}; give the folder of the right file."
            )
    return problems


def _all_values(
    recipe: Recipe, architecture: Architecture, loras: Mapping[int, BoundLora]
) -> tuple[dict[int, NodeValues | SelectValues | LoraValues], list[str]]:
    values: dict[int, NodeValues | SelectValues | LoraValues] = {}
    warnings: list[str] = []
    for index, node in enumerate(recipe.nodes):
        if isinstance(node, MergeNode):
            found = node_values(node, architecture)
            values[index] = found
            warnings += found.warnings
        elif isinstance(node, SelectNode):
            values[index] = select_values(node, architecture)
        elif isinstance(node, LoraNode):
            values[index] = lora_values(node, loras[index], architecture)
    return values, warnings
