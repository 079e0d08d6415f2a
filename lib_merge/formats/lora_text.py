"""LoRAs of a merge as text: FILE, FILE:0.8 or FILE:0.8:BASE=0.4,IN04-IN07=1."""

from __future__ import annotations

import re
from pathlib import Path

from lib_merge.core.blocks import Architecture, BlockId
from lib_merge.core.params import STRENGTH
from lib_merge.core.recipe import Setting
from lib_merge.formats.request import Lora
from lib_merge.formats.value_text import read_value, split_pairs

MARK = "lora:"
"""What a LoRA among the models of a merge begins with."""

_FIELDS = re.compile(
    r"(?P<file>(?:[A-Za-z]:[\\/])?[^:]+)(?::(?P<weight>[^:]*))?(?::(?P<blocks>.*))?"
)
"""A drive letter's colon belongs to the file."""


def read_lora_text(
    text: str, where: str, problems: list[str], arch: Architecture | None = None
) -> Lora | None:
    """A LoRA with its strengths.

    Args:
        text: The file; then perhaps its strength (1), then perhaps values by block:
            ids, ranges, components, BASE for the text encoders.
        where: For messages.
        problems: Gets a sentence for everything that cannot be used.
        arch: Whose blocks are meant; None leaves block names to the planner.
    """
    text = text.strip()
    if Path(text).is_file():
        return Lora(text)
    found = _FIELDS.fullmatch(text)
    if found is None:
        problems.append(
            f"{where}: '{text}' names no LoRA; write FILE, FILE:0.8 or "
            "FILE:0.8:BASE=0.4,IN04=1."
        )
        return None
    value: float | None = STRENGTH.default
    if found["weight"] and found["weight"].strip():
        value = read_value(found["weight"], STRENGTH, where, problems)
    blocks = _blocks(found["blocks"] or "", where, problems, arch)
    if value is None:
        return None
    return Lora(found["file"].strip(), Setting(value, blocks))


def _blocks(
    text: str, where: str, problems: list[str], arch: Architecture | None
) -> tuple[tuple[BlockId, float], ...]:
    blocks: dict[BlockId, float] = {}
    for part in split_pairs([text]):
        name, equals, number = (field.strip() for field in part.partition("="))
        block = BlockId(name.upper())
        if not name or not equals:
            problems.append(f"{where}: '{part}' is no pair; write it like IN04=0.7.")
            continue
        if block in blocks:
            problems.append(f"{where}: {block} is given twice; give it once.")
        if arch is not None and not arch.expand(name):
            known = ", ".join(b.id for b in arch.weighted_blocks())
            problems.append(
                f"{where}: {arch.label} has no block '{name}'. Known: BASE, {known}."
            )
        value = read_value(number, STRENGTH, f"{where}, block {block}", problems)
        blocks[block] = 0.0 if value is None else value
    return tuple(blocks.items())
