"""The search space: which axes move, between which limits, and what a point means.

A point gives every axis a value, by the axis's name. Axes are

- a block's value of the searched parameter ("IN00"); blocks that are tied share one
  axis, named by their group;
- what else `Axis` can set: a parameter everywhere ("beta"), in some blocks
  ("beta:IN00"), on the keys that match a pattern ("attn"), for one model of a pool
  ("weight@2"), or which method merges ("method").

`StudySettings.space` is the space of a study, `StudySettings.recipe(point)` the merge
that a point stands for. Everything else treats points as opaque:
`space.axes` lists the axes (`axis.name`, `axis.low`, `axis.high`, `axis.choices`),
`space.whole(point)` adds the fixed ones, `space.baselines()` and
`StudySettings.start_points()` are what is scored before the sampler is asked, and
`space.block_values(point)` are the searched parameter's values by block, for sliders.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lib_merge.core.blocks import Architecture, BlockId
from lib_merge.core.recipe import Rule, Setting
from lib_merge.errors import StudyError

Point = Mapping[str, float]
"""The value of every axis, by the axis's name; of a choice, its number."""

METHOD_AXIS = "method"
"""The axis that chooses among a study's methods."""

MAX_ALONE = 4
"""Pools up to this size have each model alone among their baselines."""


@dataclass(frozen=True)
class BlockRange:
    """Where one block's value may lie; equal limits keep it fixed.

    Attributes:
        block: The block's id.
        low: Smallest value.
        high: Largest value.
        group: Blocks of one group share one value, and limits; "" is on its own.
    """

    block: BlockId
    low: float = 0.0
    high: float = 1.0
    group: str = ""

    def __post_init__(self) -> None:
        _check_limits(f"Block {self.block}", self.low, self.high)

    @property
    def is_fixed(self) -> bool:
        """Whether nothing is searched here."""
        return self.low == self.high

    @property
    def name(self) -> str:
        """The name of its axis."""
        return self.group or str(self.block)

    def clamp(self, value: float) -> float:
        """The nearest value inside."""
        return min(max(value, self.low), self.high)


@dataclass(frozen=True)
class Axis:
    """One number of a point.

    Attributes:
        name: Its name in points; permanent, for it stands in saved studies.
        low: Smallest value.
        high: Largest value; equal limits keep it fixed.
        param: The setting that it is the value of: "beta", "weight@2", "method".
        blocks: Where; empty means everywhere (or wherever the pattern matches).
        pattern: Only keys that contain this (a regular expression); "" means all.
        choices: Names of the values 0, 1 ... of a choice; empty for a number.
        is_integer: Whether only whole numbers make sense.
        default: Where the baselines stand; None: 0, 1 and 0.5 for A, B and uniform.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    param: str = ""
    blocks: tuple[BlockId, ...] = ()
    pattern: str = ""
    choices: tuple[str, ...] = ()
    is_integer: bool = False
    default: float | None = None

    def __post_init__(self) -> None:
        _check_limits(f"Axis {self.name}", self.low, self.high)

    @property
    def is_fixed(self) -> bool:
        """Whether nothing is searched here."""
        return self.low == self.high

    def clamp(self, value: float) -> float:
        """The nearest value inside; a whole number where one is needed."""
        inside = min(max(value, self.low), self.high)
        return float(round(inside)) if self.is_integer or self.choices else inside

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Axis:
        """Read what `asdict` gave."""
        return cls(
            **{
                **data,
                "blocks": tuple(BlockId(str(b)) for b in data.get("blocks", ())),
                "choices": tuple(data.get("choices", ())),
            }
        )


def _check_limits(what: str, low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high)) or low > high:
        raise StudyError(
            f"{what}: the range {low:g} to {high:g} is no range; give a low limit that "
            "is not above the high one."
        )


@dataclass(frozen=True)
class StartPoint:
    """A point that is tried before the sampler is asked.

    Attributes:
        label: What it is called in tables; "A", "B" and "uniform" are the real ones.
        point: Its values.
    """

    label: str
    point: Point


BASELINES = (("A", 0.0), ("B", 1.0), ("uniform", 0.5))
"""What every result is held against: both ends of the line, and its middle."""


class Space:
    """All axes of a study.

    Args:
        ranges: The searched parameter's blocks, tied ones by group.
        axes: What else moves.
        param: The searched parameter.

    Raises:
        StudyError: Two axes of one name, or tied blocks with different limits.
    """

    def __init__(
        self,
        ranges: Sequence[BlockRange],
        axes: Sequence[Axis] = (),
        param: str = "alpha",
    ) -> None:
        self.param = param
        self._ranges = tuple(ranges)
        tied: dict[str, list[BlockRange]] = {}
        for r in ranges:
            if r.group and any(r.group == other.block for other in ranges):
                raise StudyError(
                    f"The group '{r.group}' has the name of a block; give it another."
                )
            tied.setdefault(r.name, []).append(r)
        self.axes = (*(_tied_axis(g, param) for g in tied.values()), *axes)
        names = [axis.name for axis in self.axes]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise StudyError(
                f"Two axes are named {', '.join(twice)}; give groups and axes names "
                "of their own."
            )

    @property
    def free(self) -> tuple[Axis, ...]:
        """The axes that are searched."""
        return tuple(axis for axis in self.axes if not axis.is_fixed)

    def whole(self, point: Point) -> dict[str, float]:
        """A point with the fixed axes' values where it lacks them."""
        fixed = {axis.name: axis.low for axis in self.axes if axis.is_fixed}
        return {**fixed, **point}

    def clamp(self, point: Point) -> dict[str, float]:
        """A whole point moved into the limits."""
        return {axis.name: axis.clamp(point[axis.name]) for axis in self.axes}

    def constant(self, value: float) -> dict[str, float]:
        """One value of the searched parameter everywhere, whatever the limits say."""
        return {
            axis.name: value if axis.default is None else axis.default
            for axis in self.axes
        }

    def baselines(self) -> tuple[StartPoint, ...]:
        """What results are held against: A, B and the middle; or, of a pool, the mean
        of its models and (up to `MAX_ALONE` of them) each model alone."""
        if any(axis.default is None for axis in self.axes):
            return tuple(StartPoint(n, self.constant(v)) for n, v in BASELINES)
        mean = self.constant(0.0)
        shares = [axis.name for axis in self.axes if "@" in axis.param]
        found = [StartPoint("uniform", mean)]
        if 1 < len(shares) <= MAX_ALONE:
            for name in shares:
                alone = {**mean, **dict.fromkeys(shares, 0.0), name: 1.0}
                found.append(StartPoint(f"only {name.partition('@')[2]}", alone))
        return tuple(found)

    def start_points(
        self, further: Iterable[StartPoint] = ()
    ) -> tuple[StartPoint, ...]:
        """The baselines and further points, moved into the limits; equal ones once."""
        starts: list[StartPoint] = []
        for wanted in (*self.baselines(), *further):
            point = self.clamp(wanted.point)
            if all(point != start.point for start in starts):
                is_same = point == dict(wanted.point)
                label = wanted.label if is_same else f"near {wanted.label}"
                starts.append(StartPoint(label, point))
        return tuple(starts)

    def block_values(self, point: Point) -> dict[BlockId, float]:
        """The searched parameter's value of every block."""
        return {r.block: float(point[r.name]) for r in self._ranges}

    def from_blocks(self, values: Mapping[str, float]) -> dict[str, float]:
        """The whole point nearest to some values by block.

        Tied blocks take the mean of theirs; blocks without a value and other axes take
        the value of the uniform baseline.
        """
        point = self.constant(0.5)
        named: dict[str, list[float]] = {}
        for r in self._ranges:
            if r.block in values:
                named.setdefault(r.name, []).append(float(values[r.block]))
        point |= {name: statistics.fmean(found) for name, found in named.items()}
        return self.clamp(point)

    def settings(
        self, point: Point, defaults: Mapping[str, float]
    ) -> dict[str, Setting]:
        """What a point sets, by the setting's name; the method's choice left out.

        Args:
            point: A whole point.
            defaults: Values by parameter, where an axis speaks of some blocks only.
        """
        # Blocks outside the point (none by default) stay with A.
        found = {}
        if self._ranges:
            blocks = tuple(self.block_values(point).items())
            found[self.param] = Setting(0.0, blocks)
        for axis in self.axes[len({r.name for r in self._ranges}) :]:
            if axis.param == METHOD_AXIS:
                continue
            value = float(point[axis.name])
            stem = axis.param.partition("@")[0]
            old = found.get(axis.param, Setting(defaults.get(stem, 0.0)))
            found[axis.param] = _with(old, axis, value)
        return found


def _tied_axis(ranges: Sequence[BlockRange], param: str) -> Axis:
    first = ranges[0]
    if any((r.low, r.high) != (first.low, first.high) for r in ranges):
        names = ", ".join(str(r.block) for r in ranges)
        raise StudyError(
            f"The blocks {names} are tied as '{first.name}' but have different limits; "
            "give them the same."
        )
    blocks = tuple(r.block for r in ranges)
    return Axis(first.name, first.low, first.high, param, blocks)


def _with(setting: Setting, axis: Axis, value: float) -> Setting:
    """A setting with an axis's value where the axis speaks."""
    if axis.pattern:
        rule = Rule(value, axis.blocks, axis.pattern)
        return replace(setting, rules=(*setting.rules, rule))
    if axis.blocks:
        values = {**dict(setting.blocks), **dict.fromkeys(axis.blocks, value)}
        return replace(setting, blocks=tuple(values.items()))
    return replace(setting, value=value)


def default_ranges(architecture: Architecture) -> tuple[BlockRange, ...]:
    """Every block that a merge weight acts on, free between 0 and 1."""
    return tuple(BlockRange(block.id) for block in architecture.weighted_blocks())
