"""Optuna's own samplers, asked about a study that is built from the decided slots."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from lib_merge.autombw.history import Slot
from lib_merge.autombw.samplers._task import N_STARTUP, Task, worth
from lib_merge.autombw.space import Axis
from lib_merge.errors import StudyError

MAX_DRIFT = 1e-9
"""How far a told point may lie from the suggestion that it is."""

POPULATION = 20
"""Of NSGA-II: studies have hundreds of trials, not thousands."""


def _gp(optuna: Any, seed: int) -> Any:
    return optuna.samplers.GPSampler(
        seed=seed,
        independent_sampler=optuna.samplers.RandomSampler(seed=seed),
        n_startup_trials=N_STARTUP,
        deterministic_objective=False,
    )


def _tpe(optuna: Any, seed: int) -> Any:
    # What Optuna 4.9 deprecated (prior_weight, gamma, weights ...) stays unnamed: its
    # defaults are the same from 4.2 to 5.
    return optuna.samplers.TPESampler(
        n_startup_trials=N_STARTUP,
        n_ei_candidates=24,
        seed=seed,
        multivariate=False,
        group=False,
        constant_liar=True,
    )


def _nsga2(optuna: Any, seed: int) -> Any:
    return optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)


def _random(optuna: Any, seed: int) -> Any:
    return optuna.samplers.RandomSampler(seed=seed)


_MAKERS: Mapping[str, Callable[[Any, int], Any]] = {
    "gp": _gp,
    "tpe": _tpe,
    "nsga2": _nsga2,
    "random": _random,
}


class OptunaSampler:
    """One of Optuna's samplers.

    Args:
        kind: A key of the table above.
    """

    def __init__(self, kind: str) -> None:
        self._make = _MAKERS[kind]
        self.keeps_state = kind == "nsga2"
        self._study: Any = None
        self._asked: Any = None
        self._n_told = 0

    def suggest(self, task: Task) -> dict[str, float]:
        """Ask the sampler, built anew with this slot's seed."""
        optuna = import_optuna()
        with quiet_optuna(optuna), gradients_allowed():
            if self._study is None or not self.keeps_state:
                self._begin(optuna, task)
            self._tell(optuna, task)
            for point in task.pending if not self.keeps_state else ():
                self._study.add_trial(_running(optuna, point, task.axes))
            self._study.sampler = self._make(optuna, task.seed)
            self._asked = self._study.ask(distributions(optuna, task.axes))
        return {a.name: float(self._asked.params[a.name]) for a in task.axes}

    def _begin(self, optuna: Any, task: Task) -> None:
        directions = ["maximize"] * task.n_objectives
        self._study = optuna.create_study(directions=directions)
        self._asked, self._n_told = None, 0

    def _tell(self, optuna: Any, task: Task) -> None:
        """Tell what became of the last suggestion, and of points of others."""
        fail = optuna.trial.TrialState.FAIL
        for slot in task.slots[self._n_told :]:
            asked, self._asked = self._asked, None
            is_asked = asked is not None and _is_same(asked, slot, task.axes)
            if is_asked:
                values = _values(slot, task.n_objectives)
                state = fail if values is None else None
                self._study.tell(asked, values, state=state)
                continue
            if asked is not None:
                self._study.tell(asked, state=fail)
            self._study.add_trial(_finished(optuna, slot, task))
        self._n_told = len(task.slots)


def _is_same(asked: Any, slot: Slot, axes: Sequence[Axis]) -> bool:
    gaps = (abs(float(asked.params[a.name]) - slot.point[a.name]) for a in axes)
    return max(gaps) <= MAX_DRIFT


def _values(slot: Slot, n_objectives: int) -> list[float] | None:
    """What Optuna is told; None for a slot that says nothing."""
    if slot.score is None or len(slot.values) < n_objectives - 1:
        return None
    return [worth(slot), *slot.values[: n_objectives - 1]]


def _finished(optuna: Any, slot: Slot, task: Task) -> Any:
    values = _values(slot, task.n_objectives)
    state = optuna.trial.TrialState
    return optuna.trial.create_trial(
        state=state.FAIL if values is None else state.COMPLETE,
        values=values,
        params=_params(slot.point, task.axes),
        distributions=distributions(optuna, task.axes),
    )


def _running(optuna: Any, point: Mapping[str, float], axes: Sequence[Axis]) -> Any:
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.RUNNING,
        params=_params(point, axes),
        distributions=distributions(optuna, axes),
    )


def _params(point: Mapping[str, float], axes: Sequence[Axis]) -> dict[str, float]:
    """A point's free axes in the types that Optuna's distributions want."""
    return {
        axis.name: int(point[axis.name])
        if axis.choices or axis.is_integer
        else float(point[axis.name])
        for axis in axes
    }


def distributions(optuna: Any, axes: Sequence[Axis]) -> dict[str, Any]:
    """Optuna's description of some axes."""
    return {axis.name: _distribution(optuna, axis) for axis in axes}


def _distribution(optuna: Any, axis: Axis) -> Any:
    if axis.choices:
        return optuna.distributions.CategoricalDistribution(range(len(axis.choices)))
    if axis.is_integer:
        return optuna.distributions.IntDistribution(int(axis.low), int(axis.high))
    return optuna.distributions.FloatDistribution(axis.low, axis.high)


def import_optuna() -> Any:
    """The optuna package.

    Raises:
        StudyError: It is not installed.
    """
    try:
        import optuna
    except ImportError as fault:
        raise StudyError(
            "AutoMBW needs Optuna, which is not installed; "
            'run: pip install "optuna>=4.2,<6" cmaes scipy'
        ) from fault
    return optuna


@contextmanager
def quiet_optuna(optuna: Any) -> Iterator[None]:
    """Keep Optuna from reporting every in-memory study and every experimental class."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)


@contextmanager
def gradients_allowed() -> Iterator[None]:
    """Undo inference_mode and no_grad, which WebUIs work in: the GP needs gradients."""
    with ExitStack() as stack:
        if "torch" in sys.modules:
            import torch

            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
        yield
