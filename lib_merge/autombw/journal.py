"""The Optuna journal of a study: one durable line when an attempt starts and ends.

It is an ordinary Optuna study (JournalStorage), so that Optuna's own tools open it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_merge.autombw._files import named_disk_faults
from lib_merge.autombw.search import free_distributions, import_optuna, quiet_optuna
from lib_merge.autombw.space import BlockRange
from lib_merge.errors import StudyError

_log = logging.getLogger(__name__)

STUDY_NAME = "autombw"

STALE_LOCK_S = 2.0
"""A lock file of Optuna's that is older was left by a killed process: writes take
milliseconds, and only the holder of the study's own lock opens the journal here."""


@dataclass(frozen=True)
class Attempt:
    """A trial as the journal knows it."""

    number: int
    slot: int
    attempt: int
    label: str
    point: dict[str, float]
    score: float | None
    is_open: bool


class Journal:
    """The journal file, opened for writing by the process that holds the study's lock.

    Args:
        path: The file; created when it is not there.
        ranges: The search space.

    Raises:
        StudyError: Optuna is missing, or the file cannot be read as a journal.
        DiskFullError: No room for its first line.
    """

    def __init__(self, path: Path, ranges: Sequence[BlockRange]) -> None:
        self._optuna = import_optuna()
        self._path = path
        self._ranges = tuple(ranges)
        self._free = free_distributions(self._optuna, ranges)
        drop_torn_line(path)
        _drop_stale_lock(path)
        with self._guarded():
            self._study = self._open()

    def _open(self) -> Any:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        name = str(self._path)
        lock = JournalFileOpenLock(name)
        try:
            self._storage = JournalStorage(JournalFileBackend(name, lock_obj=lock))
            return self._optuna.create_study(
                storage=self._storage,
                study_name=STUDY_NAME,
                direction="maximize",
                load_if_exists=True,
            )
        except (ValueError, KeyError, AssertionError) as fault:
            raise StudyError(
                f"{self._path} is no readable journal ({fault}); restore it from a "
                "copy, or start a new study."
            ) from fault

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with named_disk_faults(self._path.parent), quiet_optuna(self._optuna):
                yield
        except BaseException:
            # A full disk can cut a line; later lines must not be glued to it.
            drop_torn_line(self._path)
            raise

    def attempts(self) -> tuple[Attempt, ...]:
        """Every attempt, by number."""
        trials = self._study.get_trials(deepcopy=False)
        return tuple(self._attempt(trial) for trial in trials)

    def _attempt(self, trial: Any) -> Attempt:
        attrs = trial.user_attrs
        return Attempt(
            number=trial.number,
            slot=int(attrs.get("slot", trial.number)),
            attempt=int(attrs.get("attempt", 0)),
            label=str(attrs.get("label", "")),
            point=self._whole_point(trial.params),
            score=trial.value,
            is_open=not trial.state.is_finished(),
        )

    def _whole_point(self, params: Mapping[str, float]) -> dict[str, float]:
        point = {str(r.block): r.low for r in self._ranges}
        return point | {name: float(value) for name, value in params.items()}

    def start(
        self, point: Mapping[str, float], *, slot: int, attempt: int, label: str
    ) -> int:
        """Note that an attempt begins.

        Returns:
            The trial's number.

        Raises:
            DiskFullError: No room; the attempt does not exist.
        """
        attrs = {"slot": slot, "attempt": attempt, "label": label}
        trial = self._optuna.trial.create_trial(
            state=self._optuna.trial.TrialState.RUNNING,
            params={name: point[name] for name in self._free},
            distributions=self._free,
            user_attrs=attrs,
        )
        with self._guarded():
            self._study.add_trial(trial)
            return len(self._study.get_trials(deepcopy=False)) - 1

    def complete(self, number: int, score: float, images: Sequence[float]) -> None:
        """Note an attempt's score, and those of its pictures.

        Raises:
            DiskFullError: No room; the attempt stays open.
        """
        with self._guarded():
            self._set(number, "image_scores", list(images))
            self._study.tell(number, score)

    def fail(self, number: int, reason: str) -> None:
        """Note that an attempt ended without a score.

        Raises:
            DiskFullError: No room; the attempt stays open.
        """
        with self._guarded():
            self._set(number, "reason", reason)
            state = self._optuna.trial.TrialState.FAIL
            self._study.tell(number, state=state)

    def _set(self, number: int, key: str, value: object) -> None:
        study_id = self._storage.get_study_id_from_name(STUDY_NAME)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(
            study_id, number
        )
        self._storage.set_trial_user_attr(trial_id, key, value)


def drop_torn_line(path: Path) -> None:
    """Cut what a killed process or a full disk left after the last whole line."""
    with suppress(FileNotFoundError), path.open("r+b") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            _log.warning("%s: dropped a torn last line.", path)
            file.truncate(whole)


def _drop_stale_lock(path: Path) -> None:
    lock = path.with_name(path.name + ".lock")
    with suppress(OSError):
        if time.time() - lock.lstat().st_mtime > STALE_LOCK_S:
            lock.unlink()
