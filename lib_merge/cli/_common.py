"""Reads what several commands take: sizes, settings, blocks, rules, recipes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lib_merge.checkpoint.metadata import read_recipe
from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.recipe import DEFAULT_COMPONENTS, Recipe, Rule, Setting
from lib_merge.errors import InputError, RecipeError

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([kmgt]?)i?b?\s*", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes in a size such as 2GB, 512MiB or 1000000 (K, M, G are powers of 1024).

    Raises:
        InputError: It is no size.
    """
    found = _SIZE.fullmatch(text)
    if not found or float(found[1]) <= 0:
        raise InputError(f"--memory {text!r} is no size; write 2GB or 512MB.")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def parse_number(text: str, where: str) -> float:
    """A finite number.

    Raises:
        InputError: It is none; `where` says which.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: {text.strip()!r} is no number; write 0.3.")
    return value


def parse_pairs(texts: Sequence[str], option: str) -> dict[str, float]:
    """Pairs NAME=NUMBER, several in one text with commas between.

    Args:
        texts: As given on the command line.
        option: The option, for messages.

    Raises:
        InputError: A part is no such pair, or a name is given twice.
    """
    found: dict[str, float] = {}
    for part in (part for text in texts for part in text.split(",")):
        name, equals, value = part.partition("=")
        name = name.strip()
        if not name or not equals:
            raise InputError(f"{option}: {part!r} is no NAME=NUMBER pair.")
        if name in found:
            raise InputError(f"{option}: {name} is given twice; give it once.")
        found[name] = parse_number(value, f"{option} {name}")
    return found


def parse_rule(text: str) -> Rule:
    """A rule BLOCKS:PATTERN:VALUE; empty BLOCKS or PATTERN mean any.

    BLOCKS are ids or ranges with commas between; PATTERN may hold colons itself.

    Raises:
        InputError: It is no rule.
    """
    blocks, first, rest = text.partition(":")
    pattern, second, value = rest.rpartition(":")
    if not first or not second:
        raise InputError(
            f"--rule {text!r} is no rule; write BLOCKS:PATTERN:VALUE, such as "
            '"OUT03-OUT06:attn:0.4" or ":attn2:0.4".'
        )
    names = tuple(BlockId(b.strip()) for b in blocks.split(",") if b.strip())
    return Rule(parse_number(value, f"--rule {text}"), names, pattern)


def build_settings(
    values: Mapping[str, float],
    blocks: Mapping[str, float],
    rules: Sequence[Rule],
    *,
    names: Sequence[str],
    defaults: Mapping[str, float],
) -> dict[str, Setting]:
    """Settings of a method's parameters; blocks and rules are of the first one.

    Args:
        values: By parameter name.
        blocks: Values of the first parameter by block name.
        rules: Of the first parameter.
        names: The method's parameters in order.
        defaults: Of those parameters.

    Raises:
        InputError: Blocks or rules for a method without parameters.
    """
    settings = {name: Setting(value) for name, value in values.items()}
    if not blocks and not rules:
        return settings
    if not names:
        raise InputError(
            "--blocks and --rule set a parameter, but this method has none; "
            "leave them out."
        )
    name = names[0]
    settings[name] = Setting(
        value=values.get(name, defaults[name]),
        blocks=tuple((BlockId(b), value) for b, value in blocks.items()),
        rules=tuple(rules),
    )
    return settings


def parse_components(text: str | None) -> tuple[Component, ...]:
    """Components with commas between; "text" means every text encoder, "all" all.

    Raises:
        InputError: An unknown component.
    """
    if text is None:
        return DEFAULT_COMPONENTS
    found: list[Component] = []
    blendable = [c for c in Component if c is not Component.SCHEDULE]
    for name in (part.strip().lower() for part in text.split(",")):
        if name == "all":
            found += blendable
        elif name == "text":
            found += [c for c in blendable if c.is_text_encoder]
        elif name in [c.value for c in blendable]:
            found.append(Component(name))
        else:
            known = ", ".join(c.value for c in blendable)
            raise InputError(
                f"--components: unknown component {name!r}; known: {known}, text, all."
            )
    return tuple(dict.fromkeys(found))


def load_recipe(path: Path) -> Recipe:
    """A recipe from a JSON file, or from the metadata of a merged checkpoint.

    Raises:
        InputError: The file is missing or holds no recipe.
    """
    if path.suffix.lower() == ".safetensors":
        recipe = read_recipe(path)
        if recipe is None:
            raise InputError(
                f"{path} has no MergeLab recipe in its metadata; "
                "it was not made by MergeLab."
            )
        return recipe
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise InputError(
            f"The recipe {path} cannot be read ({fault.strerror}); check the path."
        ) from fault
    except (ValueError, RecursionError) as fault:
        raise RecipeError(
            [f"The recipe {path} is no JSON ({fault}); save it again."]
        ) from fault
    return Recipe.from_json(data)
