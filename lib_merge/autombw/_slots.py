"""Slots: which points are decided, and which attempt comes next."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from lib_merge.autombw.journal import Attempt, Journal
from lib_merge.autombw.records import (
    COMPLETE,
    FAILED,
    KILLED,
    TrialRecord,
    load_record,
    save_record,
)
from lib_merge.autombw.search import Slot, import_optuna
from lib_merge.autombw.space import StartPoint
from lib_merge.autombw.study import Study
from lib_merge.errors import StudyError

_log = logging.getLogger(__name__)

MAX_FAILED = 2
"""Attempts that may fail at one point: the second is the retry."""

MAX_KILLED = 5
"""Attempts at one point during which the process may die before it is given up: a point
that takes the process down must not do so for ever."""


def open_journal(study: Study) -> Journal:
    """Open a study's journal; one that cannot be read is written again from records.

    Raises:
        StudyError: Optuna is missing.
        DiskFullError: No room.
    """
    import_optuna()
    path = study.journal_path
    try:
        journal = Journal(path, study.settings.ranges)
    except StudyError as fault:
        aside = path.with_name(f"journal.broken-{int(time.time())}.log")
        path.replace(aside)
        _log.warning("%s It was kept as %s and written again.", fault, aside.name)
        journal = Journal(path, study.settings.ranges)
    _adopt(study, journal)
    return journal


def _adopt(study: Study, journal: Journal) -> None:
    """Enter records that the journal does not know (it was lost)."""
    n_known = len(journal.attempts())
    for record in study.records():
        if record.number < n_known:
            continue
        number = journal.start(
            record.point, slot=record.slot, attempt=record.attempt, label=record.label
        )
        if number != record.number:
            raise StudyError(
                f"{study.folder / 'trials'} lacks trial {number:04d}; restore it, or "
                "delete the trials after it."
            )
        _close(journal, record)


def _close(journal: Journal, record: TrialRecord) -> None:
    if record.score is not None:
        scores = [image.score for image in record.images]
        journal.complete(record.number, record.score, scores)
    else:
        journal.fail(record.number, record.reason or record.state)


def close_open_attempts(study: Study, journal: Journal) -> int:
    """Settle attempts that a process left open when it died.

    An attempt whose record was stored counts as it was recorded; any other is marked
    as failed and its point is tried again, never counted as a low score.

    Returns:
        How many had no record.
    """
    n_lost = 0
    for attempt in journal.attempts():
        folder = study.trial_dir(attempt.number)
        record = load_record(folder)
        if record is None:
            record = _missing_record(attempt)
            save_record(folder, record)
            n_lost += attempt.is_open
        if attempt.is_open:
            _close(journal, record)
    return n_lost


def _missing_record(attempt: Attempt) -> TrialRecord:
    state, reason = KILLED, "The process ended during this trial."
    if not attempt.is_open:
        state = FAILED if attempt.score is None else COMPLETE
        reason = "Its record was deleted; the journal knows only the score."
    return TrialRecord(
        number=attempt.number,
        slot=attempt.slot,
        attempt=attempt.attempt,
        label=attempt.label,
        point=attempt.point,
        state=state,
        score=attempt.score,
        reason=reason,
        finished=time.time(),
    )


@dataclass(frozen=True)
class Decision:
    """Where one slot stands.

    Attributes:
        attempts: Its attempts so far, by number.
        slot: What the search is told, or None while it is undecided.
    """

    attempts: tuple[TrialRecord, ...]
    slot: Slot | None


def decide(attempts: Sequence[TrialRecord], n_starts: int) -> Decision:
    """Whether a slot's attempts settle it, and how."""
    done = tuple(attempts)
    if not done:
        return Decision(done, None)
    first = done[0]
    is_start = first.slot < n_starts
    scored = next((r for r in done if r.score is not None), None)
    if scored is not None:
        return Decision(done, Slot(first.point, scored.score, is_start))
    n_failed = sum(r.state == FAILED for r in done)
    n_killed = sum(r.state == KILLED for r in done)
    if n_failed >= MAX_FAILED or n_killed >= MAX_KILLED:
        return Decision(done, Slot(first.point, None, is_start))
    return Decision(done, None)


class SlotTable:
    """Every attempt of a study by slot.

    Args:
        records: Attempts so far.
        starts: The points set beforehand: the first slots.
    """

    def __init__(
        self, records: Sequence[TrialRecord], starts: Sequence[StartPoint]
    ) -> None:
        self.starts = tuple(starts)
        self._attempts: dict[int, list[TrialRecord]] = {}
        for record in records:
            self.add(record)

    def add(self, record: TrialRecord) -> None:
        """Take in a finished attempt."""
        self._attempts.setdefault(record.slot, []).append(record)

    def decision(self, slot: int) -> Decision:
        """Where a slot stands."""
        return decide(self._attempts.get(slot, []), len(self.starts))

    def decided(self) -> tuple[Slot, ...]:
        """The decided slots, from the first up to the first that is not."""
        found: list[Slot] = []
        while (slot := self.decision(len(found)).slot) is not None:
            found.append(slot)
        return tuple(found)

    def records(self) -> tuple[TrialRecord, ...]:
        """Every attempt, by number."""
        everything = (r for attempts in self._attempts.values() for r in attempts)
        return tuple(sorted(everything, key=lambda r: r.number))
