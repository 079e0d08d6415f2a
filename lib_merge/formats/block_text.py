"""Values by block, and rules for single layers, as text.

    blocks   IN04=0.7, M00=0.1, density: IN00-IN05=0.2, BASE=0
    rule     OUT03-OUT06 : attn : 0.4        density@OUT03 : attn : 0.4

What names no parameter speaks of the method's main one (`MergeMethod.block_param`).
The command line and the tab read both with the functions of this file, which add one
sentence to `problems` for everything that cannot be used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lib_merge.core.blocks import Architecture, BlockId
from lib_merge.core.method import MergeMethod
from lib_merge.core.params import ParamSpec, split_name
from lib_merge.core.recipe import Rule, Setting
from lib_merge.formats.value_text import read_value, split_pairs

_BLOCK = re.compile(
    r"(?:(?P<param>[^=:]+):)?(?P<name>[^=:]+)=(?P<value>[^=:]+)"
    r"|(?P<plain>[^=:]+):(?P<plain_value>[^=:]+)"
)


@dataclass(frozen=True)
class BlockValue:
    """A parameter's value in one block.

    Attributes:
        name: The setting: a parameter, or weight@2 for one of a model.
        block: A block's id, a range, BASE or a component, in capitals.
        value: The value there.
    """

    name: str
    block: BlockId
    value: float


@dataclass(frozen=True)
class NamedRule:
    """A rule and the setting that it is for."""

    name: str
    rule: Rule


@dataclass(frozen=True)
class Scope:
    """What settings are read for.

    Attributes:
        method: Whose parameters are meant.
        arch: Whose blocks are meant; None leaves block names to the planner.
    """

    method: MergeMethod
    arch: Architecture | None = None

    def spec(self, name: str) -> ParamSpec | None:
        """The parameter that a setting's name speaks of."""
        return self.method.param(split_name(name)[0])

    def main(self, where: str, problems: list[str]) -> str | None:
        """The parameter that is meant where none is named."""
        spec = self.method.block_param
        if spec is not None:
            return spec.name
        named = [_example(s) for s in self.method.block_params]
        if named:
            text = f"says not which parameter it sets; write e.g. {named[0]}:IN04=0.5"
        else:
            text = f"sets a parameter per block, but {self.method.id} has none"
        problems.append(f"{where} {text}.")
        return None

    def per_block(self, name: str, where: str, problems: list[str]) -> str | None:
        """A setting's name when it may differ per block."""
        spec = self.spec(name)
        if spec is not None and spec.param.per_block:
            return name
        known = ", ".join(_example(s) for s in self.method.block_params)
        problems.append(
            f"{where}: {self.method.id} has no parameter '{name}' that may differ per "
            f"block; it has: {known or 'none'}."
        )
        return None

    def is_block(self, name: str, where: str, problems: list[str]) -> bool:
        """Whether the architecture has a block, range or component of this name."""
        if self.arch is None or self.arch.expand(name):
            return True
        known = ", ".join(b.id for b in self.arch.weighted_blocks())
        problems.append(
            f"{where}: {self.arch.label} has no block '{name}'. Known: BASE, {known}."
        )
        return False


def _example(spec: ParamSpec) -> str:
    return f"{spec.name}@1" if spec.param.per_model else spec.name


def read_blocks(
    texts: Iterable[str], scope: Scope, where: str, problems: list[str]
) -> list[BlockValue]:
    """Values by block, "IN04=0.7, M00=0.1, density: IN04=0.2".

    A parameter's name before a colon speaks of all that follows it in the same text.

    Args:
        texts: Pairs, with commas, semicolons or line ends between.
        scope: What is meant.
        where: For messages.
        problems: Gets a sentence for every pair that cannot be used.
    """
    found: list[BlockValue] = []
    for text in texts:
        name: str | None = ""
        for part in split_pairs([text]):
            pair = _BLOCK.fullmatch(part)
            if pair is None:
                problems.append(
                    f"{where}: '{part}' is no pair; write it like IN04=0.7."
                )
                continue
            if pair["param"]:
                name = scope.per_block(pair["param"].strip(), where, problems)
            elif name == "":
                name = scope.main(where, problems)
            if name:
                found += _block_value(pair, name, scope, where, problems)
    return _without_doubles(found, where, problems)


def _block_value(
    pair: re.Match[str], name: str, scope: Scope, where: str, problems: list[str]
) -> list[BlockValue]:
    block = (pair["name"] or pair["plain"]).strip().upper()
    text = pair["value"] or pair["plain_value"]
    spec = scope.spec(name)
    if not scope.is_block(block, where, problems) or spec is None:
        return []
    value = read_value(text, spec, f"{where}, block {block}", problems)
    return [] if value is None else [BlockValue(name, BlockId(block), value)]


def _without_doubles(
    found: Sequence[BlockValue], where: str, problems: list[str]
) -> list[BlockValue]:
    kept: dict[tuple[str, BlockId], BlockValue] = {}
    for one in found:
        if (one.name, one.block) in kept:
            problems.append(f"{where}: {one.block} is given twice; give it once.")
        kept[one.name, one.block] = one
    return list(kept.values())


def read_rules(
    lines: Iterable[str], scope: Scope, where: str, problems: list[str]
) -> list[NamedRule]:
    """Rules for single layers, "OUT03-OUT06 : attn : 0.4", the last that fits wins.

    The first field holds blocks (ids and ranges, with spaces or commas between; empty
    means all), after "density@" for another parameter than the main one. The last is
    the value, and what stands between is a part of the key's name or a regular
    expression (empty means all).

    Args:
        lines: One rule each; empty ones and those that begin with "#" are skipped.
        scope: What is meant.
        where: For messages.
        problems: Gets a sentence for everything that cannot be used.
    """
    found: list[NamedRule] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.strip().startswith("#"):
            continue
        n_before = len(problems)
        rule = _read_rule(line.strip(), scope, f"{where} {number}", problems)
        if rule is not None and len(problems) == n_before:
            found.append(rule)
    return found


def _read_rule(
    line: str, scope: Scope, where: str, problems: list[str]
) -> NamedRule | None:
    head, first, rest = line.partition(":")
    pattern, second, tail = rest.rpartition(":")
    if not first or not second:
        problems.append(
            f"{where} '{line}' lacks a field; write BLOCKS:PATTERN:VALUE, like "
            "OUT03-OUT06:attn:0.4 or :attn2:0.4."
        )
        return None
    given, at, blocks_text = head.rpartition("@")
    given = given.strip()
    name = (
        scope.per_block(given, where, problems) if at else scope.main(where, problems)
    )
    blocks = read_places(blocks_text)
    for block in blocks:
        scope.is_block(block, where, problems)
    pattern = pattern.strip()
    try:
        re.compile(pattern)
    except re.error as fault:
        problems.append(
            f"{where}: '{pattern}' is no regular expression ({fault}); write a plain "
            "part of the key's name, like attn2."
        )
    spec = scope.spec(name) if name else None
    value = read_value(tail, spec, where, problems) if spec else None
    if name is None or value is None:
        return None
    return NamedRule(name, Rule(value, blocks, pattern))


def read_places(text: str) -> tuple[BlockId, ...]:
    """Blocks, ranges, BASE and components, with commas or spaces between."""
    return tuple(BlockId(name.upper()) for name in re.split(r"[\s,]+", text) if name)


def settings_of(
    values: Mapping[str, float],
    blocks: Sequence[BlockValue],
    rules: Sequence[NamedRule],
    method: MergeMethod,
) -> dict[str, Setting]:
    """One setting for each name that is spoken of; main values first, in their order.

    Args:
        values: Main values by name.
        blocks: Values by block.
        rules: In order.
        method: Whose defaults fill in.
    """
    names = [*values, *(b.name for b in blocks), *(r.name for r in rules)]
    settings = {}
    for name in dict.fromkeys(names):
        stem = split_name(name)[0]
        spec = method.param(stem)
        default = values.get(stem, spec.default if spec else 0.0)
        settings[name] = Setting(
            value=values.get(name, default),
            blocks=tuple((b.block, b.value) for b in blocks if b.name == name),
            rules=tuple(r.rule for r in rules if r.name == name),
        )
    return settings


def expand_blocks(
    blocks: Sequence[tuple[BlockId, float]], arch: Architecture
) -> dict[BlockId, float]:
    """Values for single blocks, in the architecture's order, as the planner sees them.

    Args:
        blocks: (id, range or BASE; value) pairs.
        arch: Whose blocks are meant.
    """
    found: dict[BlockId, float] = {}
    # Ranges first: a block that is also named alone takes its own value.
    for is_single in (False, True):
        for name, value in blocks:
            ids = arch.expand(name)
            if (len(ids) == 1) == is_single:
                found.update(dict.fromkeys(ids, value))
    return {block: found[block] for block in arch.block_ids() if block in found}


def write_blocks(values: Mapping[BlockId, float]) -> str:
    """The text that `read_blocks` reads back."""
    return ", ".join(f"{block}={value:.6g}" for block, value in values.items())
