"""The loop over trials: one attempt at a time, each stored before the next begins."""

from __future__ import annotations

import gc
import logging
import shutil
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

from lib_merge.autombw._board import Board
from lib_merge.autombw._files import is_disk_full
from lib_merge.autombw._slots import SlotTable
from lib_merge.autombw.exports import write_best
from lib_merge.autombw.journal import Journal
from lib_merge.autombw.objective import Objective
from lib_merge.autombw.records import (
    COMPLETE,
    FAILED,
    INTERRUPTED,
    TrialRecord,
    save_record,
)
from lib_merge.autombw.search import Search
from lib_merge.autombw.study import Shot, Study, shots
from lib_merge.autombw.tally import tally
from lib_merge.errors import (
    Cancelled,
    DiskFullError,
    InputError,
    MergeError,
    StudyError,
)

_log = logging.getLogger(__name__)

MIN_FREE_BYTES = 16 << 20
"""Room on the disk below which no trial is begun."""


class TrialLoop:
    """Works off a study's slots.

    Args:
        study: The study, locked by the caller.
        journal: Its journal.
        table: Its attempts so far.
        objective: Measures points.
        board: Shows what is done.
    """

    def __init__(
        self,
        study: Study,
        journal: Journal,
        table: SlotTable,
        objective: Objective,
        *,
        board: Board,
    ) -> None:
        self._study = study
        self._journal = journal
        self._table = table
        self._objective = objective
        self._board = board
        settings = study.settings
        self._search = Search(settings.ranges, settings.sampler, settings.seed)
        self._n_failed = 0

    def run(self) -> None:
        """Decide every slot that is left.

        Raises:
            Cancelled: The user stopped it.
            StudyError: Too many attempts failed in a row.
            DiskFullError: No room left.
        """
        self._search.replay(self._table.decided())
        n_in_a_row = 0
        while self._search.n_slots < self._study.settings.n_trials:
            record = self._attempt()
            n_in_a_row = n_in_a_row + 1 if record.state == FAILED else 0
            self._settle(record)
            if n_in_a_row >= self._study.settings.max_failures:
                raise StudyError(
                    f"{n_in_a_row} attempts failed one after the other, the last one "
                    f"(trial {record.number:04d}) because: {record.reason} Everything "
                    "is kept; remove the cause and resume the study."
                )

    def _settle(self, record: TrialRecord) -> None:
        self._table.add(record)
        decided = self._table.decision(self._search.n_slots).slot
        if decided is not None:
            self._search.tell(decided)
        if self._objective.settle():
            self._read_again()
        self._n_failed += record.state == FAILED
        self._board.show_slots(self._table.decided(), self._table.records())
        self._board.say(n_failed=self._n_failed)
        if record.is_complete and record.number == self._board.snapshot().best_trial:
            write_best(self._study, record.point)

    def _read_again(self) -> None:
        """Scores so far have changed: the search learns them anew."""
        settings = self._study.settings
        self._table = SlotTable(self._study.records(), self._table.starts)
        self._search = Search(settings.ranges, settings.sampler, settings.seed)
        self._search.replay(self._table.decided())

    def _attempt(self) -> TrialRecord:
        """Choose a point, note it, measure it, store what came of it, note that."""
        draft = self._draft()
        check_room(self._study.folder, self._table.records())
        number = self._journal.start(
            draft.point, slot=draft.slot, attempt=draft.attempt, label=draft.label
        )
        draft = replace(draft, number=number)
        self._announce(draft)
        folder = self._study.trial_dir(number)
        try:
            record = measure(
                draft,
                self._objective,
                shots(self._study.settings),
                folder=folder,
                tally_id=self._study.settings.tally,
            )
        except (Cancelled, InputError) as stopped:
            self._store(replace(draft, state=INTERRUPTED, reason=str(stopped)))
            raise
        self._store(record)
        return record

    def _draft(self) -> TrialRecord:
        """The next attempt: a retry, a start point, or what the sampler suggests."""
        slot = self._search.n_slots
        earlier = self._table.decision(slot).attempts
        starts = self._table.starts
        if slot < len(starts):
            label, point = starts[slot].label, dict(starts[slot].point)
        else:
            fixed = {str(r.block): r.low for r in self._study.settings.ranges}
            label, point = "", fixed | self._search.suggest()
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

    def _announce(self, draft: TrialRecord) -> None:
        settings = self._study.settings
        name = f" ({draft.label})" if draft.label else ""
        again = ", once more" if draft.attempt else ""
        message = f"Trial {draft.slot + 1} of {settings.n_trials}{name}{again}."
        self._board.begin_trial(settings.n_images, message)

    def _store(self, record: TrialRecord) -> None:
        save_record(self._study.trial_dir(record.number), record)
        if record.score is not None:
            scores = [image.score for image in record.images]
            self._journal.complete(record.number, record.score, scores)
        else:
            self._journal.fail(record.number, record.reason)


def measure(
    draft: TrialRecord,
    objective: Objective,
    wanted: tuple[Shot, ...],
    *,
    folder: Path,
    tally_id: str,
) -> TrialRecord:
    """Measure a point; whatever fails but the disk becomes a failed record.

    Args:
        draft: What is known before.
        objective: Measures it.
        wanted: The pictures.
        folder: Where they go.
        tally_id: How their scores become one.

    Raises:
        Cancelled: The user stopped it.
        InputError: The models or the recipe cannot be used (any more).
        DiskFullError: No room left.
    """
    started = time.monotonic()
    try:
        measured = objective.measure(draft.point, wanted, folder)
        score = tally(tally_id, [image.score for image in measured.images])
    except (Cancelled, InputError):
        # A model file that is gone or a wrong recipe fails every other point too.
        raise
    except Exception as fault:
        if is_disk_full(fault):
            raise _disk_full(folder, fault) from fault
        _log.warning("Trial %04d failed: %s", draft.number, fault, exc_info=True)
        free_memory()
        return replace(
            draft,
            state=FAILED,
            reason=_sentence(fault),
            traceback=traceback.format_exc(),
            seconds=time.monotonic() - started,
            finished=time.time(),
        )
    return replace(
        draft,
        state=COMPLETE,
        score=score,
        images=measured.images,
        seconds=time.monotonic() - started,
        merge_seconds=measured.merge_seconds,
        finished=time.time(),
    )


def _sentence(fault: Exception) -> str:
    if isinstance(fault, MergeError):
        return str(fault)
    return f"{type(fault).__name__}: {fault}"


def _disk_full(folder: Path, fault: Exception) -> DiskFullError:
    if isinstance(fault, DiskFullError):
        return fault
    return DiskFullError(
        f"The disk of {folder} is full. Nothing that was stored is lost; free some "
        "space and resume the study."
    )


def free_memory() -> None:
    """Give back what a failed attempt left on the device."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def check_room(folder: Path, records: tuple[TrialRecord, ...]) -> None:
    """Raise unless the disk surely takes one more trial.

    Args:
        folder: The study's folder.
        records: Its attempts; the last one's pictures tell how much is needed.

    Raises:
        DiskFullError: It does not.
    """
    last = folder / "trials" / f"{records[-1].number:04d}" if records else folder
    n_bytes = sum(path.stat().st_size for path in last.glob("*.png"))
    needed = MIN_FREE_BYTES + 2 * n_bytes
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFullError(
            f"The disk of {folder} has {free >> 20} MiB left, and the next trial wants "
            f"{(needed >> 20) + 1} MiB. Nothing that was stored is lost; free some "
            "space and resume the study."
        )
