"""The sampler's side of a study: what to try next, the same after every interruption.

The next suggestion depends on nothing but the settings and the slots decided so far,
in order. Each slot's sampler is built anew with a seed derived from the slot's number,
so a study that was killed and resumed asks exactly what an uninterrupted one would
have asked (on one machine with one set of library versions). CMA-ES has a state that
grows from slot to slot: on resume it is not read from disk but grown again by asking
the sampler for every earlier slot.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from lib_merge.autombw.space import BlockRange
from lib_merge.core.seeds import derive_seed
from lib_merge.errors import StudyError, UnknownIdError

_log = logging.getLogger(__name__)

N_STARTUP = 10
"""Decided slots before the Gaussian process or TPE takes over from random points."""


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
        constant_liar=False,
    )


def _cmaes(optuna: Any, seed: int) -> Any:
    # x0 and sigma0 are deprecated; unnamed they are the middle of the ranges and a
    # sixth of the narrowest one, from 4.2 to 5.
    return optuna.samplers.CmaEsSampler(
        n_startup_trials=1,
        independent_sampler=optuna.samplers.RandomSampler(seed=seed),
        warn_independent_sampling=False,
        seed=seed,
        consider_pruned_trials=False,
        restart_strategy=None,
        popsize=None,
        use_separable_cma=False,
        with_margin=False,
        lr_adapt=False,
        source_trials=None,
    )


def _random(optuna: Any, seed: int) -> Any:
    return optuna.samplers.RandomSampler(seed=seed)


SAMPLERS: Mapping[str, Callable[[Any, int], Any]] = {
    "gp": _gp,
    "tpe": _tpe,
    "cmaes": _cmaes,
    "random": _random,
}
"""How to build each sampler: Gaussian process (the default), tree-structured Parzen
estimator, CMA-ES, uniform random points."""


def check_sampler(sampler_id: str) -> None:
    """Raise unless there is a sampler of this id.

    Raises:
        UnknownIdError: There is none; the message lists them.
    """
    if sampler_id not in SAMPLERS:
        raise UnknownIdError(
            f"Unknown sampler '{sampler_id}'; use one of: {', '.join(SAMPLERS)}."
        )


MAX_DRIFT = 1e-9
"""How far a stored point may lie from the same suggestion made again."""


@dataclass(frozen=True)
class Slot:
    """One decided point.

    Attributes:
        point: Values of the free blocks (others may be present).
        score: Its trial's score, or None when it failed for good.
        is_start: Whether it was set beforehand, not suggested.
    """

    point: Mapping[str, float]
    score: float | None
    is_start: bool


class Search:
    """Suggests points; told of every slot in order.

    Args:
        ranges: The search space; only blocks that are not fixed are searched.
        sampler: A key of `SAMPLERS`.
        seed: The study's seed.

    Raises:
        StudyError: No block is free, or Optuna is not installed.
    """

    def __init__(self, ranges: Sequence[BlockRange], sampler: str, seed: int) -> None:
        check_sampler(sampler)
        self._optuna = import_optuna()
        self._sampler = sampler
        self._seed = seed
        self._free = free_distributions(self._optuna, ranges)
        self._n_slots = 0
        self._asked: Any = None
        with self._quiet():
            self._study = self._optuna.create_study(direction="maximize")

    @property
    def n_slots(self) -> int:
        """How many slots are decided."""
        return self._n_slots

    def suggest(self) -> dict[str, float]:
        """Values of the free blocks for the next slot; the same until it is told."""
        if self._asked is None:
            with self._quiet(), gradients_allowed():
                seed = derive_seed(self._seed, "sampler", self._n_slots)
                self._study.sampler = SAMPLERS[self._sampler](self._optuna, seed)
                self._asked = self._study.ask(self._free)
        return {name: float(self._asked.params[name]) for name in self._free}

    def tell(self, slot: Slot) -> None:
        """Add the next decided slot."""
        with self._quiet():
            if self._asked is not None and self._is_asked(slot):
                self._finish(slot)
            else:
                self._add(slot)
        self._asked = None
        self._n_slots += 1

    def replay(self, slots: Sequence[Slot]) -> None:
        """Add slots that were decided before, growing the sampler's state again."""
        for slot in slots:
            if self._sampler == "cmaes" and not slot.is_start:
                self.suggest()
            self.tell(slot)

    def _is_asked(self, slot: Slot) -> bool:
        """Whether the slot is what was suggested; if not, the suggestion is dropped."""
        point = self.suggest()
        drift = max(abs(point[name] - slot.point[name]) for name in point)
        if drift <= MAX_DRIFT:
            return True
        _log.warning(
            "The sampler suggests another point for slot %d than it did before (by %g):"
            " library versions differ. The stored point counts.",
            self._n_slots,
            drift,
        )
        self._study.tell(self._asked, state=self._state("FAIL"))
        return False

    def _state(self, name: str) -> Any:
        return getattr(self._optuna.trial.TrialState, name)

    def _add(self, slot: Slot) -> None:
        trial = self._optuna.trial.create_trial(
            state=self._state("FAIL" if slot.score is None else "COMPLETE"),
            value=slot.score,
            params={name: slot.point[name] for name in self._free},
            distributions=self._free,
        )
        self._study.add_trial(trial)

    def _finish(self, slot: Slot) -> None:
        if slot.score is None:
            self._study.tell(self._asked, state=self._state("FAIL"))
        else:
            self._study.tell(self._asked, slot.score)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        with quiet_optuna(self._optuna):
            yield


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


def free_distributions(optuna: Any, ranges: Sequence[BlockRange]) -> dict[str, Any]:
    """Optuna's description of the free blocks.

    Raises:
        StudyError: Every block is fixed.
    """
    free = {
        str(r.block): optuna.distributions.FloatDistribution(r.low, r.high)
        for r in ranges
        if not r.is_fixed
    }
    if not free:
        raise StudyError("Every block is fixed; free at least one to search.")
    return free


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
