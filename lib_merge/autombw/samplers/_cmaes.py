"""CMA-ES, grown from the decided slots alone each time that it is asked.

Scored slots are taken in order, a generation of suggested ones at a time; whoever
suggested them, they tell the same. So several workers can share one search, and a
resumed one needs nothing but its slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lib_merge.autombw.history import Slot
from lib_merge.autombw.samplers._cube import Cube
from lib_merge.autombw.samplers._task import Task, worth
from lib_merge.errors import StudyError

STEP = 1 / 6
"""First standard deviation, in shares of an axis."""

MARGIN = 0.1
"""The first mean keeps this far from the ends: half of the draws would lie outside."""


class CmaSampler:
    """Evolves a normal distribution towards the better points."""

    keeps_state = False

    def suggest(self, task: Task) -> dict[str, float]:
        """A draw from the distribution that the scored slots have led to."""
        cube = Cube(task.axes)
        if cube.n_sides < 2:
            raise StudyError(
                "CMA-ES needs at least two free axes; free another one, or choose the "
                "sampler gp."
            )
        grown = _grown(cube, task.slots)
        grown.reseed_rng(task.seed)
        return cube.point(grown.ask())


def _grown(cube: Cube, slots: Sequence[Slot]) -> Any:
    import numpy as np

    cma = _import_cmaes()
    n = cube.n_sides
    starts = [s for s in slots if s.is_start and s.score is not None]
    best = max(starts, key=lambda slot: slot.score or 0.0, default=None)
    first = np.full(n, 0.5) if best is None else np.array(cube.row(best.point))
    evolution = cma.CMA(
        mean=first.clip(MARGIN, 1 - MARGIN),
        sigma=STEP,
        bounds=np.array([[0.0, 1.0]] * n),
        seed=1,
    )
    scored = [s for s in slots if s.score is not None and not s.is_start]
    size = evolution.population_size
    for start in range(0, len(scored) - size + 1, size):
        if evolution.should_stop():
            break
        generation = scored[start : start + size]
        evolution.tell([(np.array(cube.row(s.point)), -worth(s)) for s in generation])
    return evolution


def _import_cmaes() -> Any:
    try:
        import cmaes
    except ImportError as fault:
        raise StudyError(
            "The sampler cmaes needs the package cmaes, which is not installed; run: "
            "pip install cmaes"
        ) from fault
    return cmaes
