"""A search space as text: what is free, bounded, fixed, tied, and searched beside.

    IN00-IN05=0.2..0.8         bounds blocks; M00=0.5 fixes one; BASE is text
    IN06-IN11=tied:deep        one value for all of them, named "deep"
    tied=symmetric             IN00 with the last OUT block, and so on to the middle
    tied=sides                 one value for all IN blocks, one for all OUT blocks
    /attn/=0..1                keys that contain "attn", in every block
    IN00-IN11:/attn/=0..1      the same, in some blocks
    density=0.1..0.9           another parameter of the method, everywhere
    density:IN00-IN11=0.1..0.9 the same, for each of these blocks by itself
    weight@2=0..2              the second model's share in a pool
    weights=0..1               the share of every model in a pool
    mode=sign|magnitude        the choices of a parameter that is one; or mode=*
    method=weighted_sum|slerp  which method merges

Parts are separated by commas, semicolons or line ends; later ones win. `read_space`
gives what `StudySettings` wants: ranges, axes, methods.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from lib_merge.autombw.space import METHOD_AXIS, Axis, BlockRange
from lib_merge.core.blocks import Architecture, BlockId
from lib_merge.core.method import MergeMethod
from lib_merge.core.params import ParamSpec, split_name
from lib_merge.errors import RecipeError

_NUMBER = r"\s*([-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?)\s*"
_RANGE = re.compile(rf"{_NUMBER}(?:\.\.{_NUMBER})?")
_WHERE = re.compile(r"(?:(?P<blocks>[^:/]+):)?/(?P<pattern>.+)/")
_SPLIT = re.compile(r"[,;\n]+(?![^/=]*/\s*=)")


@dataclass(frozen=True)
class SearchedSpace:
    """What is searched, as `StudySettings` has it.

    Attributes:
        ranges: Blocks of the searched parameter.
        axes: What else moves.
        methods: What the axis "method" chooses among.
    """

    ranges: tuple[BlockRange, ...]
    axes: tuple[Axis, ...] = ()
    methods: tuple[str, ...] = ()


@dataclass
class _Draft:
    """A space that is being read."""

    method: MergeMethod
    arch: Architecture
    known: Callable[[str], MergeMethod]
    n_models: int
    ranges: dict[BlockId, BlockRange]
    axes: dict[str, Axis] = field(default_factory=dict)
    methods: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)

    def main(self) -> ParamSpec | None:
        """The parameter that is searched by block, for its limits; None in a pool."""
        return None if self.method.is_pool else self.method.block_param

    def n_weights(self) -> int:
        """Models of the pool."""
        return self.n_models - self.method.n_single


def read_space(
    text: str,
    *,
    method: MergeMethod,
    arch: Architecture,
    n_models: int,
    ranges: Sequence[BlockRange],
    known: Callable[[str], MergeMethod],
) -> SearchedSpace:
    """Read a search space.

    Args:
        text: Parts as above; an empty one changes nothing.
        method: The study's method.
        arch: The models' architecture.
        n_models: How many models are merged.
        ranges: What the blocks are where the text says nothing.
        known: Finds a method by its id.

    Raises:
        RecipeError: One sentence for every part that cannot be used.
    """
    draft = _Draft(method, arch, known, n_models, {r.block: r for r in ranges})
    for part in (p.strip() for p in _SPLIT.split(text) if p.strip()):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name or not value:
            draft.problems.append(
                f"Search space: '{part}' cannot be read; write e.g. IN00-IN05=0.2..0.8."
            )
            continue
        _read_part(draft, name, value)
    if draft.problems:
        raise RecipeError(draft.problems)
    return SearchedSpace(
        tuple(draft.ranges.values()), tuple(draft.axes.values()), draft.methods
    )


def _read_part(draft: _Draft, name: str, value: str) -> None:
    if name == METHOD_AXIS:
        _read_methods(draft, value)
    elif name == "tied":
        _tie_by_rule(draft, value)
    elif (match := _WHERE.fullmatch(name)) is not None:
        _read_pattern(draft, match["blocks"], match["pattern"], value)
    elif draft.arch.expand(name):
        _read_blocks(draft, name, value)
    else:
        _read_param(draft, name, value)


def _read_blocks(draft: _Draft, name: str, value: str) -> None:
    blocks = [b for b in draft.arch.expand(name) if b in draft.ranges]
    if not blocks:
        draft.problems.append(
            f"Search space: {name} names no block whose value is searched here."
        )
        return
    if value.lower().startswith("tied:"):
        group = value[5:].strip()
        for block in blocks:
            draft.ranges[block] = replace(draft.ranges[block], group=group)
        _align(draft, group)
        return
    limits = _limits(draft, name, value, draft.main())
    if limits is not None:
        for block in blocks:
            low, high = limits
            draft.ranges[block] = replace(draft.ranges[block], low=low, high=high)
        for group in {draft.ranges[block].group for block in blocks} - {""}:
            _align(draft, group, limits)


def _align(
    draft: _Draft, group: str, limits: tuple[float, float] | None = None
) -> None:
    """Give all blocks of a group the same limits: the ones told, or the first's."""
    tied = [r for r in draft.ranges.values() if r.group == group]
    low, high = limits or (tied[0].low, tied[0].high)
    for r in tied:
        draft.ranges[r.block] = replace(r, low=low, high=high)


def _tie_by_rule(draft: _Draft, rule: str) -> None:
    sides = {
        side: [b for b in draft.ranges if re.fullmatch(side + r"\d+", b)]
        for side in ("IN", "OUT")
    }
    if rule == "sides":
        groups = {f"{side} side": blocks for side, blocks in sides.items()}
    elif rule == "symmetric":
        pairs = zip(sides["IN"], reversed(sides["OUT"]), strict=False)
        groups = {f"{a}+{b}": [a, b] for a, b in pairs}
    else:
        draft.problems.append(
            f"Search space: tied={rule} is not known; use tied=symmetric, tied=sides, "
            "or e.g. IN00-IN05=tied:early."
        )
        return
    for group, blocks in groups.items():
        for block in blocks:
            draft.ranges[block] = replace(draft.ranges[block], group=group)
        if blocks:
            _align(draft, group)


def _read_pattern(draft: _Draft, where: str | None, pattern: str, value: str) -> None:
    main = draft.main()
    blocks = draft.arch.expand(where) if where else ()
    name = f"{where}:/{pattern}/" if where else f"/{pattern}/"
    if main is None or (where and not blocks):
        draft.problems.append(
            f"Search space: {name} needs a parameter per block and known blocks."
        )
        return
    try:
        re.compile(pattern)
    except re.error as fault:
        draft.problems.append(f"Search space: /{pattern}/ is no pattern: {fault}.")
        return
    limits = _limits(draft, name, value, main)
    if limits is not None:
        draft.axes[name] = Axis(name, *limits, main.name, blocks, pattern)


def _read_param(draft: _Draft, name: str, value: str) -> None:
    stem, colon, where = (piece.strip() for piece in name.partition(":"))
    if stem == "weights":
        for i in range(1, draft.n_weights() + 1):
            _read_param(draft, f"weight@{i}", value)
        return
    base, number = split_name(stem)
    spec = draft.method.param(base)
    is_model = number is None or number < draft.n_weights()
    if spec is None or not is_model or spec == draft.main():
        known = ", ".join(s.name for s in draft.method.params) or "none"
        draft.problems.append(
            f"Search space: '{name}' is no block, and no further parameter of "
            f"{draft.method.id} for {draft.n_models} models; it has: {known}."
        )
        return
    blocks = draft.arch.expand(where) if colon else ()
    if colon and (not blocks or not spec.param.per_block):
        draft.problems.append(
            f"Search space: {stem} cannot be set for '{where}': it needs a known block "
            "and a parameter that may differ per block."
        )
        return
    axis = _param_axis(draft, spec, stem, value)
    if axis is None:
        return
    if not colon:
        draft.axes[stem] = axis
    for block in blocks:
        by_block = f"{stem}:{block}"
        draft.axes[by_block] = replace(axis, name=by_block, blocks=(block,))


def _param_axis(draft: _Draft, spec: ParamSpec, name: str, value: str) -> Axis | None:
    """The axis of a parameter; its default is where the baselines stand."""
    if spec.param.choices:
        return _choice_axis(draft, spec, name, value)
    limits = _limits(draft, name, value, spec)
    if limits is None:
        return None
    axis = Axis(name, *limits, name, is_integer=spec.param.is_integer)
    return replace(axis, default=axis.clamp(spec.default))


def _choice_axis(draft: _Draft, spec: ParamSpec, name: str, value: str) -> Axis | None:
    """All choices of a parameter: some of them only would change what numbers mean."""
    wanted = {part.strip().lower() for part in value.split("|")}
    if wanted != {"*"} and wanted != set(spec.param.choices):
        draft.problems.append(
            f"Search space: {name}={value} must name all choices: "
            f"{'|'.join(spec.param.choices)} (or *)."
        )
        return None
    names = spec.param.choices
    top = float(len(names) - 1)
    return Axis(name, 0.0, top, name, choices=names, default=spec.default)


def _read_methods(draft: _Draft, value: str) -> None:
    """Several methods: the study's own first, all with the searched parameters."""
    names = [part.strip() for part in value.split("|") if part.strip()]
    names = list(dict.fromkeys([draft.method.id, *names]))
    main = draft.main()
    for name in names[1:]:
        other = draft.known(name)
        spec = other.param(main.name) if main else None
        fits = main is None or (spec is not None and spec.param.per_block)
        if not fits or not other.accepts(draft.n_models):
            wants = f"{draft.n_models} models"
            wants += f" and a parameter {main.name} per block" if main else ""
            draft.problems.append(
                f"Search space: {name} cannot stand in for {draft.method.id}: it does "
                f"not take {wants}."
            )
    if len(names) < 2:
        draft.problems.append("Search space: method= needs a second method, after |.")
    draft.methods = tuple(names)
    top = float(len(names) - 1)
    draft.axes[METHOD_AXIS] = Axis(
        METHOD_AXIS, 0.0, top, METHOD_AXIS, choices=tuple(names), default=0.0
    )


def _limits(
    draft: _Draft, name: str, value: str, spec: ParamSpec | None
) -> tuple[float, float] | None:
    """Both limits, checked against the parameter's own."""
    match = _RANGE.fullmatch(value)
    if match is None or spec is None:
        draft.problems.append(
            f"Search space: {name}={value} cannot be read; write a number, or two as "
            "0.2..0.8."
        )
        return None
    low = float(match[1])
    high = low if match[2] is None else float(match[2])
    if not spec.param.low <= low <= high <= spec.param.high:
        draft.problems.append(
            f"Search space: {name}={value} must lie, in rising order, within "
            f"{spec.param.low:g} to {spec.param.high:g}."
        )
        return None
    return low, high
