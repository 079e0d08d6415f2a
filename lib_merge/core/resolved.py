"""Settings with block names expanded and patterns compiled, asked once for each key."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lib_merge.core.blocks import Architecture, BlockId
from lib_merge.core.nodes import Setting


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


def resolved(name: str, setting: Setting, architecture: Architecture) -> ParamValues:
    """A setting without problems, ready to be asked for every key.

    Args:
        name: The parameter's.
        setting: As it is given.
        architecture: Whose blocks are meant.
    """
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
