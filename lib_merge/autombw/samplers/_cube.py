"""Axes as a cube: numbers scaled to 0 .. 1, a choice as one side for each name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lib_merge.autombw.space import Axis

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


class Cube:
    """Translates points to rows of numbers in [0, 1] and back.

    Args:
        axes: The free axes, in order.
    """

    def __init__(self, axes: Sequence[Axis]) -> None:
        self.axes = tuple(axes)
        self._starts: list[int] = []
        n = 0
        for axis in self.axes:
            self._starts.append(n)
            n += len(axis.choices) or 1
        self.n_sides = n

    def row(self, point: Mapping[str, float]) -> list[float]:
        """A point as a row."""
        found: list[float] = []
        for axis in self.axes:
            value = float(point[axis.name])
            if axis.choices:
                found += [float(i == value) for i in range(len(axis.choices))]
            else:
                found.append((axis.clamp(value) - axis.low) / (axis.high - axis.low))
        return found

    def rows(self, points: Sequence[Mapping[str, float]]) -> Array:
        """Points as rows."""
        import numpy as np

        return np.array([self.row(p) for p in points]).reshape(-1, self.n_sides)

    def point(self, row: Any) -> dict[str, float]:
        """A row as a point."""
        found: dict[str, float] = {}
        for axis, start in zip(self.axes, self._starts, strict=True):
            if axis.choices:
                sides = list(row[start : start + len(axis.choices)])
                found[axis.name] = float(sides.index(max(sides)))
            else:
                value = axis.low + float(row[start]) * (axis.high - axis.low)
                found[axis.name] = axis.clamp(value)
        return found

    def settle(self, rows: Array) -> Array:
        """Rows moved to where points are: one name a choice, whole numbers."""
        if all(not axis.choices and not axis.is_integer for axis in self.axes):
            return rows.clip(0.0, 1.0)
        return self.rows([self.point(row) for row in rows.clip(0.0, 1.0)])

    def movable(self) -> list[bool]:
        """For each side, whether it may move by a little."""
        found: list[bool] = []
        for axis in self.axes:
            is_free = not axis.choices and not axis.is_integer
            found += [is_free] * (len(axis.choices) or 1)
        return found
