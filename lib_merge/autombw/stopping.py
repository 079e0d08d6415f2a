"""Stopping: trials, time, a target score, or no gain for a while, whichever is first.

    reason(settings.stopping, slots, seconds, n_trials=settings.n_trials,
           n_objectives=settings.n_objectives)

gives one sentence when the search is over, and None while it goes on. `seconds` is the
time that the study has worked so far, over all its runs, without pauses.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lib_merge.autombw.diversity import pareto_front
from lib_merge.autombw.history import (
    Slot,
    best_slot,
    differences,
    shot_effects,
)
from lib_merge.errors import StudyError

GAIN_ERRORS = 1.0
"""A best score is a gain when it is ahead of the last gain by more than so many
standard errors of their paired difference: one in six would be by chance."""


@dataclass(frozen=True)
class StoppingSettings:
    """When a search ends before its last trial; None and 0 never do.

    Attributes:
        n_without_gain: Decided slots in a row without a gain over noise.
        time_budget_s: Working time.
        target_score: A measured score that is enough.
    """

    n_without_gain: int = 27
    time_budget_s: float | None = None
    target_score: float | None = None

    def __post_init__(self) -> None:
        if self.n_without_gain < 0:
            raise StudyError(
                f"n_without_gain is {self.n_without_gain}; use 0 for never, or 27."
            )
        if self.time_budget_s is not None and not self.time_budget_s > 0:
            raise StudyError(
                f"A time budget of {self.time_budget_s:g} s is none; leave it out, or "
                "give some time."
            )
        if self.target_score is not None and not math.isfinite(self.target_score):
            raise StudyError(
                f"The target score is {self.target_score}; it must be a finite number."
            )


def reason(
    settings: StoppingSettings,
    slots: Sequence[Slot],
    seconds: float,
    *,
    n_trials: int,
    n_objectives: int = 1,
) -> str | None:
    """Why the search is over, in a sentence; None while it goes on.

    Args:
        settings: When it ends.
        slots: The decided slots, in order.
        seconds: Time worked so far.
        n_trials: Slots asked for.
        n_objectives: With two, whatever widens the Pareto front is a gain.
    """
    if len(slots) >= n_trials:
        return f"All {n_trials} trials are done."
    best = best_slot(slots)
    top = -math.inf if best is None or best.score is None else best.score
    if settings.target_score is not None and top >= settings.target_score:
        return f"The target score {settings.target_score:g} is reached ({top:.4f})."
    budget = settings.time_budget_s
    if budget is not None and seconds >= budget:
        return f"The time budget of {budget / 3600:.2g} hours is used up."
    idle = n_since_gain(slots) if n_objectives == 1 else n_since_wider(slots)
    if settings.n_without_gain and idle >= settings.n_without_gain:
        return f"No gain over noise in the last {idle} trials."
    return None


def n_since_gain(slots: Sequence[Slot]) -> int:
    """Suggested slots decided since the last gain; start points do not count."""
    luck = shot_effects(slots).luck
    reference: Slot | None = None
    since = 0
    for slot in slots:
        if is_gain(slot, reference, luck):
            reference, since = slot, 0
        else:
            since += not slot.is_start
    return since


def n_since_wider(slots: Sequence[Slot]) -> int:
    """Suggested slots decided since one came that nothing beats in all objectives."""
    last = max(pareto_front(slots), default=-1)
    return sum(not slot.is_start for slot in slots[last + 1 :])


def is_gain(slot: Slot, reference: Slot | None, luck: float | None) -> bool:
    """Whether a slot is better than another by more than luck.

    Args:
        slot: The candidate; an estimate never is a gain.
        reference: What it must beat; None when there is nothing yet.
        luck: A picture's luck in the whole history, or None while it is unknown.
    """
    if not slot.is_measured or not slot.is_admissible:
        return False
    if reference is None:
        return True
    deltas = differences(slot, reference)
    if not deltas:
        return (slot.score or 0.0) > (reference.score or 0.0)
    mean = statistics.fmean(deltas)
    own = statistics.stdev(deltas) if len(deltas) > 1 else 0.0
    # Both pictures of a pair have luck of their own.
    pooled = math.sqrt(2) * (luck or 0.0)
    return mean > GAIN_ERRORS * max(own, pooled) / math.sqrt(len(deltas))
