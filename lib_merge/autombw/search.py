"""The sampler's side of a study: what to try next, the same after every interruption.

The next suggestion depends on nothing but the settings and the slots decided so far, in
order (and, with several workers, on what the others are measuring). Every slot's
sampler is seeded by the study's seed and the slot's number, so a study that was killed
and resumed asks exactly what an uninterrupted one would have asked (on one machine with
one set of library versions).

    search = Search(settings.space.axes, settings.sampler, settings.seed,
                    n_objectives=settings.n_objectives)
    search.replay(slots)             # on start and on resume
    point = space.whole(search.suggest(pending))
    search.tell(slot)                # `history.Slot`, every decided slot in order
    search.ranking()                 # the finalists' order: measured slots, best first
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lib_merge.autombw.diversity import pareto_front
from lib_merge.autombw.history import Slot, best_slot
from lib_merge.autombw.samplers import DEFAULT, SAMPLERS, SamplerInfo
from lib_merge.autombw.samplers._gp import posterior_means
from lib_merge.autombw.samplers._optuna import (
    distributions,
    import_optuna,
    quiet_optuna,
)
from lib_merge.autombw.samplers._sobol import sobol_point
from lib_merge.autombw.samplers._task import N_STARTUP, Task
from lib_merge.autombw.space import Axis, BlockRange, Space
from lib_merge.core.seeds import derive_seed
from lib_merge.errors import StudyError, UnknownIdError

if TYPE_CHECKING:
    from lib_merge.autombw.settings import StudySettings

__all__ = [
    "DEFAULT",
    "N_STARTUP",
    "SAMPLERS",
    "Search",
    "Slot",
    "finalists",
    "import_optuna",
    "quiet_optuna",
    "sampler_info",
    "study_distributions",
]

SAME_SHARE = 1e-6
"""Points that differ less than this in every axis (as a share of it) are one point."""


def sampler_info(sampler_id: str) -> SamplerInfo:
    """The sampler of this id.

    Raises:
        UnknownIdError: There is none; the message lists them.
    """
    if sampler_id not in SAMPLERS:
        raise UnknownIdError(
            f"Unknown sampler '{sampler_id}'; use one of: {', '.join(SAMPLERS)}."
        )
    return SAMPLERS[sampler_id]


class Search:
    """Suggests points; told of every slot in order.

    Args:
        axes: The search space; only axes that are not fixed are searched.
        sampler: A key of `SAMPLERS`.
        seed: The study's seed.
        n_objectives: 1, or 2 where slots' first further value is an objective too.

    Raises:
        StudyError: No axis is free, or the sampler has one objective only.
        UnknownIdError: No such sampler.
    """

    def __init__(
        self,
        axes: Iterable[Axis | BlockRange],
        sampler: str,
        seed: int,
        *,
        n_objectives: int = 1,
    ) -> None:
        info = sampler_info(sampler)
        if n_objectives > 1 and not info.is_multi:
            raise StudyError(
                f"The sampler {sampler} follows one objective; choose another one, or "
                "use diversity as a constraint."
            )
        self._free = free_axes(axes)
        self._sampler = info.make()
        self._seed = seed
        self._n_objectives = n_objectives
        self._slots: list[Slot] = []
        self._asked: tuple[object, dict[str, float]] | None = None

    @property
    def n_slots(self) -> int:
        """How many slots are decided."""
        return len(self._slots)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The decided slots."""
        return tuple(self._slots)

    def suggest(self, pending: Sequence[Mapping[str, float]] = ()) -> dict[str, float]:
        """Values of the free axes for the next slot; the same until it is told.

        Args:
            pending: Points that other workers are measuring.
        """
        others = [{a.name: float(p[a.name]) for a in self._free} for p in pending]
        if self._asked is None or self._asked[0] != others:
            self._asked = (others, self._ask(self._task(others)))
        return dict(self._asked[1])

    def _ask(self, task: Task) -> dict[str, float]:
        """The sampler's answer; a point that was decided before is tried no more."""
        point = self._sampler.suggest(task)
        if all(self._is_other(point, slot) for slot in task.slots):
            return point
        return sobol_point(task, task.n_searched)

    def _is_other(self, point: Mapping[str, float], slot: Slot) -> bool:
        return any(
            abs(point[axis.name] - slot.point[axis.name])
            > SAME_SHARE * (axis.high - axis.low)
            for axis in self._free
        )

    def _task(self, pending: Sequence[Mapping[str, float]]) -> Task:
        # Workers that ask at the same time get answers of their own.
        place = (self.n_slots, *([len(pending)] if pending else []))
        return Task(
            axes=self._free,
            slots=tuple(self._slots),
            pending=tuple(pending),
            seed=derive_seed(self._seed, "sampler", *place),
            study_seed=derive_seed(self._seed, "search"),
            n_objectives=self._n_objectives,
        )

    def tell(self, slot: Slot) -> None:
        """Add the next decided slot."""
        self._slots.append(slot)
        self._asked = None

    def replay(self, slots: Iterable[Slot]) -> None:
        """Add slots that were decided before, growing the sampler's state again."""
        for slot in slots:
            if self._sampler.keeps_state and not slot.is_start:
                self.suggest()
            self.tell(slot)

    def beliefs(self) -> dict[int, tuple[float, float]]:
        """What a Gaussian process makes of every measured slot, whatever the sampler.

        Returns:
            By slot number: the score without its luck, and how far that is uncertain
            (standard deviation). Empty while there are fewer than `N_STARTUP` scores.
        """
        numbers = [i for i, slot in enumerate(self._slots) if slot.is_measured]
        chosen = [self._slots[i] for i in numbers]
        means = posterior_means(self._task(()), chosen) if chosen else None
        return dict(zip(numbers, means or (), strict=False))

    def ranking(self) -> tuple[int, ...]:
        """Numbers of the measured slots, the best first: the finalists' order.

        A high score is in part luck. So slots are ranked by what the Gaussian process
        believes; the first that breaks a constraint comes after the last that does not.
        """
        believed = self.beliefs()
        measured = [(i, s) for i, s in enumerate(self._slots) if s.is_measured]

        def place(pair: tuple[int, Slot]) -> tuple[bool, float, int]:
            number, slot = pair
            score = slot.score or 0.0
            return (not slot.is_admissible, -believed.get(number, (score,))[0], number)

        return tuple(number for number, _ in sorted(measured, key=place))


def free_axes(axes: Iterable[Axis | BlockRange]) -> tuple[Axis, ...]:
    """The axes that are searched.

    Raises:
        StudyError: Every axis is fixed.
    """
    listed = list(axes)
    blocks = [axis for axis in listed if isinstance(axis, BlockRange)]
    others = [axis for axis in listed if isinstance(axis, Axis)]
    free = Space(blocks, others).free
    if not free:
        raise StudyError("Every block is fixed; free at least one to search.")
    return free


def study_distributions(settings: StudySettings) -> dict[str, Any]:
    """Optuna's description of a study's free axes.

    Raises:
        StudyError: Every axis is fixed, or Optuna is not installed.
    """
    return distributions(import_optuna(), free_axes(settings.space.axes))


def finalists(settings: StudySettings, slots: Sequence[Slot]) -> tuple[int, ...]:
    """Numbers of the measured slots in the order in which they are scored again.

    The best score comes first, then what is believed to be the best: one of the two is
    what the user expects, the other what is likely. With two objectives the rest of
    the Pareto front stands between them, from the best score on.
    """
    search = Search(settings.space.axes, settings.sampler, settings.seed)
    for slot in slots:
        search.tell(slot)
    order = search.ranking()
    best = best_slot(slots)
    first = tuple(i for i in order if slots[i] is best)
    if settings.n_objectives > 1:
        front = sorted(pareto_front(slots), key=lambda i: -(slots[i].score or 0.0))
        first = (*first, *(i for i in front if i not in first))
    return (*first, *(i for i in order if i not in first))
