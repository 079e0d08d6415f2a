"""Reads the LoRAs of a recipe and fits them to its first model, faults gathered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lib_merge.checkpoint.header import Header
from lib_merge.core.blocks import Architecture, KeyInfos
from lib_merge.core.recipe import LoraNode, Recipe
from lib_merge.engine.layouts import output_layout
from lib_merge.errors import CheckpointError
from lib_merge.lora.file import read_lora
from lib_merge.lora.fit import BoundLora, absent, bind, misfits

_N_NAMED = 5


def bound_loras(
    recipe: Recipe, headers: Mapping[int, Header], architecture: Architecture
) -> tuple[dict[int, BoundLora], list[str], list[str]]:
    """Every LoRA of a recipe, read for the architecture of its models.

    Args:
        recipe: With files that were found.
        headers: By model node index.
        architecture: Of all models.

    Returns:
        LoRAs by node index; problems; and warnings that name what is not applied.
    """
    found: dict[int, BoundLora] = {}
    problems, warnings = [], []
    first = headers.get(recipe.first_model())
    for index, node in enumerate(recipe.nodes):
        if not isinstance(node, LoraNode):
            continue
        try:
            bound = bind(read_lora(node.path), architecture.id)
        except CheckpointError as fault:
            problems.append(str(fault))
            continue
        found[index] = bound
        if first is not None:
            infos = output_layout(recipe, first).infos
            problems += misfits(bound, infos, str(first.path))
            warnings += _warnings(bound, infos, first)
    return found, list(dict.fromkeys(problems)), list(dict.fromkeys(warnings))


def _warnings(bound: BoundLora, infos: KeyInfos, first: Header) -> list[str]:
    name = bound.lora.path.name
    warnings = []
    if bound.strangers:
        warnings.append(
            f"{name} has {_listed(bound.strangers)} that mean nothing in this "
            "architecture; they are not applied."
        )
    missing = absent(bound, infos)
    if missing:
        warnings.append(
            f"{name} changes {_listed(missing)} that {first.path.name} lacks; they are "
            "not applied."
        )
    return warnings


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_N_NAMED])
    more = ", ..." if len(names) > _N_NAMED else ""
    return f"{len(names)} module{'s' if len(names) > 1 else ''} ({shown}{more})"
