"""Wildcards: `__name__`, {a|b} and their weights, drawn once for a whole study.

The syntax is that of dynamicprompts, which AutoMBW uses: `__colours__` is a line of
colours.txt, `__animals/*__` of any file there; {a|b|c} one of them, {3::a|b} a three
times as often, {2$$a|b|c} two of them, {1-2$$ and $$a|b|c} up to two joined by " and ".
They nest. Draws come from the study's seed and the payload's name alone.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_merge.core.seeds import derive_seed
from lib_merge.errors import PayloadError

NONE, RANDOM, COMBINATORIAL = "none", "random", "combinatorial"
JINJA2, LUCKY = "jinja2", "lucky"
WILDCARD_TYPES = (NONE, RANDOM, COMBINATORIAL, JINJA2, LUCKY)

FOLDER = "wildcards"
"""Where wildcard files lie in MergeLab's data folder."""

_MAX_DEPTH = 32
"""A wildcard that leads back to itself ends here."""

_NAME = re.compile(r"__([^\s{}|_](?:(?!__)[^\s{}|])*)__")
_WEIGHT = re.compile(r"^\s*(\d*\.?\d+)::")
_COUNT = re.compile(r"^\s*(\d+)?(-)?(\d+)?\$\$")


@dataclass(frozen=True)
class _Words:
    text: str


@dataclass(frozen=True)
class _Wild:
    name: str


@dataclass(frozen=True)
class _Pick:
    options: tuple[tuple[float, tuple[_Node, ...]], ...]
    least: int = 1
    most: int = 1
    between: str = ", "


_Node = _Words | _Wild | _Pick


class Dice:
    """Numbers from a seed; the same on every machine and for every version."""

    def __init__(self, *parts: int | str) -> None:
        self._parts = parts
        self._n_thrown = 0

    def number(self) -> float:
        """The next number in [0, 1)."""
        self._n_thrown += 1
        return derive_seed("wildcards", *self._parts, self._n_thrown) / 2**32

    def index(self, weights: Sequence[float]) -> int:
        """A place among weights, the heavier the likelier."""
        left = self.number() * sum(weights)
        for place, weight in enumerate(weights):
            left -= weight
            if left < 0:
                return place
        return max(i for i, weight in enumerate(weights) if weight > 0)


class Wildcards:
    """Wildcard files, each one value a line; # begins a comment.

    Args:
        folder: Where they lie, or None for no files at all.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._files: dict[str, Path] = {}
        if folder is not None and folder.is_dir():
            for path in sorted(folder.rglob("*.txt")):
                name = path.relative_to(folder).with_suffix("").as_posix()
                self._files[name] = path

    def values(self, name: str, where: str) -> tuple[str, ...]:
        """Every value of a wildcard.

        Raises:
            PayloadError: There is no such file, or nothing in it.
        """
        names = fnmatch.filter(self._files, name)
        if not names and name in self._files:
            names = [name]
        found: list[str] = []
        for one in names:
            text = self._files[one].read_text(encoding="utf-8-sig", errors="replace")
            lines = (line.strip() for line in text.splitlines())
            found += [line for line in lines if line and not line.startswith("#")]
        if found:
            return tuple(found)
        place = self._folder or f"MergeLab's folder {FOLDER}"
        known = ", ".join(sorted(self._files)[:8]) or "none"
        what = "is empty" if names else "is not there"
        raise PayloadError(
            f"{where}: the wildcard __{name}__ {what} in {place} (known: {known}); add "
            f"{name}.txt, or set wildcard_type to none."
        )


def has_wildcards(text: str) -> bool:
    """Whether a text looks as if wildcards were meant in it."""
    return bool(_NAME.search(text) or re.search(r"\{[^{}]*\|[^{}]*\}", text))


def draw(
    text: str,
    kind: str,
    n: int,
    *,
    wildcards: Wildcards,
    seed: tuple[int | str, ...],
    where: str,
) -> list[str]:
    """Up to n texts without wildcards.

    Args:
        text: A prompt with wildcards.
        kind: random, combinatorial, jinja2 or lucky (which is random here).
        n: How many; combinatorial gives fewer when there are fewer.
        wildcards: The files.
        seed: What the draws come from.
        where: The payload, for messages.

    Raises:
        PayloadError: A wildcard that is not there, or a syntax that cannot be read.
    """
    if kind == JINJA2:
        return [_render(text, wildcards, Dice(*seed, i), where) for i in range(n)]
    nodes = _parse(text, where)
    world = _World(wildcards, where)
    if kind == COMBINATORIAL:
        return list(itertools.islice(world.all(nodes), n))
    return [world.one(nodes, Dice(*seed, i)) for i in range(n)]


class _World:
    """Draws from parsed texts."""

    def __init__(self, wildcards: Wildcards, where: str) -> None:
        self._wildcards = wildcards
        self._where = where

    def one(self, nodes: Sequence[_Node], dice: Dice, depth: int = 0) -> str:
        """A random text."""
        self._check(depth)
        return "".join(self._one(node, dice, depth) for node in nodes)

    def _one(self, node: _Node, dice: Dice, depth: int) -> str:
        if isinstance(node, _Words):
            return node.text
        if isinstance(node, _Wild):
            values = self._wildcards.values(node.name, self._where)
            value = values[dice.index([1.0] * len(values))]
            return self.one(_parse(value, self._where), dice, depth + 1)
        n_picked = node.least
        if node.most > node.least:
            n_picked += dice.index([1.0] * (node.most - node.least + 1))
        left = list(node.options)
        parts = []
        for _ in range(min(n_picked, len(left))):
            _, option = left.pop(dice.index([weight for weight, _ in left]))
            parts.append(self.one(option, dice, depth + 1))
        return node.between.join(parts)

    def all(self, nodes: Sequence[_Node], depth: int = 0) -> Iterator[str]:
        """Every text, the first parts changing slowest."""
        self._check(depth)
        if not nodes:
            yield ""
            return
        for head in self._all(nodes[0], depth):
            for tail in self.all(nodes[1:], depth):
                yield head + tail

    def _all(self, node: _Node, depth: int) -> Iterator[str]:
        if isinstance(node, _Words):
            yield node.text
        elif isinstance(node, _Wild):
            for value in self._wildcards.values(node.name, self._where):
                yield from self.all(_parse(value, self._where), depth + 1)
        else:
            options = [option for _, option in node.options]
            for n_picked in range(node.least, node.most + 1):
                for chosen in itertools.combinations(options, n_picked):
                    texts = [list(self.all(option, depth + 1)) for option in chosen]
                    yield from map(node.between.join, itertools.product(*texts))

    def _check(self, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise PayloadError(
                f"{self._where}: wildcards lead back to themselves; look for one that "
                "names itself in its own file."
            )


def _parse(text: str, where: str) -> tuple[_Node, ...]:
    nodes: list[_Node] = []
    start = place = 0
    while place < len(text):
        wild = _NAME.match(text, place)
        if text[place] == "\\" and text[place + 1 : place + 2] in ("{", "}", "|"):
            nodes.append(_Words(text[start:place] + text[place + 1]))
            start = place = place + 2
        elif wild:
            nodes += [_Words(text[start:place]), _Wild(wild[1])]
            start = place = wild.end()
        elif text[place] == "{":
            end = _closing(text, place, where)
            nodes.append(_Words(text[start:place]))
            nodes.append(_pick(text[place + 1 : end], where))
            start = place = end + 1
        else:
            place += 1
    nodes.append(_Words(text[start:]))
    return tuple(node for node in nodes if node != _Words(""))


def _closing(text: str, start: int, where: str) -> int:
    depth = 0
    for place in range(start, len(text)):
        if text[place - 1 : place] != "\\":
            depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return place
    raise PayloadError(
        f"{where}: the bracket in '{text[start : start + 40]}' is not closed; add a "
        "closing one, or write \\{ for a plain bracket."
    )


def _pick(inside: str, where: str) -> _Node:
    count = _COUNT.match(inside)
    least = most = 1
    between = ", "
    if count:
        inside = inside[count.end() :]
        if "$$" in inside.split("|")[0]:
            between, _, inside = inside.partition("$$")
    options = []
    for part in _split(inside):
        weight = _WEIGHT.match(part)
        body = part[weight.end() :] if weight else part
        options.append((float(weight[1]) if weight else 1.0, _parse(body, where)))
    if count:
        least, most = _limits(count, len(options))
    if sum(weight for weight, _ in options) <= 0:
        raise PayloadError(f"{where}: every weight in '{{{inside[:40]}}}' is 0.")
    if most > len(options) or least > most:
        raise PayloadError(
            f"{where}: '{{{inside[:40]}}}' has {len(options)} choices; {least} to "
            f"{most} of them cannot be taken."
        )
    return _Pick(tuple(options), least, most, between)


def _limits(count: re.Match[str], n_options: int) -> tuple[int, int]:
    """2, 1-3, -3 and 2- before $$."""
    low, dash, high = count[1], count[2], count[3]
    if not dash:
        number = int((low or "") + (high or "") or 1)
        return number, number
    return int(low or 0), int(high or n_options)


def _split(inside: str) -> list[str]:
    """At the bars outside inner brackets."""
    parts, depth = [""], 0
    for place, letter in enumerate(inside):
        is_plain = inside[place - 1 : place] == "\\"
        depth += 0 if is_plain else (letter == "{") - (letter == "}")
        if letter == "|" and depth == 0 and not is_plain:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def has_jinja2() -> bool:
    """Whether jinja2 can be imported."""
    return importlib.util.find_spec("jinja2") is not None


def _render(text: str, wildcards: Wildcards, dice: Dice, where: str) -> str:
    """A jinja2 template with dynamicprompts' functions, in jinja2's sandbox."""
    if not has_jinja2():
        raise PayloadError(
            f"{where}: wildcard_type jinja2 needs the Python package 'jinja2', which "
            "is not installed here; install it, or use another type."
        )
    import jinja2
    import jinja2.sandbox

    def choice(*options: Any) -> Any:
        return options[dice.index([1.0] * len(options))]

    def weighted_choice(*options: tuple[Any, float]) -> Any:
        return options[dice.index([float(weight) for _, weight in options])][0]

    def integer(low: int, high: int) -> int:
        return low + dice.index([1.0] * (high - low + 1))

    functions: Mapping[str, Callable[..., Any]] = {
        "choice": choice,
        "weighted_choice": weighted_choice,
        "wildcard": lambda name: list(wildcards.values(name.strip("_"), where)),
        "random": dice.number,
        "randint": integer,
    }
    sandbox = jinja2.sandbox.SandboxedEnvironment()
    sandbox.globals.update(functions)
    try:
        return sandbox.from_string(text).render().strip()
    except (jinja2.TemplateError, TypeError, ValueError, IndexError) as fault:
        raise PayloadError(
            f"{where}: the jinja2 template cannot be rendered ({fault}). There are "
            f"{', '.join(functions)}; blocks of dynamicprompts' own are not known."
        ) from fault
