"""The crew: one worker's hold on a study that other workers may work on too."""

from __future__ import annotations

import json
import logging
import secrets
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from lib_merge.autombw import _mirror as mirror
from lib_merge.autombw._files import remove_leftovers
from lib_merge.autombw.ledger import Entry, Ledger
from lib_merge.autombw.presence import (
    BeatPresence,
    LockPresence,
    Presence,
    new_worker_id,
)
from lib_merge.autombw.records import (
    COMPLETE,
    FAILED,
    KILLED,
    PRUNED,
    TrialRecord,
    load_record,
    save_record,
)
from lib_merge.autombw.search import study_distributions
from lib_merge.autombw.storage import StoragePlace, open_storage
from lib_merge.autombw.study import Study
from lib_merge.errors import StudyError

_log = logging.getLogger(__name__)

STUDY_NAME = "autombw"
"""The Optuna study's name in a journal of the study's own."""

ENDED = "ended"


@dataclass(frozen=True)
class Ending:
    """Why the search ended.

    Attributes:
        id: Names this ending; a study that is extended ends once more.
        reason: One sentence.
    """

    id: str
    reason: str


class Crew:
    """One worker of a study; a context that shows it as alive.

    Args:
        study: The study's folder, this worker's own or shared on one machine.
        worker: This worker's name, or None for a new one.

    Raises:
        StudyError: The storage cannot be opened.
        DiskFullError: No room.
    """

    def __init__(self, study: Study, worker: str | None = None) -> None:
        self.study = study
        self.worker = worker or new_worker_id()
        self.place = study.place
        storage = _open(study, self.place)
        name = study.settings.name if study.is_remote else STUDY_NAME
        axes = study_distributions(study.settings)
        self.search = Ledger(self.place, storage, name, axes)
        self.finals = Ledger(self.place, storage, held_out_name(name))
        self._presence: Presence = LockPresence(study.workers_dir, self.worker)
        if study.is_remote:
            self._presence = BeatPresence(self.search, study.workers_dir, self.worker)
        self._known: set[int] = set()
        self._stack = ExitStack()

    def __enter__(self) -> Crew:
        self._stack.enter_context(self._presence)
        try:
            self._tidy()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _tidy(self) -> None:
        """Settle what earlier workers left, unless somebody is at work."""
        if self.study.is_remote:
            mirror.pull(self.study, self.search, self.finals)
        if not self.others():
            remove_leftovers(self.study.folder)
            self._adopt()

    def _adopt(self) -> None:
        """Enter records that the ledger does not know (it was lost)."""
        n_known = len(self.search)
        for record in self.study.records():
            if record.number < n_known:
                continue
            while n_known < record.number:
                self._enter_lost()
                n_known += 1
            claim = self.search.claim(
                str(record.slot),
                record.attempt,
                label=record.label,
                point=record.point,
            )
            self.search.add(claim, record.worker)
            self._close(record)
            n_known += 1

    def _enter_lost(self) -> None:
        """Fill the place of an entry that is lost, so that later ones keep theirs."""
        claim = self.search.claim("lost", 0, label="", point={})
        self.search.withdraw(self.search.add(claim, self.worker))

    # Others

    def others(self) -> tuple[str, ...]:
        """The other workers that are alive."""
        return self._presence.others()

    def is_alive(self, worker: str) -> bool:
        """Whether a worker is alive."""
        return self._presence.is_alive(worker)

    def open_entries(self, ledger: Ledger) -> list[Entry]:
        """What living workers, this one included, are at."""
        return [e for e in ledger.entries() if e.is_open and self.is_alive(e.worker)]

    # The search

    def sync(self) -> tuple[TrialRecord, ...]:
        """Records of attempts that ended since the last call, dead workers' included.

        Raises:
            DiskFullError: No room for a record.
        """
        found = []
        for entry in self.search.entries():
            if entry.number in self._known:
                continue
            if entry.is_open and self.is_alive(entry.worker):
                continue
            record = self._reap(entry) if entry.is_open else self._record(entry)
            self._known.add(entry.number)
            found.append(record)
        return tuple(found)

    def _record(self, entry: Entry) -> TrialRecord:
        """The record of a closed entry, wherever it is."""
        folder = self.study.trial_dir(entry.number)
        record = mirror.entry_record(self.search, entry) or load_record(folder)
        if record is None:
            state = FAILED if entry.score is None else COMPLETE
            reason = "Its record was deleted; the storage knows only the score."
            record = replace(_bare(entry), state=state, reason=reason)
        if load_record(folder) != record:
            save_record(folder, record)
        return record

    def _reap(self, entry: Entry) -> TrialRecord:
        """Settle what a dead worker left open.

        An attempt whose record was stored counts as it was recorded; any other is
        marked as killed and its point is tried again, never counted as a low score.
        """
        folder = self.study.trial_dir(entry.number)
        record = load_record(folder) or mirror.entry_record(self.search, entry)
        if record is None:
            _log.info("Attempt %04d was in flight when it was killed.", entry.number)
            record = _bare(entry)
        save_record(folder, record)
        if not self._close(record):
            return self._record(self._entry(entry.number))
        return record

    def _entry(self, number: int) -> Entry:
        """An entry as it stands now."""
        (entry,) = [e for e in self.search.entries() if e.number == number]
        return entry

    def claim(self, draft: TrialRecord) -> TrialRecord | None:
        """Take a slot; None when somebody else did, or when the search has ended."""
        claim = self.search.claim(
            str(draft.slot), draft.attempt, label=draft.label, point=draft.point
        )
        number = claim.take(self.worker, is_void=lambda: self.ending() is not None)
        if number is None:
            return None
        self._known.add(number)
        is_alone = not self.others()
        return replace(draft, number=number, worker="" if is_alone else self.worker)

    def store(self, record: TrialRecord) -> TrialRecord:
        """Keep what came of an attempt of this worker.

        Returns:
            The record as it counts: not this one when others took us for dead.

        Raises:
            DiskFullError: No room.
        """
        save_record(self.study.trial_dir(record.number), record)
        if self._close(record):
            return record
        _log.warning(
            "Trial %04d took so long without a sign of life that another worker gave "
            "it up; what came of it does not count.",
            record.number,
        )
        entry = self._entry(record.number)
        killed = mirror.entry_record(self.search, entry) or _bare(entry)
        save_record(self.study.trial_dir(record.number), killed)
        return killed

    def _close(self, record: TrialRecord) -> bool:
        texts = mirror.record_text(record) if self.study.is_remote else None
        return self.search.close(
            record.number,
            score=record.score,
            is_pruned=record.state == PRUNED,
            reason="" if record.score is not None else record.reason or record.state,
            texts=texts,
        )

    # The end of the search

    def ending(self) -> Ending | None:
        """Why the search ended, or None while it goes on."""
        return read_ending(self.search)

    def end(self, reason: str) -> Ending:
        """End the search for all workers; the first reason stays."""
        ending = self.ending()
        if ending is None:
            ending = Ending(secrets.token_hex(4), reason)
            self.search.set_text(ENDED, json.dumps([ending.id, ending.reason]))
        return ending

    def publish(self, *names: str) -> None:
        """Let workers on other machines see files of the study's folder."""
        if self.study.is_remote:
            mirror.push(self.study, self.search, names)

    def pull(self) -> None:
        """Bring what workers on other machines found into the study's folder."""
        if self.study.is_remote:
            mirror.pull(self.study, self.search, self.finals)


def read_ending(ledger: Ledger) -> Ending | None:
    """Why a study's search ended, or None while it goes on."""
    text = ledger.text(ENDED)
    return Ending(*json.loads(text)) if text else None


def clear_ending(study: Study) -> None:
    """Let a search that ended go on (it was extended).

    Raises:
        StudyError: The storage cannot be opened.
    """
    if study.is_remote or study.journal_path.exists():
        ledger = search_ledger(study)
        if read_ending(ledger) is not None:
            ledger.set_text(ENDED, "")
        if study.is_remote:
            mirror.push(study, ledger, (mirror.SETTINGS,))


def search_ledger(study: Study) -> Ledger:
    """A study's search ledger, for reading or for a change while nobody runs it.

    Raises:
        StudyError: The storage cannot be opened.
    """
    place = study.place
    name = study.settings.name if study.is_remote else STUDY_NAME
    return Ledger(place, open_storage(place), name)


def held_out_name(name: str) -> str:
    """The Optuna study that the held-out scores of a study are kept in."""
    return f"{name} (held-out)"


def _bare(entry: Entry) -> TrialRecord:
    return TrialRecord(
        number=entry.number,
        slot=int(entry.item),
        attempt=entry.attempt,
        label=entry.label,
        point=entry.point,
        state=KILLED,
        score=entry.score,
        reason="The process ended during this trial.",
        finished=time.time(),
        worker=entry.worker,
    )


def _open(study: Study, place: StoragePlace) -> Any:
    """Open the storage; a journal of the study's own that is damaged is set aside.

    Its entries are made again from the records.
    """
    try:
        storage = open_storage(place)
        if not study.is_remote:
            Ledger(place, storage, STUDY_NAME)
        return storage
    except StudyError as fault:
        if study.is_remote:
            raise
        path = study.journal_path
        if not path.is_file():
            raise
        aside = path.with_name(f"journal.broken-{int(time.time())}.log")
        path.replace(aside)
        _log.warning("%s It was kept as %s and written again.", fault, aside.name)
        return open_storage(place)
