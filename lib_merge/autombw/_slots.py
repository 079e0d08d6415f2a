"""Slots: which points are decided, and which attempt comes next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lib_merge.autombw import diversity
from lib_merge.autombw.history import Slot
from lib_merge.autombw.records import FAILED, KILLED, PRUNED, TrialRecord
from lib_merge.autombw.settings import StudySettings
from lib_merge.autombw.space import StartPoint

MAX_FAILED = 2
"""Attempts that may fail at one point: the second is the retry."""

MAX_KILLED = 5
"""Attempts at one point during which the process may die before it is given up: a point
that takes the process down must not do so for ever."""


@dataclass(frozen=True)
class Decision:
    """Where one slot stands.

    Attributes:
        attempts: Its attempts so far, by number.
        record: The attempt that settled it, or None while it is undecided.
        is_lost: Whether it was given up without a score.
    """

    attempts: tuple[TrialRecord, ...]
    record: TrialRecord | None = None
    is_lost: bool = False

    @property
    def is_decided(self) -> bool:
        """Whether no further attempt is made."""
        return self.record is not None or self.is_lost


def decide(attempts: Sequence[TrialRecord]) -> Decision:
    """Whether a slot's attempts settle it, and how."""
    done = tuple(sorted(attempts, key=lambda r: r.number))
    scored = next((r for r in done if r.score is not None), None)
    if scored is not None:
        return Decision(done, scored)
    n_failed = sum(r.state == FAILED for r in done)
    n_killed = sum(r.state == KILLED for r in done)
    is_lost = n_failed >= MAX_FAILED or n_killed >= MAX_KILLED
    return Decision(done, None, is_lost)


class SlotTable:
    """Every attempt of a study by slot.

    Args:
        settings: The study's settings.
        records: Attempts so far.
        starts: The points set beforehand: the first slots.
    """

    def __init__(
        self,
        settings: StudySettings,
        records: Iterable[TrialRecord],
        starts: Sequence[StartPoint],
    ) -> None:
        self.starts = tuple(starts)
        self._settings = settings
        self._attempts: dict[int, list[TrialRecord]] = {}
        self._slots: dict[int, Slot] = {}
        for record in records:
            self.add(record)

    def add(self, record: TrialRecord) -> None:
        """Take in a finished attempt, or another version of it."""
        known = self._attempts.setdefault(record.slot, [])
        known[:] = [r for r in known if r.number != record.number]
        known.append(record)
        self._slots.pop(record.slot, None)

    def decision(self, slot: int) -> Decision:
        """Where a slot stands."""
        return decide(self._attempts.get(slot, []))

    def decided(self) -> dict[int, Slot]:
        """The decided slots by number, in order; with one worker there are no gaps."""
        for number in sorted(self._attempts):
            if number not in self._slots and self.decision(number).is_decided:
                self._slots[number] = self._slot(number)
        return {number: self._slots[number] for number in sorted(self._slots)}

    def _slot(self, number: int) -> Slot:
        """What the search is told of a decided slot."""
        decision = self.decision(number)
        is_start = number < len(self.starts)
        record = decision.record
        if record is None:
            return Slot(decision.attempts[0].point, None, is_start)
        parents = [slot for slot in self._slots.values() if slot.is_start]
        unlike = record.diversity
        return Slot(
            record.point,
            record.score,
            is_start,
            values=() if unlike is None else (unlike,),
            is_pruned=record.state == PRUNED and not record.rung,
            constraint=diversity.constraint(self._settings.diversity, unlike, parents),
            images={} if record.rung else _scores(record),
            rung=record.rung,
            rungs=record.rungs,
        )

    def records(self) -> tuple[TrialRecord, ...]:
        """Every attempt, by number."""
        everything = (r for attempts in self._attempts.values() for r in attempts)
        return tuple(sorted(everything, key=lambda r: r.number))

    def best(self) -> TrialRecord | None:
        """The whole trial with the highest score, admissible ones first; or None."""
        return next(iter(self.ranked()), None)

    def ranked(self) -> tuple[TrialRecord, ...]:
        """The whole trials, admissible ones first, then by score, then by slot."""
        measured = [
            (slot.is_admissible, slot.score, -number)
            for number, slot in self.decided().items()
            if slot.is_measured and slot.score is not None
        ]
        found = (self.decision(-at).record for *_, at in sorted(measured, reverse=True))
        return tuple(record for record in found if record is not None)

    def seconds(self) -> float:
        """Time during which at least one worker was at work, over all runs."""
        spans = sorted(
            (r.finished - r.seconds, r.finished) for r in self.records() if r.finished
        )
        total, until = 0.0, -math.inf
        for start, end in spans:
            total += max(0.0, end - max(start, until))
            until = max(until, end)
        return total


def _scores(record: TrialRecord) -> dict[str, float]:
    return {image.file: image.score for image in record.images}
