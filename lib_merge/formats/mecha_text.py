"""The text of .mecha recipes: its three dialects, lines, words and references.

(a) February 2024: `model "p"`, `call "op"`; (b) from March 2024: `model "p" "sdxl"
"base"`, `merge "op"`; (c) 2025: `version 0.1.0` first, options with names, true and
false. A reference &n counts every line but the version's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from lib_merge.errors import RecipeError

MAX_LINES = 50_000
MAX_CHARS = 200_000
"""Of a line: a pool of thousands of models."""

VERSION = "0.1.0"

_COMMANDS = ("model", "lora", "dict", "literal", "parameter", "call", "merge")
_CONSTANTS = {"null": None, "true": True, "false": False}
_KEY = r'\s*(?:(?P<key>[^\s"=&][^\s"=]*)=)?'
_PLAIN = re.compile(_KEY + r'(?:"(?P<quoted>[^"]*)"|(?P<bare>[^\s"=]+))(?=\s|$)')
_ESCAPED = re.compile(
    _KEY + r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s"=]+))(?=\s|$)'
)


@dataclass(frozen=True)
class Ref:
    """A reference to an earlier line, &n."""

    index: int


Word: TypeAlias = "Ref | str | float | bool | None"


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        number: In the file, from 1, for messages.
        command: Its first word.
        args: Words without a name.
        options: Words with one.
    """

    number: int
    command: str
    args: tuple[Word, ...]
    options: Mapping[str, Word]


@dataclass(frozen=True)
class Text:
    """A whole recipe.

    Attributes:
        dialect: a, b or c.
        lines: In order; &n is the n-th of them.
    """

    dialect: str
    lines: tuple[Line, ...]


def looks_like_mecha(text: str) -> bool:
    """Whether the first line that counts is one of a recipe."""
    for line in text[:4000].splitlines():
        if line.strip() and not line.startswith("#"):
            return bool(
                re.match(r"(version \d|(?:model|lora|dict|parameter) \S)", line)
            )
    return False


def parse(text: str, where: str) -> Text:
    """Read a recipe's lines.

    Raises:
        RecipeError: Every line that cannot be read.
    """
    rows = [
        (number, line.strip())
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if len(rows) > MAX_LINES:
        raise RecipeError([f"{where} has {len(rows)} lines, more than any recipe."])
    is_versioned = bool(rows) and rows[0][1].startswith("version")
    if is_versioned and rows[0][1].split() != ["version", VERSION]:
        raise RecipeError(
            [
                f"{where} is of the .mecha version {rows[0][1][7:60].strip()!r}; "
                f"{VERSION} and those without a version are read."
            ]
        )
    problems: list[str] = []
    lines = [
        line
        for number, row in rows[is_versioned:]
        if (line := _line(row, number, is_versioned, where, problems)) is not None
    ]
    if not lines and not problems:
        problems.append(f"{where} has no lines; it is no recipe.")
    if problems:
        raise RecipeError(problems)
    return Text("c" if is_versioned else _dialect(lines, where), tuple(lines))


def _dialect(lines: list[Line], where: str) -> str:
    commands = {line.command for line in lines}
    is_a = "call" in commands or "lora" in commands
    is_b = "merge" in commands or any(
        line.command == "model" and len(line.args) > 1 for line in lines
    )
    if is_a and is_b:
        raise RecipeError(
            [f"{where} mixes the words of two dialects of .mecha ('call' and 'merge')."]
        )
    return "b" if is_b else "a"


def _line(
    row: str, number: int, is_escaped: bool, where: str, problems: list[str]
) -> Line | None:
    at = f"{where}, line {number}"
    command, _, rest = row.partition(" ")
    if command not in _COMMANDS:
        problems.append(
            f"{at}: '{command[:40]}' is no command; known: {', '.join(_COMMANDS)}."
        )
        return None
    if len(rest) > MAX_CHARS:
        problems.append(f"{at}: {len(rest)} characters are more than any recipe has.")
        return None
    pattern = _ESCAPED if is_escaped else _PLAIN
    args: list[Word] = []
    options: dict[str, Word] = {}
    place = 0
    rest = rest.strip()
    while place < len(rest):
        match = pattern.match(rest, place)
        if match is None:
            problems.append(f"{at}: '{rest[place : place + 40]}' cannot be read.")
            return None
        place = match.end()
        word = _word(match, is_escaped, at, problems)
        if match["key"] is None:
            args.append(word)
        else:
            options[match["key"]] = word
    return Line(number, command, tuple(args), options)


def _word(match: re.Match[str], is_escaped: bool, at: str, problems: list[str]) -> Word:
    quoted, bare = match["quoted"], match["bare"]
    if quoted is not None:
        return re.sub(r"\\(.)", r"\1", quoted) if is_escaped else quoted
    if bare in _CONSTANTS:
        return _CONSTANTS[bare]
    if bare.startswith("&") and bare[1:].isascii() and bare[1:].isdigit():
        # Far more digits than there may be lines; and int() takes any number of them.
        return Ref(int(bare[1:12]))
    try:
        value = float(bare)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        problems.append(f"{at}: '{bare[:40]}' is no number, no text and no reference.")
        return 0.0
    return value
