"""Sobol points: a scrambled sequence that covers the space, one point a slot."""

from __future__ import annotations

import warnings
from typing import Any

from lib_merge.autombw.samplers._task import Task
from lib_merge.autombw.space import Axis


class SobolSampler:
    """Covers the space evenly."""

    keeps_state = False

    def suggest(self, task: Task) -> dict[str, float]:
        """The sequence's next point."""
        return sobol_point(task, task.n_searched)


def sobol_point(task: Task, number: int) -> dict[str, float]:
    """A point of the study's sequence.

    Args:
        task: Its axes and the study's seed.
        number: Which point, from 0.
    """
    from scipy.stats import qmc

    with warnings.catch_warnings():
        # scipy renames the argument; both names work, one of them warns.
        warnings.simplefilter("ignore")
        sequence: Any = qmc.Sobol(len(task.axes), scramble=True, seed=task.study_seed)
    if number:
        sequence.fast_forward(number)
    (row,) = sequence.random(1)
    pairs = zip(task.axes, row, strict=True)
    return {axis.name: _value(axis, float(share)) for axis, share in pairs}


def _value(axis: Axis, share: float) -> float:
    if axis.choices:
        return float(min(int(share * len(axis.choices)), len(axis.choices) - 1))
    if axis.is_integer:
        n_values = axis.high - axis.low + 1
        return axis.clamp(axis.low + int(share * n_values))
    return axis.low + share * (axis.high - axis.low)
