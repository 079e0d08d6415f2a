"""supermerger's and model-mixer's weights for single layers, and what they leave out.

    IN00-IN05 OUT11 : attn1 attn2 : 0.4     blocks, parts of a key's name, weight
    NOT IN04 : NOT norm : 0.2               all but these

A later line wins. Blocks have the programs' own meaning: IN00 holds time_embed, the
last block holds out, BASE everything outside the UNet, the VAE included.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lib_merge.core.blocks import BlockId
from lib_merge.core.recipe import Rule
from lib_merge.errors import RecipeError
from lib_merge.formats.numbers import number
from lib_merge.formats.orders import ORDERS, Order

_ADJUSTED = r"\.(?:input_blocks\.0\.0|out\.[02])\.(?:weight|bias)$"
_MAX_LINES = 2000


def order_of(*, is_sdxl: bool) -> Order:
    """The programs' blocks."""
    wanted = "supermerger_sdxl" if is_sdxl else "supermerger"
    return next(order for order in ORDERS if order.id == wanted)


def read_elements(text: str, *, is_sdxl: bool, where: str) -> tuple[Rule, ...]:
    """Rules of a text, in order.

    Args:
        text: Lines, or entries with commas between.
        is_sdxl: Whether the models are SDXL.
        where: For messages.

    Raises:
        RecipeError: An entry that is none, or one with a random weight.
    """
    lines = [line.strip() for line in re.split(r"[,\n]", text) if line.strip()]
    if len(lines) > _MAX_LINES:
        raise RecipeError([f"{where}: {len(lines)} elemental weights are too many."])
    order = order_of(is_sdxl=is_sdxl)
    rules = []
    for line in lines:
        fields = [field.strip() for field in line.split(":")]
        if len(fields) != 3:
            raise RecipeError(
                [f"{where}: elemental weight '{line[:60]}' is not BLOCKS:LAYERS:VALUE."]
            )
        at = f"{where}, elemental '{line[:60]}'"
        blocks = _blocks(fields[0], order, at)
        pattern = _pattern(fields[1].split())
        rules.append(Rule(number(fields[2], at), blocks, pattern))
    return tuple(rules)


def _blocks(text: str, order: Order, where: str) -> tuple[BlockId, ...]:
    words = text.upper().split()
    is_not = words[:1] == ["NOT"]
    labels: list[str] = []
    for word in words[is_not:]:
        first, dash, last = word.partition("-")
        ends = [
            _place(name, order, where) for name in ((first, last) if dash else (word,))
        ]
        labels += order.labels[min(ends) : max(ends) + 1]
    if not words:
        return ()
    if is_not:
        labels = [label for label in order.labels if label not in labels]
    return expanded(labels, order)


def _place(name: str, order: Order, where: str) -> int:
    if name not in order.labels:
        known = ", ".join(order.labels)
        raise RecipeError([f"{where}: there is no block '{name}'; known: {known}."])
    return order.labels.index(name)


def expanded(labels: Iterable[str], order: Order) -> tuple[BlockId, ...]:
    """Our blocks for the programs' ones."""
    found = list(dict.fromkeys(labels))
    found += [block for block, label in order.also if label in found]
    if not order.is_sdxl:
        found = [block for block in found if block != "LABEL_EMB"]
    return tuple(BlockId(block) for block in dict.fromkeys(found))


def _pattern(words: list[str]) -> str:
    is_not = words[:1] == ["NOT"]
    parts = "|".join(re.escape(word) for word in words[is_not:])
    if not parts:
        return ""
    return f"^(?!.*(?:{parts}))" if is_not else parts


def exclusion_rules(data: Mapping[str, Any], *, is_sdxl: bool) -> tuple[Rule, ...]:
    """Rules for what stays model A's: `Exclude` names it, `Include` all the rest.

    Raises:
        RecipeError: Neither blocks nor parts of names.
    """
    order = order_of(is_sdxl=is_sdxl)
    for kind in ("Exclude", "Include"):
        words = data.get(kind)
        if words is None:
            continue
        if not isinstance(words, list):
            raise RecipeError([f"'{kind}' must be a list, not {words!r:.60}."])
        names = [str(word).strip() for word in words]
        labels = [name for name in names if name in (*order.labels, "VAE")]
        rest = [n for n in names if n and n not in labels and n != "print"]
        parts = [re.escape(n) for n in rest if n != "Adjust"]
        parts += [_ADJUSTED] * ("Adjust" in rest)
        if not labels and not parts:
            return ()
        if kind == "Exclude":
            return _excluded(labels, parts, order)
        others = [label for label in (*order.labels, "VAE") if label not in labels]
        blocks = tuple(b for b in expanded(others, order) if b not in labels)
        pattern = f"^(?!.*(?:{'|'.join(parts)}))" if parts else ""
        return (Rule(0.0, blocks, pattern),)
    return ()


def _excluded(labels: list[str], parts: list[str], order: Order) -> tuple[Rule, ...]:
    rules = []
    if labels:
        rules.append(Rule(0.0, expanded(labels, order)))
    if parts:
        rules.append(Rule(0.0, (), "|".join(parts)))
    return tuple(rules)
