"""A merge node's settings against its method and architecture."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from lib_merge.core.blocks import Architecture, BlockId, Component
from lib_merge.core.method import MergeMethod
from lib_merge.core.params import STRENGTH, ParamSpec, split_name
from lib_merge.core.plan import LoraOp, Op, ParamValue
from lib_merge.core.recipe import LoraNode, MergeNode, Rule, SelectNode, Setting
from lib_merge.core.resolved import ParamValues, resolved
from lib_merge.errors import InputError
from lib_merge.lora.fit import BoundLora
from lib_merge.methods import methods


def node_problems(index: int, node: MergeNode, architecture: Architecture) -> list[str]:
    """Every fault in a node's parameters.

    Args:
        index: Its place in the recipe, for messages.
        node: The merge.
        architecture: Of its models; block names are checked against it.
    """
    if node.method not in methods():
        return []
    method = methods().get(node.method)
    where = f"Node {index} ({node.method})"
    problems = []
    for name, setting in node.params:
        stem, position = split_name(name)
        spec = method.param(stem)
        fault = _name_fault(name, spec, position, method, n_pool(node, method))
        if fault is not None or spec is None:
            problems.append(f"{where}: {fault}")
            continue
        problems += [
            f"{where}: {text}"
            for text in _setting_problems(spec, setting, architecture)
        ]
    return problems


def n_pool(node: MergeNode, method: MergeMethod) -> int:
    """How many models of a node are its method's pool."""
    return len(node.inputs) - method.n_single if method.is_pool else 0


def _name_fault(
    name: str,
    spec: ParamSpec | None,
    position: int | None,
    method: MergeMethod,
    n_models: int,
) -> str | None:
    if spec is None:
        known = ", ".join(p.name for p in method.params) or "none"
        return f"{method.id} has no parameter '{name}'; it has: {known}."
    if position is not None and not spec.param.per_model:
        return f"{spec.name} is one number for all models; leave out '@' in '{name}'."
    if position is not None and position >= n_models:
        return f"{name} is of model {position + 1}, but the pool has {n_models}."
    return None


def select_problems(
    index: int, node: SelectNode, architecture: Architecture
) -> list[str]:
    """Every unknown block in a node's picks.

    Args:
        index: Its place in the recipe, for messages.
        node: The selection.
        architecture: Of its models.
    """
    return [
        f"Node {index} (select): {architecture.label} has no block or component "
        f"'{name}'; it has {', '.join(architecture.block_ids())}, BASE for the text "
        "encoders, component names, and ranges such as IN04-IN07."
        for pick in node.picks
        for name in pick.blocks
        if not architecture.expand(name)
    ]


@dataclass(frozen=True)
class SelectValues:
    """A selection with block names expanded and patterns compiled."""

    picks: tuple[tuple[int, frozenset[BlockId], re.Pattern[str] | None], ...]

    def input_for(self, key: str, block: BlockId) -> int:
        """Which input (by position) a key is taken from."""
        for position, blocks, pattern in reversed(self.picks):
            is_block = not blocks or block in blocks
            if is_block and (pattern is None or pattern.search(key)):
                return position
        return 0


def select_values(node: SelectNode, architecture: Architecture) -> SelectValues:
    """Resolve a selection that has no problems."""
    return SelectValues(
        tuple(
            (
                pick.input,
                frozenset(b for name in pick.blocks for b in architecture.expand(name)),
                re.compile(pick.pattern) if pick.pattern else None,
            )
            for pick in node.picks
        )
    )


def lora_problems(index: int, node: LoraNode, architecture: Architecture) -> list[str]:
    """Every fault in a LoRA's strengths.

    Args:
        index: Its place in the recipe, for messages.
        node: The LoRA.
        architecture: Of the model that it changes.
    """
    found = _setting_problems(STRENGTH, node.strength, architecture)
    return [f"Node {index} ({PurePath(node.path).name}): {text}" for text in found]


@dataclass(frozen=True)
class LoraValues:
    """A LoRA's strengths with block names expanded, and what it changes."""

    bound: BoundLora
    strength: ParamValues

    def operation(self, index: int, base: Op, key: str, block: BlockId) -> Op:
        """The base with the LoRA's change of a tensor added, or as it is.

        Args:
            index: The LoRA's node.
            base: What is changed.
            key: The tensor.
            block: Where it belongs.
        """
        placed = self.bound.at(key)
        strength = self.strength.value_for(key, block) if placed else 0.0
        if strength == 0.0:
            return base
        return LoraOp(
            lora=index,
            base=base,
            strength=strength,
            arch_id=self.bound.arch_id,
            needs_base=any(p.module.needs_base for p in placed),
            n_factors=sum(p.module.n_factors for p in placed),
        )


def lora_values(
    node: LoraNode, bound: BoundLora, architecture: Architecture
) -> LoraValues:
    """Resolve a LoRA whose strengths have no problems."""
    strength = resolved("strength", node.strength, architecture)
    return LoraValues(bound, strength)


def _setting_problems(
    spec: ParamSpec, setting: Setting, architecture: Architecture
) -> Iterator[str]:
    values = [("everywhere", setting.value)]
    values += [(f"block {name}", value) for name, value in setting.blocks]
    values += [(f"rule {_rule_text(rule)}", rule.value) for rule in setting.rules]
    for where, value in values:
        try:
            spec.check(value, where)
        except InputError as fault:
            yield str(fault)
    if not spec.param.per_block and (setting.blocks or setting.rules):
        yield f"{spec.name} is one number for all blocks; leave out its block values."
    named = [name for name, _ in setting.blocks]
    named += [name for rule in setting.rules for name in rule.blocks]
    for name in dict.fromkeys(named):
        if not architecture.expand(name):
            yield (
                f"{spec.name}: {architecture.label} has no block '{name}'; it has "
                f"{', '.join(architecture.block_ids())}, BASE for the text encoders, "
                "and ranges such as IN04-IN07."
            )
    for rule in setting.rules:
        try:
            re.compile(rule.pattern)
        except re.error as fault:
            yield (
                f"{spec.name}: the rule pattern {rule.pattern!r} is no regular "
                f"expression ({fault}); put a backslash before special signs."
            )


def _rule_text(rule: Rule) -> str:
    return f"{'+'.join(rule.blocks) or 'any'}:{rule.pattern or 'any'}"


@dataclass(frozen=True)
class NodeValues:
    """All parameters of a node, every declared one included."""

    params: tuple[tuple[str, ParamValues | tuple[ParamValues, ...]], ...]
    """By name; one for each model of the pool where a parameter is per model."""

    warnings: tuple[str, ...]

    def for_key(self, key: str, block: BlockId) -> tuple[tuple[str, ParamValue], ...]:
        """(name, value) of every declared parameter for one key."""
        found: list[tuple[str, ParamValue]] = []
        for name, values in self.params:
            if isinstance(values, tuple):
                found.append((name, tuple(v.value_for(key, block) for v in values)))
            else:
                found.append((name, values.value_for(key, block)))
        return tuple(found)


def node_values(node: MergeNode, architecture: Architecture) -> NodeValues:
    """Resolve a node whose settings have no problems.

    Args:
        node: The merge.
        architecture: Of its models.
    """
    given = dict(node.params)
    method = methods().get(node.method)
    params: list[tuple[str, ParamValues | tuple[ParamValues, ...]]] = []
    warnings: list[str] = []
    for spec in method.params:
        setting = given.get(spec.name, Setting(spec.default))
        values = resolved(spec.name, setting, architecture)
        warnings += _idle_blocks(node, spec.name, setting, architecture)
        if not spec.param.per_model:
            params.append((spec.name, values))
            continue
        each = []
        for position in range(n_pool(node, method)):
            own = given.get(f"{spec.name}@{position + 1}")
            each.append(
                values if own is None else resolved(spec.name, own, architecture)
            )
        params.append((spec.name, tuple(each)))
    return NodeValues(tuple(params), tuple(warnings))


def _idle_blocks(
    node: MergeNode, name: str, setting: Setting, architecture: Architecture
) -> Iterator[str]:
    """Values for blocks whose component is copied, not blended."""
    component_of = {block.id: block.component for block in architecture.blocks}
    for block, _ in setting.blocks:
        for block_id in architecture.expand(block):
            component = component_of[block_id]
            if component not in node.components:
                hint = (
                    f"add it with --components (now: "
                    f"{', '.join(c.value for c in node.components)})"
                )
                if component is Component.SCHEDULE:
                    hint = "schedule constants are always copied"
                yield (
                    f"{name} of block {block_id} has no effect: its component "
                    f"{component.value} is taken from the first model; {hint}."
                )
