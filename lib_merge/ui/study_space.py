"""The search space of a study as text: limits, ties, further axes, the start vector."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from lib_merge.autombw.space import METHOD_AXIS, Axis, BlockRange, Space
from lib_merge.core.blocks import Architecture, Block, BlockId, Component
from lib_merge.core.method import MergeMethod
from lib_merge.core.params import ParamSpec
from lib_merge.errors import MergeError, RecipeError
from lib_merge.formats.block_text import Scope, expand_blocks, read_blocks
from lib_merge.formats.orders import find_order, split_weights
from lib_merge.methods import methods
from lib_merge.ui.guard import problems_of
from lib_merge.ui.study_choices import (
    BY_PART,
    EMBEDDINGS,
    GROUPS,
    MIRRORED,
    OUTPUT,
    PAIRED,
    TEXT,
    TRANSFORMER,
)

_LIMITS = re.compile(r"^(?P<name>[^=]+)=(?P<low>[^=]+?)(\.\.(?P<high>[^=]+))?$")

_AXIS = re.compile(
    r"^(?P<param>[A-Za-z_]+(@\d+)?)(@(?P<blocks>[^:=@]+))?(:(?P<pattern>[^=]+))?"
    r"=(?P<value>.+)$"
)
_NUMBERED = re.compile(r"^([A-Z_]+?)(\d+)$")

AXIS_HELP = "beta=0..1, beta@IN00-IN05=0.2..0.8, alpha:attn=0..1, method=slerp|nuslerp"


def read_ranges(
    groups: Sequence[str], limits: str, arch: Architecture, spec: ParamSpec
) -> tuple[BlockRange, ...]:
    """The search space: ticked groups from 0 to 1, the others fixed at A, then limits.

    Args:
        groups: Names out of GROUPS.
        limits: "IN00-IN05=0.2..0.8" bounds blocks, "M00=0.5" fixes one.
        arch: Whose blocks are meant.
        spec: The searched parameter, for its limits.

    Raises:
        RecipeError: One sentence for every part of `limits` that cannot be used.
    """
    top = min(1.0, spec.param.high)
    ranges = {
        block.id: BlockRange(block.id, 0.0, top if group_of(block) in groups else 0.0)
        for block in arch.weighted_blocks()
    }
    problems: list[str] = []
    for part in (p.strip() for p in re.split(r"[,;\n]+", limits) if p.strip()):
        found = _LIMITS.match(part)
        names = arch.expand(found["name"]) if found else ()
        bounds = _bounds(found["low"], found["high"]) if found else None
        if bounds is None or not names:
            problems.append(
                f"Limits: '{part}' cannot be read; write IN00-IN05=0.2..0.8 to bound "
                f"blocks of {arch.label}, or M00=0.5 to fix one."
            )
            continue
        low, high = bounds
        if not spec.param.low <= low <= high <= spec.param.high:
            problems.append(
                f"Limits: '{part}' must lie, in rising order, within "
                f"{spec.param.low:g} to {spec.param.high:g}."
            )
            continue
        ranges |= {n: BlockRange(n, low, high) for n in names if n in ranges}
    if problems:
        raise RecipeError(problems)
    return tuple(ranges.values())


def group_of(block: Block) -> str:
    """Which of GROUPS a block is in."""
    if block.component.is_text_encoder:
        return TEXT
    if block.component is not Component.UNET:
        return ""
    number = _NUMBERED.match(block.id)
    if number:
        return number[1] if number[1] in GROUPS else TRANSFORMER
    return OUTPUT if block.id in ("OUT", "FINAL") else EMBEDDINGS


def groups_of(arch: Architecture) -> list[str]:
    """The groups that an architecture has, in their order."""
    found = {group_of(block) for block in arch.weighted_blocks()}
    return [group for group in GROUPS if group in found]


def tied(
    ranges: Sequence[BlockRange], preset: str, lines: str, arch: Architecture
) -> tuple[BlockRange, ...]:
    """The same ranges with blocks that share a value.

    Only blocks with equal limits are tied by a preset; what lines tie must have them.

    Args:
        ranges: The blocks.
        preset: One of TIES.
        lines: "early = IN00-IN03, M00", a line a group; these win over the preset.
        arch: Whose blocks are meant.

    Raises:
        RecipeError: One sentence for every line that cannot be used.
    """
    names = dict(_preset(ranges, preset))
    problems: list[str] = []
    for line in (text.strip() for text in re.split(r"[;\n]+", lines)):
        if not line:
            continue
        name, _, blocks = line.partition("=")
        parts = re.split(r"[,+\s]+", blocks.strip())
        found = [block for part in parts for block in arch.expand(part)]
        if not name.strip() or not all(map(arch.expand, parts)):
            problems.append(
                f"Ties: '{line}' cannot be read; write early=IN00-IN03, M00 with "
                f"blocks of {arch.label}."
            )
        names |= dict.fromkeys(found, name.strip())
    if problems:
        raise RecipeError(problems)
    return _grouped(ranges, names)


def _grouped(
    ranges: Sequence[BlockRange], names: Mapping[BlockId, str]
) -> tuple[BlockRange, ...]:
    """Ranges with their groups; a group of one block is none."""
    sizes: dict[str, int] = {}
    for r in ranges:
        if r.block in names:
            sizes[names[r.block]] = sizes.get(names[r.block], 0) + 1
    return tuple(
        replace(r, group=names[r.block])
        if r.block in names and sizes[names[r.block]] > 1
        else r
        for r in ranges
    )


def _preset(ranges: Sequence[BlockRange], preset: str) -> Iterator[tuple[BlockId, str]]:
    """(block, group) pairs of a preset, split further where limits differ."""
    numbered = [(r, *_split(r.block)) for r in ranges if _NUMBERED.match(r.block)]
    last = max((n for _, part, n in numbered if part == "OUT"), default=0)
    for r, part, number in numbered:
        limits = "" if (r.low, r.high) == (0.0, 1.0) else f" {r.low:g}..{r.high:g}"
        if preset == BY_PART:
            yield r.block, f"{part}*{limits}"
        elif preset == PAIRED:
            first = number - number % 2
            yield r.block, f"{part}{first:02d}+{first + 1:02d}{limits}"
        elif preset == MIRRORED and part in ("IN", "OUT"):
            down = number if part == "IN" else last - number
            yield r.block, f"IN{down:02d}+OUT{last - down:02d}{limits}"


def _split(block: BlockId) -> tuple[str, int]:
    found = _NUMBERED.match(block)
    return (found[1], int(found[2])) if found else (block, 0)


def read_axes(
    text: str, method: MergeMethod, arch: Architecture
) -> tuple[tuple[Axis, ...], tuple[str, ...]]:
    """Further axes of a search, and the methods that one of them chooses among.

    Args:
        text: Axes as in `AXIS_HELP`, with commas, semicolons or lines between.
        method: Whose parameters are meant.
        arch: Whose blocks are meant.

    Raises:
        RecipeError: One sentence for every part that cannot be used.
    """
    axes: list[Axis] = []
    chosen: tuple[str, ...] = ()
    problems: list[str] = []
    for part in (p.strip() for p in re.split(r"[;\n]+|,(?!\s*\d)", text)):
        if not part:
            continue
        found = _AXIS.match(re.sub(r"\s*([=@:|]|\.\.)\s*", r"\1", part))
        try:
            if found is None:
                raise RecipeError([f"cannot be read; write it like {AXIS_HELP}."])
            if found["param"] == METHOD_AXIS:
                chosen = _methods(found["value"], method)
                axes.append(_choice(METHOD_AXIS, METHOD_AXIS, chosen, method.id))
            else:
                axes.append(_axis(found, method, arch))
        except MergeError as fault:
            problems += [f"Axis '{part}': {line}" for line in problems_of(fault)]
    if problems:
        raise RecipeError(problems)
    return tuple(axes), chosen


def _methods(value: str, method: MergeMethod) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split("|") if name.strip())
    found = tuple(dict.fromkeys((method.id, *(methods().get(n).id for n in names))))
    for name in found:
        other = methods().get(name)
        if other.is_pool or other.min_models != method.min_models:
            raise RecipeError(
                [f"{name} takes other models than {method.id}; leave it out."]
            )
    return found


def _choice(name: str, param: str, names: Sequence[str], default: str) -> Axis:
    if len(names) < 2:
        raise RecipeError(["names one choice only; name two or more."])
    return Axis(
        name,
        0.0,
        float(len(names) - 1),
        param,
        choices=tuple(names),
        default=float(names.index(default)),
    )


def _axis(found: re.Match[str], method: MergeMethod, arch: Architecture) -> Axis:
    name = found["param"]
    spec = method.param(name.partition("@")[0])
    if spec is None:
        known = ", ".join(p.name for p in method.params)
        raise RecipeError([f"{method.id} has no parameter '{name}'; it has: {known}."])
    places = found["blocks"] or ""
    parts = [part for part in re.split(r"[\s+]+", places) if part]
    blocks = tuple(block for part in parts for block in arch.expand(part))
    if not all(map(arch.expand, parts)):
        raise RecipeError([f"{arch.label} has no blocks '{places}'."])
    pattern = (found["pattern"] or "").strip()
    title = name + (f"@{places}" if places else "") + (f":{pattern}" if pattern else "")
    is_main = spec is method.block_param
    axis = _choice_axis if spec.param.choices else _number_axis
    plain = axis(title, name, spec, found["value"])
    if is_main:
        plain = replace(plain, default=None)
    return replace(plain, blocks=blocks, pattern=pattern)


def _choice_axis(title: str, name: str, spec: ParamSpec, value: str) -> Axis:
    names = spec.param.choices
    if value.strip() != "all" and tuple(value.split("|")) != names:
        raise RecipeError(
            [f"{name} is a choice; write {title}=all ({'|'.join(names)})."]
        )
    return _choice(title, name, names, spec.text_of(spec.default))


def _number_axis(title: str, name: str, spec: ParamSpec, value: str) -> Axis:
    low, high = spec.param.low, spec.param.high
    first, _, last = value.partition("..")
    bounds = _bounds(first, last or None)
    if bounds is None or not low <= bounds[0] <= bounds[1] <= high:
        raise RecipeError(
            [
                f"its range must lie, in rising order, within {low:g} to {high:g}; "
                f"write {title}={low:g}..{high:g}."
            ]
        )
    return Axis(
        title,
        *bounds,
        param=name,
        is_integer=spec.param.is_integer,
        default=min(max(spec.default, bounds[0]), bounds[1]),
    )


def read_start(
    text: str, order: str | None, space: Space, method: MergeMethod, arch: Architecture
) -> dict[str, float]:
    """A start vector in any known order, or by name, as a whole point.

    Args:
        text: Numbers, or pairs like IN04=0.3.
        order: The numbers' order; None where the count leaves no doubt, or names are
            given.
        space: The study's axes.
        method: Whose main parameter is meant.
        arch: Whose blocks are meant.

    Raises:
        RecipeError: It cannot be read, or several orders fit.
    """
    if "=" in text or ":" in text:
        problems: list[str] = []
        scope = Scope(method, arch)
        named = read_blocks(text.splitlines(), scope, "Start vector", problems)
        if problems:
            raise RecipeError(problems)
        pairs = [(one.block, one.value) for one in named]
        return space.from_blocks(
            {str(block): value for block, value in expand_blocks(pairs, arch).items()}
        )
    numbers = split_weights(text, "Start vector")
    chosen = find_order(len(numbers), order, "Start vector")
    setting = chosen.setting(numbers, is_sdxl=arch.id == "sdxl")
    given = expand_blocks(setting.blocks, arch)
    values = {str(b.id): given.get(b.id, 0.0) for b in arch.weighted_blocks()}
    return space.from_blocks(values)


def _bounds(low: str, high: str | None) -> tuple[float, float] | None:
    try:
        first = float(low)
        last = first if high is None else float(high)
    except ValueError:
        return None
    return (first, last) if math.isfinite(first) and math.isfinite(last) else None
