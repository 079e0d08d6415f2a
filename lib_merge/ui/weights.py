"""Block weights and rules as text, both ways."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from lib_merge.core.blocks import Architecture, BlockId
from lib_merge.core.params import ParamSpec
from lib_merge.core.recipe import Rule
from lib_merge.errors import InputError, RecipeError

_PAIR = re.compile(r"^(?P<name>[^=:]+)[=:](?P<value>[^=:]+)$")


def read_weights(
    text: str, arch: Architecture, spec: ParamSpec
) -> dict[BlockId, float]:
    """Read "IN04=0.7, M00=0.1"; a name may be a range (IN00-IN05) or BASE.

    Args:
        text: Pairs, separated by commas, semicolons or line ends.
        arch: Whose blocks are meant.
        spec: The parameter, for its limits.

    Returns:
        A value for every block named, in the architecture's order.

    Raises:
        RecipeError: One sentence for every pair that cannot be used.
    """
    found: dict[BlockId, float] = {}
    problems: list[str] = []
    for part in _parts(text):
        pair = _PAIR.match(part)
        if pair is None:
            problems.append(
                f"Block weights: '{part}' is no pair; write it like IN04=0.7."
            )
            continue
        blocks = arch.expand(pair["name"])
        if not blocks:
            problems.append(_unknown_block(pair["name"].strip(), arch))
            continue
        value = _number(pair["value"], f"block {pair['name'].strip()}", spec, problems)
        if value is not None:
            found.update(dict.fromkeys(blocks, value))
    if problems:
        raise RecipeError(problems)
    return {block: found[block] for block in arch.block_ids() if block in found}


def write_weights(values: Mapping[BlockId, float]) -> str:
    """The text that `read_weights` reads back."""
    return ", ".join(f"{block}={value:.6g}" for block, value in values.items())


def read_rules(text: str, arch: Architecture, spec: ParamSpec) -> tuple[Rule, ...]:
    """Read rules for single layers, one a line: "OUT03-OUT06 : attn : 0.4".

    The first field holds blocks (ranges, separated by spaces or commas; empty means
    all), the last the value, and what stands between is a part of the key's name or a
    regular expression (empty means all). The last rule that matches a key wins.

    Args:
        text: The lines; empty ones and those starting with "#" are skipped.
        arch: Whose blocks are meant.
        spec: The parameter, for its limits.

    Raises:
        RecipeError: One sentence for every line that cannot be used.
    """
    rules: list[Rule] = []
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.strip().startswith("#"):
            before = len(problems)
            rule = _read_rule(line, f"Rule {number}", (arch, spec), problems)
            if rule is not None and len(problems) == before:
                rules.append(rule)
    if problems:
        raise RecipeError(problems)
    return tuple(rules)


def _read_rule(
    line: str, where: str, scope: tuple[Architecture, ParamSpec], problems: list[str]
) -> Rule | None:
    arch, spec = scope
    names, first, rest = line.partition(":")
    pattern, second, tail = rest.rpartition(":")
    if not first or not second:
        problems.append(
            f"{where} '{line.strip()}' lacks a field; write blocks:name part:value, "
            "like OUT03-OUT06:attn:0.4."
        )
        return None
    blocks: list[BlockId] = []
    for name in re.split(r"[\s,]+", names.strip()) if names.strip() else ():
        expanded = arch.expand(name)
        if not expanded:
            problems.append(f"{where}: " + _unknown_block(name, arch))
        blocks.extend(expanded)
    pattern = pattern.strip()
    try:
        re.compile(pattern)
    except re.error as fault:
        problems.append(
            f"{where}: '{pattern}' is no regular expression ({fault}); write a plain "
            "part of the key's name, like attn2."
        )
    value = _number(tail, where, spec, problems)
    return None if value is None else Rule(value, tuple(blocks), pattern)


def _parts(text: str) -> Iterable[str]:
    return (p.strip() for p in re.split(r"[,;\n]+", text) if p.strip())


def _number(
    text: str, where: str, spec: ParamSpec, problems: list[str]
) -> float | None:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        problems.append(f"{where}: '{text.strip()}' is no number; write e.g. 0.5.")
        return None
    try:
        spec.check(value, where)
    except InputError as fault:
        problems.append(str(fault))
        return None
    return value


def _unknown_block(name: str, arch: Architecture) -> str:
    known = ", ".join(b.id for b in arch.weighted_blocks())
    return f"{arch.label} has no block '{name}'. Known: BASE, {known}."
