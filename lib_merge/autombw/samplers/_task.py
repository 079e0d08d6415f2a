"""What a sampler is asked: the axes, the slots so far, what others measure, a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lib_merge.autombw.history import Slot
from lib_merge.autombw.space import Axis

N_STARTUP = 10
"""Decided slots before a model takes over from points that cover the space."""


@dataclass(frozen=True)
class Task:
    """One question to a sampler.

    Attributes:
        axes: The free axes.
        slots: The decided slots, in order.
        pending: Points that other workers are measuring.
        seed: Of this answer; differs from slot to slot.
        study_seed: Of the whole search.
        n_objectives: 1, or more where `Slot.values` counts too.
    """

    axes: tuple[Axis, ...]
    slots: Sequence[Slot]
    pending: Sequence[Mapping[str, float]]
    seed: int
    study_seed: int
    n_objectives: int = 1

    @property
    def n_searched(self) -> int:
        """Suggestions so far, those that are being measured included."""
        return sum(not slot.is_start for slot in self.slots) + len(self.pending)


class Sampler(Protocol):
    """Suggests points."""

    @property
    def keeps_state(self) -> bool:
        """Whether it must be asked for every earlier slot before it is asked anew."""
        ...

    def suggest(self, task: Task) -> dict[str, float]:
        """Values of the free axes for the next slot."""
        ...


def worth(slot: Slot) -> float:
    """A scored slot's score; of an inadmissible one less, by more the more it misses.

    For samplers that know of no constraints.
    """
    score = slot.score or 0.0
    return score if slot.is_admissible else score - 1.0 - (slot.constraint or 0.0)
