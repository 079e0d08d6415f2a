"""The end of a study: finalists and baselines on held-out seeds, and the winner."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

from lib_merge.autombw import snapshot as states
from lib_merge.autombw._board import Board
from lib_merge.autombw._files import write_json
from lib_merge.autombw._trials import measure
from lib_merge.autombw.exports import write_best, write_table
from lib_merge.autombw.objective import Objective
from lib_merge.autombw.records import COMPLETE, TrialRecord, load_record, save_record
from lib_merge.autombw.results import Candidate, StudyResult, difference
from lib_merge.autombw.space import BASELINES, constant_point
from lib_merge.autombw.study import Study, shots
from lib_merge.core.ports import Progress
from lib_merge.errors import Cancelled, MergeError, StudyError

_log = logging.getLogger(__name__)


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


def entries(study: Study) -> tuple[_Entry, ...]:
    """The best trials, each point once, then the baselines that are not among them.

    Raises:
        StudyError: No trial was scored.
    """
    settings = study.settings
    scored = [r for r in study.records() if r.score is not None]
    if not scored:
        raise StudyError(
            f"No trial of study '{settings.name}' was scored, so there is no winner; "
            "see the reasons in its trials folder."
        )
    found: list[_Entry] = []
    for record in sorted(scored, key=lambda r: (-(r.score or 0.0), r.number)):
        is_new = all(record.point != entry.point for entry in found)
        if is_new and len(found) < settings.n_finalists:
            label = record.label or f"trial {record.number}"
            found.append(_Entry(label, record.number, record.point, record.score))
    for label, value in BASELINES:
        point = constant_point(settings.ranges, value)
        if all(point != entry.point for entry in found):
            score = next((r.score for r in scored if r.point == point), None)
            found.append(_Entry(label, None, point, score))
    return tuple(found)


def score_finalists(study: Study, objective: Objective, board: Board) -> StudyResult:
    """Measure every candidate on held-out seeds and name the winner.

    Candidates that were measured before the study was interrupted are not repeated.

    Raises:
        Cancelled: The user stopped it.
        DiskFullError: No room left.
        StudyError: No finalist could be measured.
    """
    started = time.monotonic()
    todo = entries(study)
    board.say(state=states.HELD_OUT, trial=0, n_trials=len(todo))
    candidates: list[Candidate] = []
    notes: list[str] = []
    for done, entry in enumerate(todo):
        n_images = study.settings.n_held_out_images
        board.begin_trial(n_images, f"Held-out seeds: {entry.label}.")
        record = _measured(study, entry, objective)
        if record.is_complete:
            candidates.append(_candidate(entry, record))
        else:
            notes.append(f"{entry.label} could not be measured: {record.reason}")
        board.say(trial=done + 1)
    return _judge(tuple(candidates), time.monotonic() - started, notes)


def _measured(study: Study, entry: _Entry, objective: Objective) -> TrialRecord:
    """The candidate's stored record, or a new one; a failure is tried once more."""
    folder = study.held_out_dir / entry.folder
    wanted = shots(study.settings, is_held_out=True)
    stored = load_record(folder)
    if stored is not None and stored.is_complete and stored.point == entry.point:
        return stored
    number = -1 if entry.number is None else entry.number
    draft = TrialRecord(number, -1, 0, entry.label, entry.point, COMPLETE)
    for attempt in range(2):
        record = measure(
            replace(draft, attempt=attempt),
            objective,
            wanted,
            folder=folder,
            tally_id=study.settings.tally,
        )
        save_record(folder, record)
        if record.is_complete:
            break
    return record


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
    candidates: tuple[Candidate, ...], seconds: float, notes: list[str]
) -> StudyResult:
    finalists = [c for c in candidates if c.is_finalist]
    if not finalists:
        raise StudyError(
            "No finalist could be rendered on held-out seeds. " + " ".join(notes)
        )
    winner = max(finalists, key=lambda c: c.score)
    names = [label for label, _ in BASELINES]
    rivals = [c for c in candidates if c.label in names and c.label != winner.label]
    return StudyResult(
        candidates=candidates,
        winner=winner.label,
        differences=tuple(difference(winner, rival) for rival in rivals),
        seconds=seconds,
        note=" ".join(notes),
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
    write_report(study.folder)
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
