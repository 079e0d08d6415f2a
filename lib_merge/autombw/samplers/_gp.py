"""The default sampler: expected improvement of a Gaussian process of block weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lib_merge.autombw import fidelity
from lib_merge.autombw.history import Slot, shot_effects
from lib_merge.autombw.samplers._cube import Cube
from lib_merge.autombw.samplers._gaussian import Data, GaussianProcess
from lib_merge.autombw.samplers._sobol import sobol_point
from lib_merge.autombw.samplers._task import N_STARTUP, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

N_SPREAD = 150
"""Candidates drawn anywhere; as many again are the best points, changed a little."""

REFITS = 8
"""The process is fitted anew each time that it has grown by one part in so many."""

N_CLIMBS = 6
"""Candidates that are improved by following the slope."""

N_STEPS = 25
FIRST_STEP = 0.06
"""Steps up the slope, and how far the first one goes in every axis."""

MIN_GAP = 0.005
"""A suggestion differs at least so much, in some axis, from every point that was
measured: the same merge renders the same pictures, which tell nothing new."""

GUESS_WEIGHT = 0.25
"""How well an estimate is known, against a whole trial, where nothing tells."""

Acquire = Callable[[Any], tuple[Any, Any]]
"""Log acquisition of some rows, and its slopes."""


class GaussianSampler:
    """Covers the space first, then goes where the process expects the most gain."""

    keeps_state = False

    def __init__(self) -> None:
        self._fits: dict[tuple[int, int], Array] = {}

    def suggest(self, task: Task) -> dict[str, float]:
        """The next point."""
        scored = [slot for slot in task.slots if _is_scored(slot, task.n_objectives)]
        if len(scored) + len(task.pending) < N_STARTUP or len(scored) < 2:
            return sobol_point(task, task.n_searched)
        import numpy as np

        rng = np.random.default_rng(task.seed)
        cube = Cube(task.axes)
        rows = cube.rows([slot.point for slot in scored])
        known = rows
        data = _data(scored, task.slots, rows, _goal(task, rng))
        process = GaussianProcess(data, self._hyperparameters(task, scored, rows))
        # What other workers measure is believed to come out as expected, so that
        # nobody else goes there; so is what failed, for it never counts as low.
        blind = [*task.pending, *(s.point for s in task.slots if s.score is None)]
        if blind:
            known = np.concatenate([rows, cube.rows(blind)])
            process = process.believing(known[len(rows) :])
        acquire = _Improvement(process, _admission(scored, rows), known)
        return cube.point(_climb(acquire, cube, known, rng))

    def _hyperparameters(
        self, task: Task, scored: Sequence[Slot], rows: Array
    ) -> Array | None:
        """Those of the process of the first so many trials: one fit serves a while.

        How many is a function of the number of trials alone, and what was fitted is
        only remembered, so that a resumed study finds the same. So the fit knows
        nothing of later trials, not even what they say of the luck in earlier ones.
        """
        n = len(scored)
        n_fitted = n - n % max(1, n // REFITS)
        if task.n_objectives > 1 or n_fitted < N_STARTUP:
            return None
        first = scored[:n_fitted]
        goal = [slot.score or 0.0 for slot in first]
        key = (n_fitted, hash((*goal, rows.tobytes()[:64])))
        if key not in self._fits:
            last = next(i for i, slot in enumerate(task.slots) if slot is first[-1])
            data = _data(first, task.slots[: last + 1], rows[:n_fitted], goal)
            self._fits = {key: GaussianProcess(data).theta}
        return self._fits[key]


def posterior_means(
    task: Task, slots: Sequence[Slot]
) -> tuple[tuple[float, float], ...] | None:
    """What the process makes of some slots' scores: mean and standard deviation.

    Returns:
        One pair a slot; None while there are too few scores to fit a process to.
    """
    scored = [slot for slot in task.slots if slot.score is not None]
    if len(scored) < N_STARTUP:
        return None
    cube = Cube(task.axes)
    rows = cube.rows([slot.point for slot in scored])
    scores = [slot.score or 0.0 for slot in scored]
    process = GaussianProcess(_data(scored, task.slots, rows, scores))
    mean, deviation = process.predict(cube.rows([slot.point for slot in slots]))
    return tuple(zip(mean.tolist(), deviation.tolist(), strict=True))


def _is_scored(slot: Slot, n_objectives: int) -> bool:
    return slot.score is not None and len(slot.values) >= n_objectives - 1


def _goal(task: Task, rng: Any) -> list[float]:
    """What is to be raised: the score, or this slot's mixture of the objectives.

    Every suggestion weighs the objectives anew (J. Knowles, ParEGO, 2006,
    https://doi.org/10.1109/TEVC.2005.851274), so that together they follow the whole
    Pareto front.
    """
    scored = [slot for slot in task.slots if _is_scored(slot, task.n_objectives)]
    if task.n_objectives == 1:
        return [slot.score or 0.0 for slot in scored]
    import numpy as np

    table = np.array([[s.score, *s.values[: task.n_objectives - 1]] for s in scored])
    low, high = table.min(0), table.max(0)
    scaled = (table - low) / np.where(high > low, high - low, 1.0)
    weights = rng.dirichlet(np.ones(task.n_objectives))
    weighted = weights * scaled
    # The worst objective counts, and a little of all.
    mixed: list[float] = (
        -((weights - weighted).max(1)) + 0.05 * weighted.sum(1)
    ).tolist()
    return mixed


def _data(
    scored: Sequence[Slot], slots: Sequence[Slot], rows: Array, goal: Sequence[float]
) -> Data:
    import numpy as np

    effects = shot_effects(slots)
    n_whole = len(effects.effects)
    luck = None
    if effects.luck is not None and n_whole:
        luck = effects.luck / math.sqrt(n_whole)
    weights = [_weight(slot, slots, n_whole, luck) for slot in scored]
    is_score = goal == [slot.score or 0.0 for slot in scored]
    return Data(rows, np.array(goal), np.array(weights), luck if is_score else None)


def _weight(
    slot: Slot, slots: Sequence[Slot], n_whole: int, luck: float | None
) -> float:
    """How well a slot's score is known, against a whole trial's."""
    if slot.is_measured:
        return 1.0
    if slot.rung:
        error = fidelity.full_score_error(slots, slot.rung)
        if error is None or luck is None:
            return GUESS_WEIGHT
        # The rung's own luck is in the error already.
        return min(1.0, luck**2 / (error**2 + 1e-12))
    known = len(slot.images)
    return known / n_whole if 0 < known < n_whole else GUESS_WEIGHT


def _admission(scored: Sequence[Slot], rows: Array) -> GaussianProcess | None:
    """A process of the constraint; None where there is none, or all keep it."""
    import numpy as np

    told = [(row, s.constraint) for row, s in zip(rows, scored, strict=True)]
    known = [(row, value) for row, value in told if value is not None]
    if len(known) < N_STARTUP or all(value <= 0 for _, value in known):
        return None
    values = np.array([value for _, value in known])
    return GaussianProcess(
        Data(np.array([row for row, _ in known]), values, np.ones(len(values)))
    )


class _Improvement:
    """Log expected improvement over the best that the process believes in."""

    def __init__(
        self,
        process: GaussianProcess,
        admission: GaussianProcess | None,
        known: Array,
    ) -> None:
        self._process = process
        self._admission = admission
        self.means, _ = process.predict(known)
        values = self.means
        if admission is not None:
            misses, _ = admission.predict(known)
            kept = values[misses <= 0]
            values = kept if len(kept) else values
        self._best = float(values.max())

    def values(self, rows: Array) -> Any:
        """Log expected improvement, row by row."""
        import numpy as np
        from scipy.special import log_ndtr

        mean, deviation = self._process.predict(rows)
        value = _log_gain((mean - self._best) / deviation)[0] + np.log(deviation)
        if self._admission is not None:
            miss, spread = self._admission.predict(rows)
            value = value + log_ndtr(-miss / spread)
        return value

    def __call__(self, rows: Array) -> tuple[Any, Any]:
        """The same, and its slopes."""
        import numpy as np
        from scipy.special import log_ndtr

        mean, deviation, mean_slope, deviation_slope = self._process.slopes(rows)
        value, by_mean, by_deviation = _log_gain((mean - self._best) / deviation)
        value = value + np.log(deviation)
        slope = by_mean[:, None] * mean_slope + by_deviation[:, None] * deviation_slope
        slope = slope / deviation[:, None]
        if self._admission is not None:
            miss, spread, miss_slope, spread_slope = self._admission.slopes(rows)
            u = -miss / spread
            value = value + log_ndtr(u)
            pull = np.exp(-0.5 * u * u - log_ndtr(u)) / math.sqrt(2 * math.pi)
            toward = -(miss_slope + u[:, None] * spread_slope) / spread[:, None]
            slope = slope + pull[:, None] * toward
        return value, slope


def _log_gain(z: Any) -> tuple[Any, Any, Any]:
    """Log of h = z * Phi(z) + phi(z), and Phi / h and phi / h, exact far below 0.

    There h = phi * (1 - |z| * R), with R = Phi / phi from the scaled complementary
    error function.
    """
    import numpy as np
    from scipy.special import erfcx, ndtr

    up = np.maximum(z, -1.0)
    density = np.exp(-0.5 * up * up) / math.sqrt(2 * math.pi)
    gain = up * ndtr(up) + density
    down = np.minimum(z, -1.0)
    ratio = math.sqrt(math.pi / 2) * erfcx(-down / math.sqrt(2))
    rest = np.where(down > -1e3, 1 + down * ratio, 1 / (down * down))
    log_density = -0.5 * down * down - 0.5 * math.log(2 * math.pi)
    is_up = z > -1
    return (
        np.where(is_up, np.log(gain), log_density + np.log(rest)),
        np.where(is_up, ndtr(up) / gain, ratio / rest),
        np.where(is_up, density / gain, 1 / rest),
    )


def _climb(acquire: _Improvement, cube: Cube, known: Array, rng: Any) -> Array:
    """The best row found: many candidates, the best of them improved by the slope."""
    import numpy as np

    candidates = cube.settle(_candidates(acquire.means, known, rng))
    values = acquire.values(candidates)
    order = np.argsort(-values, kind="stable")[: 10 * N_CLIMBS]
    rows = candidates[order[:N_CLIMBS]]
    climbed = cube.settle(_ascend(acquire, rows, np.array(cube.movable())))
    found = np.concatenate([climbed, candidates[order]])
    worth = np.concatenate([acquire.values(climbed), values[order]])
    # Where everything promising was measured, any other point tells more.
    fresh: list[Array] = [
        row
        for row in found[np.argsort(-worth, kind="stable")]
        if np.abs(known - row).max(1).min() >= MIN_GAP
    ]
    return fresh[0] if fresh else cube.settle(rng.random((1, cube.n_sides)))[0]


def _ascend(acquire: _Improvement, rows: Array, is_movable: Any) -> Array:
    """Rows moved up the slope inside the cube, all at once; each the best it was.

    The steps are Adam's (D. Kingma and J. Ba, 2014, https://arxiv.org/abs/1412.6980),
    shrinking to nothing.
    """
    import numpy as np

    best, top = rows, np.full(len(rows), -np.inf)
    mean, square = np.zeros_like(rows), np.zeros_like(rows)
    for step in range(N_STEPS):
        value, slope = acquire(rows)
        is_better = value > top
        best = np.where(is_better[:, None], rows, best)
        top = np.maximum(value, top)
        slope = np.where(is_movable, slope, 0.0)
        mean = 0.8 * mean + 0.2 * slope
        square = 0.95 * square + 0.05 * slope * slope
        move = mean / (1 - 0.8 ** (step + 1))
        move /= np.sqrt(square / (1 - 0.95 ** (step + 1))) + 1e-9
        rows = (rows + FIRST_STEP * (1 - step / N_STEPS) * move).clip(0.0, 1.0)
    return best


def _candidates(means: Array, known: Array, rng: Any) -> Array:
    """Rows anywhere, and the best known ones with some sides drawn anew or shifted."""
    import numpy as np

    n_sides = known.shape[1]
    best = known[np.argsort(-means, kind="stable")[:5]]
    repeated = np.repeat(best, N_SPREAD // (2 * len(best)), axis=0)
    share = min(1.0, 3.0 / n_sides)
    is_new = rng.random(repeated.shape) < share
    redrawn = np.where(is_new, rng.random(repeated.shape), repeated)
    shifted = repeated + 0.1 * rng.standard_normal(repeated.shape)
    return np.concatenate([rng.random((N_SPREAD, n_sides)), redrawn, shifted])
