"""The mirror: a study's folder and its storage kept alike, where machines share one.

Every worker's folder holds everything but other machines' pictures, so that whoever
reads a study's folder reads the whole study.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from lib_merge.autombw._files import write_bytes
from lib_merge.autombw.ledger import Entry, Ledger
from lib_merge.autombw.records import KILLED, TrialRecord, load_record, save_record
from lib_merge.autombw.study import Study

_log = logging.getLogger(__name__)

SETTINGS = "settings.json"
SCALES = "scales.json"
RESULT = "result.json"
ESTIMATE = "estimate.json"

_PULLED = (SCALES, RESULT, ESTIMATE)

RECORD = "record"
"""What an entry's record is stored as."""

REAPED = "reaped"
"""What the record of an attempt is stored as whose worker was taken for dead.

A key of its own: a worker that was only slow may be storing its record just now, and
whoever closes the entry first decides which of the two counts.
"""


def push(study: Study, ledger: Ledger, names: Sequence[str]) -> None:
    """Store files of the study's folder for the other machines; absent ones as empty.

    Raises:
        StudyError: The storage cannot be reached.
    """
    for name in names:
        path = study.folder / name
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if ledger.text(name) != text:
            ledger.set_text(name, text)


def pull(study: Study, search: Ledger, finals: Ledger) -> None:
    """Bring files and held-out records of other machines into the study's folder.

    Raises:
        StudyError: The storage cannot be reached.
        DiskFullError: No room.
    """
    for name in _PULLED:
        text = search.text(name)
        path = study.folder / name
        if text is None:
            continue
        mine = path.read_text(encoding="utf-8") if path.is_file() else ""
        if text and text != mine:
            write_bytes(path, text.encode("utf-8"))
        elif not text and mine:
            path.unlink()
    for entry in finals.entries():
        pull_held_out(study, finals, entry)


def pull_held_out(study: Study, finals: Ledger, entry: Entry) -> None:
    """Bring a closed candidate's record into the study's folder.

    Raises:
        DiskFullError: No room.
    """
    record = entry_record(finals, entry)
    if record is None:
        return
    folder = study.held_out_dir / entry.label.replace(" ", "_")
    if load_record(folder) != record:
        save_record(folder, record)


def pull_records(study: Study, search: Ledger) -> None:
    """Bring every closed trial's record into the study's folder.

    Raises:
        DiskFullError: No room.
    """
    for entry in search.entries():
        record = entry_record(search, entry)
        folder = study.trial_dir(entry.number)
        if record is not None and load_record(folder) is None:
            save_record(folder, record)


def record_text(record: TrialRecord) -> dict[str, str]:
    """A record as what an entry keeps."""
    key = REAPED if record.state == KILLED else RECORD
    return {key: json.dumps(record.to_json(), allow_nan=False)}


def entry_record(ledger: Ledger, entry: Entry) -> TrialRecord | None:
    """The record that an entry keeps, or None."""
    text = ledger.entry_text(entry.number, REAPED) if entry.is_failed else None
    if text is None:
        text = ledger.entry_text(entry.number, RECORD)
    if text is None:
        return None
    data: Any = json.loads(text)
    return TrialRecord.from_json(data)
