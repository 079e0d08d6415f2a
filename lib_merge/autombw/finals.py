"""The end of a study: finalists and baselines on held-out seeds, and the winner."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib_merge.autombw import _mirror as mirror
from lib_merge.autombw import snapshot as states
from lib_merge.autombw._board import Board
from lib_merge.autombw._files import write_json
from lib_merge.autombw._measuring import measure
from lib_merge.autombw._slots import SlotTable
from lib_merge.autombw._trials import POLL_S, REMOTE_POLL_S
from lib_merge.autombw.crew import Crew, Ending
from lib_merge.autombw.exports import write_best, write_table
from lib_merge.autombw.ledger import Entry
from lib_merge.autombw.objective import Objective
from lib_merge.autombw.records import (
    COMPLETE,
    FAILED,
    INTERRUPTED,
    TrialRecord,
    load_record,
    save_record,
)
from lib_merge.autombw.results import Candidate, StudyResult, difference
from lib_merge.autombw.search import finalists
from lib_merge.autombw.study import Study, StudySettings, shots
from lib_merge.core.ports import Progress
from lib_merge.errors import Cancelled, InputError, MergeError, StudyError

_log = logging.getLogger(__name__)

MAX_ATTEMPTS = 2
"""Attempts at one candidate: the second is the retry."""


@dataclass(frozen=True)
class _Entry:
    """A candidate before it is measured."""

    label: str
    number: int | None
    point: dict[str, float]
    search_score: float | None

    @property
    def folder(self) -> str:
        return self.label.replace(" ", "_")

    @property
    def item(self) -> str:
        """Names it in the ledger: another point of the same label is another piece."""
        text = json.dumps(self.point, sort_keys=True)
        return f"{self.label} {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def entries(study: Study) -> tuple[_Entry, ...]:
    """The best trials, each point once, then the baselines that are not among them.

    Raises:
        StudyError: No trial was scored.
    """
    settings = study.settings
    table = study.table()
    scored = table.ranked()
    if not scored:
        raise StudyError(
            f"No trial of study '{settings.name}' was scored, so there is no winner; "
            "see the reasons in its trials folder."
        )
    found: list[_Entry] = []
    for record in _believed(settings, table, scored):
        is_new = all(record.point != entry.point for entry in found)
        if is_new and len(found) < settings.n_finalists:
            label = record.label or f"trial {record.number}"
            found.append(_Entry(label, record.number, record.point, record.score))
    for baseline in settings.space.baselines():
        point = dict(baseline.point)
        if all(point != entry.point for entry in found):
            score = next((r.score for r in scored if r.point == point), None)
            found.append(_Entry(baseline.label, None, point, score))
    return tuple(found)


def _believed(
    settings: StudySettings, table: SlotTable, scored: Sequence[TrialRecord]
) -> list[TrialRecord]:
    """The scored trials in the order of the finalists: not the luckiest first."""
    numbers = list(table.decided())
    order = finalists(settings, list(table.decided().values()))
    records = (table.decision(numbers[i]).record for i in order)
    ranked = [r for r in records if r is not None and r in scored]
    return [*ranked, *(r for r in scored if r not in ranked)]


class Finals:
    """Measures every candidate on held-out seeds, beside other workers.

    Args:
        crew: This worker's hold on the study.
        objective: Measures points.
        board: Shows what is done.
        gate: Waits while the study is paused, raises `Cancelled` when it is stopped.
    """

    def __init__(
        self,
        crew: Crew,
        objective: Objective,
        *,
        board: Board,
        gate: Callable[[], None],
    ) -> None:
        self._crew = crew
        self._study = crew.study
        self._objective = objective
        self._board = board
        self._gate = gate
        self._todo = entries(crew.study)
        self._stale = {
            entry.item: record
            for entry in self._todo
            if (record := self._stored(entry)) is not None and not record.is_complete
        }
        """Failures of earlier runs, which are given another chance."""

    def run(self, ending: Ending, progress: Progress | None) -> StudyResult:
        """Measure what is left, then let one worker name the winner and store all.

        Candidates that were measured before the study was interrupted are not
        repeated.

        Raises:
            Cancelled: The user stopped it.
            DiskFullError: No room left.
            StudyError: No finalist could be measured.
        """
        started = time.monotonic()
        self._board.say(state=states.HELD_OUT, trial=0, n_trials=len(self._todo))
        while True:
            self._crew.pull()
            settled = [entry for entry in self._todo if self._is_settled(entry)]
            self._board.say(trial=len(settled))
            if len(settled) == len(self._todo):
                result = self._finish(ending, started, progress)
                if result is not None:
                    return result
            elif self._measure_next():
                continue
            self._gate()
            time.sleep(REMOTE_POLL_S if self._study.is_remote else POLL_S)

    def _folder(self, entry: _Entry) -> Path:
        return self._study.held_out_dir / entry.folder

    def _stored(self, entry: _Entry) -> TrialRecord | None:
        record = load_record(self._folder(entry))
        return record if record is not None and record.point == entry.point else None

    def _is_settled(self, entry: _Entry) -> bool:
        record = self._stored(entry)
        if record is None or record == self._stale.get(entry.item):
            return False
        is_lost = record.state == FAILED and record.attempt + 1 >= MAX_ATTEMPTS
        return record.is_complete or is_lost

    def _measure_next(self) -> bool:
        """Measure one candidate that nobody is at; whether there was one."""
        known = self._crew.finals.entries()
        for entry in self._todo:
            if self._is_settled(entry):
                continue
            earlier = [e for e in known if e.item == entry.item]
            if any(e.is_open and self._crew.is_alive(e.worker) for e in earlier):
                continue
            number = self._claim(entry.item, entry.label, earlier, entry.point)
            if number is not None:
                self._measure(entry, number)
                return True
        return False

    def _claim(
        self, item: str, label: str, earlier: Sequence[Entry], point: dict[str, float]
    ) -> int | None:
        attempt = 1 + max((e.attempt for e in earlier), default=-1)
        claim = self._crew.finals.claim(item, attempt, label=label, point=point)
        return claim.take(self._crew.worker)

    def _measure(self, entry: _Entry, number: int) -> None:
        stored = self._stored(entry)
        is_retry = stored is not None and stored != self._stale.get(entry.item)
        draft = TrialRecord(
            number=-1 if entry.number is None else entry.number,
            slot=-1,
            attempt=1 if is_retry else 0,
            label=entry.label,
            point=entry.point,
            state=COMPLETE,
        )
        settings = self._study.settings
        self._board.begin_trial(
            settings.n_held_out_images, f"Held-out seeds: {entry.label}."
        )
        try:
            record = measure(
                draft,
                self._objective,
                shots(settings, is_held_out=True),
                folder=self._folder(entry),
                tally_id=settings.tally,
            )
        except (Cancelled, InputError):
            self._crew.finals.close(number, score=None, reason=INTERRUPTED)
            raise
        save_record(self._folder(entry), record)
        self._stale.pop(entry.item, None)
        self._crew.finals.close(
            number,
            score=record.score,
            reason=record.reason,
            texts=mirror.record_text(record) if self._study.is_remote else None,
        )

    # The winner

    def _finish(
        self, ending: Ending, started: float, progress: Progress | None
    ) -> StudyResult | None:
        """Name the winner and store everything, or wait for the worker who does."""
        item = f"the end {ending.id}"
        earlier = [e for e in self._crew.finals.entries() if e.item == item]
        is_done = any(not e.is_open and e.score is not None for e in earlier)
        result = self._study.result()
        if is_done and result is not None:
            return result
        if any(e.is_open and self._crew.is_alive(e.worker) for e in earlier):
            return None
        number = self._claim(item, "the end", earlier, {})
        if number is None:
            return None
        try:
            result = self._judge(ending, time.monotonic() - started)
            self._board.show_search_again(states.SAVING, "Saving the winner.")
            result = finish_study(self._study, result, progress)
        except BaseException:
            self._crew.finals.close(number, score=None, reason=INTERRUPTED)
            raise
        self._crew.publish(mirror.RESULT)
        self._crew.finals.close(number, score=result.best.score)
        return result

    def _judge(self, ending: Ending, seconds: float) -> StudyResult:
        """The result of the candidates' records."""
        candidates: list[Candidate] = []
        notes: list[str] = []
        for entry in self._todo:
            record = self._stored(entry)
            if record is not None and record.is_complete:
                candidates.append(_candidate(entry, record))
            elif record is not None:
                notes.append(f"{entry.label} could not be measured: {record.reason}")
        return _judge(
            self._study.settings,
            tuple(candidates),
            seconds,
            notes,
            ending=ending.reason,
        )


def _candidate(entry: _Entry, record: TrialRecord) -> Candidate:
    return Candidate(
        label=entry.label,
        number=entry.number,
        point=entry.point,
        search_score=entry.search_score,
        score=record.score or 0.0,
        images=record.images,
    )


def _judge(
    settings: StudySettings,
    candidates: tuple[Candidate, ...],
    seconds: float,
    notes: list[str],
    *,
    ending: str,
) -> StudyResult:
    finalists = [c for c in candidates if c.is_finalist]
    if not finalists:
        raise StudyError(
            "No finalist could be rendered on held-out seeds. " + " ".join(notes)
        )
    winner = max(finalists, key=lambda c: c.score)
    names = [baseline.label for baseline in settings.space.baselines()]
    rivals = [c for c in candidates if c.label in names and c.label != winner.label]
    return StudyResult(
        candidates=candidates,
        winner=winner.label,
        differences=tuple(difference(winner, rival) for rival in rivals),
        seconds=seconds,
        note=" ".join(notes),
        ending=ending,
    )


def finish_study(
    study: Study, result: StudyResult, progress: Progress | None = None
) -> StudyResult:
    """Store the winner's recipe, the table, the checkpoint if asked, and the report.

    A checkpoint that cannot be saved does not undo the result: the note says why, and
    the recipe repeats the merge at any time.

    Raises:
        DiskFullError: No room for the result.
        Cancelled: The user stopped it while the checkpoint was being saved.
    """
    from lib_merge.autombw.report import write_report

    write_best(study, result.best.point)
    write_table(study)
    if study.settings.checkpoint is not None:
        result = _save_checkpoint(study, result, progress)
    write_json(study.result_path, result.to_json())
    try:
        write_report(study.folder)
    except MergeError:
        raise
    except Exception:  # a drawing that fails is not worth a night's result
        _log.exception("The report of study '%s' failed.", study.settings.name)
    return result


def _save_checkpoint(
    study: Study, result: StudyResult, progress: Progress | None
) -> StudyResult:
    from lib_merge.engine.save import merge_to_file

    output = Path(study.settings.checkpoint or "")
    recipe = study.settings.recipe(result.best.point)
    try:
        saved = merge_to_file(recipe, output, overwrite=True, progress=progress)
    except Cancelled:
        raise
    except MergeError as fault:
        _log.warning("The winner could not be saved as %s: %s", output, fault)
        note = f"{result.note} The checkpoint was not saved: {fault}".strip()
        return replace(result, note=note)
    return replace(result, checkpoint=str(saved.path), checkpoint_sha256=saved.sha256)
