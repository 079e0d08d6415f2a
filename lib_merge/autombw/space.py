"""The search space: which blocks move, between which limits, and what a point means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lib_merge.core.blocks import Architecture, BlockId
from lib_merge.core.dtypes import DType
from lib_merge.core.recipe import Recipe, Setting, simple_recipe
from lib_merge.errors import StudyError

Point = Mapping[str, float]
"""The searched parameter's value for every block, by block id."""


@dataclass(frozen=True)
class BlockRange:
    """Where one block's value may lie; equal limits keep it fixed.

    Attributes:
        block: The block's id.
        low: Smallest value.
        high: Largest value.
    """

    block: BlockId
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        is_finite = math.isfinite(self.low) and math.isfinite(self.high)
        if not is_finite or self.low > self.high:
            raise StudyError(
                f"Block {self.block}: the range {self.low:g} to {self.high:g} is no "
                "range; give a low limit that is not above the high one."
            )

    @property
    def is_fixed(self) -> bool:
        """Whether nothing is searched here."""
        return self.low == self.high

    def clamp(self, value: float) -> float:
        """The nearest value inside."""
        return min(max(value, self.low), self.high)


@dataclass(frozen=True)
class StartPoint:
    """A point that is tried before the sampler is asked.

    Attributes:
        label: What it is called in tables; "A", "B" and "uniform" are the real ones.
        point: Its values.
    """

    label: str
    point: Point


def default_ranges(architecture: Architecture) -> tuple[BlockRange, ...]:
    """Every block that a merge weight acts on, free between 0 and 1."""
    return tuple(BlockRange(block.id) for block in architecture.weighted_blocks())


def constant_point(ranges: Sequence[BlockRange], value: float) -> dict[str, float]:
    """One value for every block, whatever the ranges say."""
    return {str(r.block): value for r in ranges}


BASELINES = (("A", 0.0), ("B", 1.0), ("uniform", 0.5))
"""What every result is held against: both ends of the line, and its middle."""


def start_points(ranges: Sequence[BlockRange]) -> tuple[StartPoint, ...]:
    """All A, all B and 0.5, each moved into the ranges; equal ones once."""
    starts: list[StartPoint] = []
    for label, value in BASELINES:
        wanted = constant_point(ranges, value)
        point = {str(r.block): r.clamp(value) for r in ranges}
        if all(point != start.point for start in starts):
            name = label if point == wanted else f"near {label}"
            starts.append(StartPoint(name, point))
    return tuple(starts)


def point_recipe(
    point: Point,
    *,
    method: str,
    param: str,
    models: Sequence[str],
    compute_dtype: DType = DType.F32,
    save_dtype: DType | None = DType.F16,
) -> Recipe:
    """The merge that a point stands for.

    Args:
        point: Values by block id.
        method: The merge method's id.
        param: The parameter that the values are for.
        models: Model files, in the method's order.
        compute_dtype: What is computed in.
        save_dtype: What merged tensors are rounded to; None keeps each one's type.
    """
    blocks = tuple((BlockId(name), float(value)) for name, value in point.items())
    # Blocks outside the point (none by default) stay with A.
    setting = Setting(0.0, blocks)
    return simple_recipe(
        method,
        tuple(models),
        {param: setting},
        compute_dtype=compute_dtype,
        save_dtype=save_dtype,
    )
