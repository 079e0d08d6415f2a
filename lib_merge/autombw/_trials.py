"""The loop over trials: one attempt at a time, each stored before the next begins."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from lib_merge.autombw import stopping
from lib_merge.autombw._board import Board
from lib_merge.autombw._heap import Heap
from lib_merge.autombw._measuring import Trial, attempt, check_room
from lib_merge.autombw._slots import SlotTable
from lib_merge.autombw.crew import Crew, Ending
from lib_merge.autombw.exports import write_best
from lib_merge.autombw.objective import Objective
from lib_merge.autombw.records import COMPLETE, FAILED, INTERRUPTED, TrialRecord
from lib_merge.autombw.search import Search
from lib_merge.autombw.settings import StudySettings
from lib_merge.errors import Cancelled, InputError, StudyError

_log = logging.getLogger(__name__)

POLL_S = 0.2
"""How often a worker with nothing to do looks at what the others do."""

REMOTE_POLL_S = 2.0
"""The same where looking asks a database."""


class TrialLoop:
    """Works off a study's slots, beside other workers.

    Args:
        crew: This worker's hold on the study.
        table: Its attempts so far.
        objective: Measures points.
        board: Shows what is done.
        gate: Waits while the study is paused, raises `Cancelled` when it is stopped.
    """

    def __init__(
        self,
        crew: Crew,
        table: SlotTable,
        objective: Objective,
        *,
        board: Board,
        gate: Callable[[], None],
    ) -> None:
        self._crew = crew
        self._study = crew.study
        self._settings = crew.study.settings
        self._table = table
        self._objective = objective
        self._board = board
        self._gate = gate
        self._search = _new_search(self._settings)
        self._told: set[int] = set()
        self._n_failed = 0
        self._n_in_a_row = 0
        self._heap = Heap()

    def run(self) -> Ending:
        """Decide every slot that is left, or until a rule ends the search.

        Raises:
            Cancelled: The user stopped it.
            StudyError: Too many attempts failed in a row.
            DiskFullError: No room left.
        """
        decided = self._table.decided()
        self._search.replay(list(decided.values()))
        self._told = set(decided)
        while True:
            self._take_in(self._crew.sync(), are_ours=False)
            ending = self._ending()
            if ending is not None and not self._others_at_work():
                return ending
            draft = None if ending is not None else self._draft()
            if draft is None:
                self._wait()
                continue
            check_room(self._study.folder, self._table.records())
            claimed = self._crew.claim(draft)
            if claimed is not None:
                record = self._attempt(claimed)
                self._heap.trim()
                self._settle(record)

    def _others_at_work(self) -> bool:
        return bool(self._crew.open_entries(self._crew.search))

    def _ending(self) -> Ending | None:
        ending = self._crew.ending()
        if ending is None:
            reason = stopping.reason(
                self._settings.stopping,
                list(self._table.decided().values()),
                self._table.seconds(),
                n_trials=self._settings.n_trials,
                n_objectives=self._settings.n_objectives,
            )
            if reason is not None:
                ending = self._crew.end(reason)
        return ending

    def _wait(self) -> None:
        """Nothing is left to begin, but other workers are not done."""
        self._gate()
        self._board.say(message="Waiting for the other workers.")
        time.sleep(REMOTE_POLL_S if self._study.is_remote else POLL_S)

    # What is known

    def _take_in(self, records: Sequence[TrialRecord], *, are_ours: bool) -> None:
        """Learn records, of this worker or of others."""
        if not records:
            return
        for record in records:
            self._table.add(record)
        has_changed = self._objective.settle()
        if has_changed or (not are_ours and self._objective.correct()):
            self._read_again()
        for number, slot in self._table.decided().items():
            if number not in self._told:
                self._told.add(number)
                self._search.tell(slot)
        self._board.show_slots(self._table)

    def _read_again(self) -> None:
        """Scores so far have changed: the search learns them anew."""
        self._crew.publish("scales.json")
        records = self._study.records()
        self._table = SlotTable(self._settings, records, self._table.starts)
        decided = self._table.decided()
        self._search = _new_search(self._settings)
        self._search.replay(list(decided.values()))
        self._told = set(decided)

    def _settle(self, record: TrialRecord) -> None:
        """Learn this worker's own attempt."""
        self._take_in((record,), are_ours=True)
        self._n_failed += record.state == FAILED
        self._board.say(n_failed=self._n_failed)
        best = self._table.best()
        if best is not None and best.number == record.number:
            write_best(self._study, record.point)
        self._n_in_a_row = self._n_in_a_row + 1 if record.state == FAILED else 0
        if self._n_in_a_row >= self._settings.max_failures:
            raise StudyError(
                f"{self._n_in_a_row} attempts failed one after the other, the last one "
                f"(trial {record.number:04d}) because: {record.reason} Everything is "
                "kept; remove the cause and resume the study."
            )

    # What comes next

    def _draft(self) -> TrialRecord | None:
        """The next attempt: a retry, a start point, or what the sampler suggests.

        Returns:
            None when every slot is decided or some worker's.
        """
        open_entries = self._crew.open_entries(self._crew.search)
        taken = {int(entry.item) for entry in open_entries}
        decided = self._table.decided()
        for slot in range(self._settings.n_trials):
            if slot not in decided and slot not in taken:
                pending = [entry.point for entry in open_entries]
                return self._draft_of(slot, pending)
        return None

    def _draft_of(self, slot: int, pending: list[dict[str, float]]) -> TrialRecord:
        earlier = self._table.decision(slot).attempts
        starts = self._table.starts
        if slot < len(starts):
            label, point = starts[slot].label, dict(starts[slot].point)
        else:
            suggested = self._search.suggest(pending)
            label, point = "", self._settings.space.whole(suggested)
        if earlier:
            # What was stored counts, should another library version suggest otherwise.
            label, point = earlier[0].label, dict(earlier[0].point)
        return TrialRecord(
            number=-1,
            slot=slot,
            attempt=len(earlier),
            label=label,
            point=point,
            state=COMPLETE,
        )

    # Doing it

    def _attempt(self, draft: TrialRecord) -> TrialRecord:
        """Measure a claimed point, store what came of it."""
        folder = self._study.trial_dir(draft.number)
        trial = Trial(
            draft,
            self._settings,
            list(self._table.decided().values()),
            is_start=draft.slot < len(self._table.starts),
        )
        self._announce(draft, trial.n_images)
        try:
            record = attempt(
                draft, lambda: trial.measure(self._objective, folder), folder=folder
            )
        except (Cancelled, InputError) as stopped:
            self._crew.store(replace(draft, state=INTERRUPTED, reason=str(stopped)))
            raise
        return self._crew.store(record)

    def _announce(self, draft: TrialRecord, n_images: int) -> None:
        name = f" ({draft.label})" if draft.label else ""
        again = ", once more" if draft.attempt else ""
        message = f"Trial {draft.slot + 1} of {self._settings.n_trials}{name}{again}."
        self._board.begin_trial(n_images, message)


def _new_search(settings: StudySettings) -> Search:
    return Search(
        settings.space.axes,
        settings.sampler,
        settings.seed,
        n_objectives=settings.n_objectives,
    )
