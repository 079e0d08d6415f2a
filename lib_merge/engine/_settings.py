"""A merge node's settings against its method and architecture."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lib_merge.core.blocks import Architecture, BlockId, Component
from lib_merge.core.params import ParamSpec
from lib_merge.core.recipe import MergeNode, Rule, Setting
from lib_merge.errors import InputError
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
    problems = []
    for name, setting in node.params:
        where = f"Node {index} ({node.method})"
        spec = method.param(name)
        if spec is None:
            known = ", ".join(p.name for p in method.params) or "none"
            problems.append(
                f"{where}: {node.method} has no parameter '{name}'; it has: {known}."
            )
            continue
        problems += [
            f"{where}: {text}"
            for text in _setting_problems(spec, setting, architecture)
        ]
    return problems


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
class ParamValues:
    """One parameter over all keys, block names expanded and patterns compiled."""

    name: str
    default: float
    blocks: dict[BlockId, float]
    rules: tuple[tuple[float, frozenset[BlockId], re.Pattern[str] | None], ...]

    def value_for(self, key: str, block: BlockId) -> float:
        """As `Setting.value_for`: the last rule, then the block, then the default."""
        for value, blocks, pattern in reversed(self.rules):
            is_block = not blocks or block in blocks
            if is_block and (pattern is None or pattern.search(key)):
                return value
        return self.blocks.get(block, self.default)


@dataclass(frozen=True)
class NodeValues:
    """All parameters of a node, every declared one included."""

    params: tuple[ParamValues, ...]
    warnings: tuple[str, ...]

    def for_key(self, key: str, block: BlockId) -> tuple[tuple[str, float], ...]:
        """(name, value) of every declared parameter for one key."""
        return tuple((p.name, p.value_for(key, block)) for p in self.params)


def node_values(node: MergeNode, architecture: Architecture) -> NodeValues:
    """Resolve a node whose settings have no problems.

    Args:
        node: The merge.
        architecture: Of its models.
    """
    given = dict(node.params)
    params: list[ParamValues] = []
    warnings: list[str] = []
    for spec in methods().get(node.method).params:
        setting = given.get(spec.name, Setting(spec.default))
        params.append(_param_values(spec.name, setting, architecture))
        warnings += _idle_blocks(node, spec.name, setting, architecture)
    return NodeValues(tuple(params), tuple(warnings))


def _param_values(
    name: str, setting: Setting, architecture: Architecture
) -> ParamValues:
    blocks: dict[BlockId, float] = {}
    # Ranges first: a block that is also named alone takes its own value.
    for is_single in (False, True):
        for name_given, value in setting.blocks:
            ids = architecture.expand(name_given)
            if (len(ids) == 1) == is_single:
                blocks.update(dict.fromkeys(ids, value))
    rules = tuple(
        (
            rule.value,
            frozenset(b for name in rule.blocks for b in architecture.expand(name)),
            re.compile(rule.pattern) if rule.pattern else None,
        )
        for rule in setting.rules
    )
    return ParamValues(name, setting.value, blocks, rules)


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
