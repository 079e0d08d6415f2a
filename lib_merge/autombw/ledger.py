"""The ledger: who took which piece of a study's work, and what came of it.

It is one Optuna study: an entry is one of its trials. Optuna numbers trials atomically
in every storage, and that is what makes a claim atomic: whoever's entry for a piece has
the lowest number holds it, and whoever finds a lower one yields.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from lib_merge.autombw._files import named_disk_faults
from lib_merge.autombw.search import import_optuna, quiet_optuna
from lib_merge.autombw.storage import StoragePlace
from lib_merge.errors import StudyError

_log = logging.getLogger(__name__)

CHUNK = 16_000
"""Characters of one stored attribute: MySQL keeps 65,535 bytes, 4 a character."""

PATIENCE_S = (1.0, 2.0, 5.0, 10.0, 20.0)
"""Pauses before each further try to reach a database that went away."""

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One attempt at a piece of work.

    Attributes:
        number: Its number, unique in the ledger, ascending.
        item: The piece: a slot's number, or a candidate's name.
        attempt: 0 for the first attempt at the piece.
        label: What people call it.
        point: Values by axis.
        score: Its score, once there is one.
        is_open: Whether somebody works on it, or died while working on it.
        worker: Who.
        is_failed: Whether it was closed without a result.
    """

    number: int
    item: str
    attempt: int
    label: str
    point: dict[str, float]
    score: float | None
    is_open: bool
    worker: str
    is_failed: bool = False


class Ledger:
    """An Optuna study as a ledger.

    Args:
        place: Where the storage is, for messages.
        storage: The opened Optuna storage.
        name: The Optuna study's name; it is made if it is not there.
        distributions: Optuna's description of the axes; entries keep their values.

    Raises:
        StudyError: The storage cannot be read.
        DiskFullError: No room.
    """

    def __init__(
        self,
        place: StoragePlace,
        storage: Any,
        name: str,
        distributions: Mapping[str, Any] | None = None,
    ) -> None:
        self._optuna = import_optuna()
        self._place = place
        self._storage = storage
        self._distributions = dict(distributions or {})
        self._study = self._do(
            lambda: self._optuna.create_study(
                storage=storage,
                study_name=name,
                direction="maximize",
                load_if_exists=True,
            )
        )
        self._id = self._do(lambda: storage.get_study_id_from_name(name))
        self._closed: dict[int, Entry | None] = {}

    # Reading

    def entries(self) -> tuple[Entry, ...]:
        """Every entry that did not yield, by number."""
        trials = self._do(lambda: self._study.get_trials(deepcopy=False))
        found: list[Entry] = []
        for trial in trials:
            if trial.number in self._closed:
                entry = self._closed[trial.number]
            else:
                entry = _entry(trial)
                if trial.state.is_finished():
                    self._closed[trial.number] = entry
                    self._share(trial)
            if entry is not None:
                found.append(entry)
        return tuple(found)

    def _share(self, trial: Any) -> None:
        """Let trials hold one description of the axes, not one each: it is most of
        what a trial takes in memory."""
        if trial.distributions == self._distributions:
            trial.distributions = self._distributions

    def __len__(self) -> int:
        """How many entries there are, those that yielded included."""
        return len(self._do(lambda: self._study.get_trials(deepcopy=False)))

    # Writing

    def claim(
        self, item: str, attempt: int, *, label: str, point: Mapping[str, float]
    ) -> Claim:
        """Prepare a claim; `Claim.take` makes it."""
        return Claim(self, item, attempt, label, dict(point))

    def add(self, claim: Claim, worker: str) -> int:
        """Enter an attempt, whoever else holds the piece; see `Claim.take`.

        Returns:
            Its number.

        Raises:
            DiskFullError: No room; there is no entry.
        """
        params = {n: claim.point[n] for n in self._distributions if n in claim.point}
        trial = self._optuna.trial.create_trial(
            state=self._optuna.trial.TrialState.RUNNING,
            params=params,
            distributions={name: self._distributions[name] for name in params},
            user_attrs={
                "item": claim.item,
                "attempt": claim.attempt,
                "label": claim.label,
                "worker": worker,
                "point": {n: v for n, v in claim.point.items() if n not in params},
            },
        )

        def create() -> int:
            trial_id = self._storage.create_new_trial(self._id, template_trial=trial)
            return int(self._storage.get_trial_number_from_id(trial_id))

        return self._do(create)

    def close(
        self,
        number: int,
        *,
        score: float | None,
        is_pruned: bool = False,
        reason: str = "",
        texts: Mapping[str, str] | None = None,
    ) -> bool:
        """Note how an attempt ended.

        Args:
            number: Its number.
            score: Its score, or None when it failed.
            is_pruned: Whether it was given up early, its score being an estimate.
            reason: Why it failed.
            texts: What else is kept with it.

        Returns:
            False when somebody else closed it before: they took this worker for dead.

        Raises:
            DiskFullError: No room; the attempt stays open.
        """
        states = self._optuna.trial.TrialState
        state = states.FAIL if score is None else states.COMPLETE
        if is_pruned:
            state = states.PRUNED
        values = [score] if state is states.COMPLETE else None

        def finish() -> bool:
            trial_id = self._trial_id(number)
            for key, value in _chunks(texts or {}).items():
                self._storage.set_trial_user_attr(trial_id, key, value)
            if reason:
                self._storage.set_trial_user_attr(trial_id, "reason", reason[:CHUNK])
            return bool(self._storage.set_trial_state_values(trial_id, state, values))

        try:
            return self._do(finish)
        except self._optuna.exceptions.UpdateFinishedTrialError:
            return False

    def withdraw(self, number: int) -> None:
        """Close an entry that found another worker's ahead of it."""
        state = self._optuna.trial.TrialState.FAIL

        def finish() -> None:
            trial_id = self._trial_id(number)
            self._storage.set_trial_user_attr(trial_id, "is_yielded", True)
            self._storage.set_trial_state_values(trial_id, state, None)

        try:
            self._do(finish)
        except self._optuna.exceptions.UpdateFinishedTrialError:
            _log.warning("Entry %d was closed before it could be withdrawn.", number)

    def entry_text(self, number: int, key: str) -> str | None:
        """What `close` kept under a key, or None."""
        trial = self._do(lambda: self._storage.get_trial(self._trial_id(number)))
        return _joined(trial.user_attrs, key)

    def text(self, key: str) -> str | None:
        """What `set_text` stored for the whole study, or None."""
        attrs = self._do(lambda: self._storage.get_study_user_attrs(self._id))
        return _joined(attrs, key)

    def set_text(self, key: str, text: str) -> None:
        """Store a text for the whole study.

        Raises:
            DiskFullError: No room.
        """

        def write() -> None:
            for name, value in _chunks({key: text}).items():
                self._storage.set_study_user_attr(self._id, name, value)

        self._do(write)

    def numbers(self) -> dict[str, int]:
        """Every whole number stored for the whole study."""
        attrs = self._do(lambda: self._storage.get_study_user_attrs(self._id))
        return {key: value for key, value in attrs.items() if isinstance(value, int)}

    def set_number(self, key: str, value: int) -> None:
        """Store a whole number for the whole study.

        Raises:
            DiskFullError: No room.
        """
        self._do(lambda: self._storage.set_study_user_attr(self._id, key, value))

    def _trial_id(self, number: int) -> int:
        get = self._storage.get_trial_id_from_study_id_trial_number
        return int(get(self._id, number))

    def _do(self, action: Callable[[], T]) -> T:
        """Reach the storage, again after a while if a database went away."""
        for pause_s in PATIENCE_S:
            try:
                with self._guarded():
                    return action()
            except _gone() as fault:
                shown = self._place.shown
                _log.warning("%s: %s; trying again in %g s.", shown, fault, pause_s)
                time.sleep(pause_s)
        try:
            with self._guarded():
                return action()
        except _gone() as fault:
            raise StudyError(
                f"The storage {self._place.shown} cannot be reached. Everything stored "
                "so far is kept; see that the server runs and resume the study."
            ) from fault

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        path = self._place.journal_path
        if path is None:
            with quiet_optuna(self._optuna):
                yield
            return
        try:
            with named_disk_faults(path.parent), quiet_optuna(self._optuna):
                yield
        except (ValueError, KeyError, AssertionError) as fault:
            raise StudyError(
                f"{path} is no readable journal ({fault}); restore it from a copy, or "
                "start a new study."
            ) from fault


@dataclass(frozen=True)
class Claim:
    """A piece of work that a worker wants.

    Attributes:
        ledger: Where.
        item: The piece.
        attempt: Which attempt at it.
        label: What people call it.
        point: Values by axis.
    """

    ledger: Ledger
    item: str
    attempt: int
    label: str
    point: dict[str, float]

    def take(
        self, worker: str, *, is_void: Callable[[], bool] = lambda: False
    ) -> int | None:
        """Enter the claim, and keep it if nobody was faster.

        Args:
            worker: Who claims.
            is_void: Asked after the entry was made; True withdraws it.

        Returns:
            The entry's number, or None when the piece is somebody else's.

        Raises:
            DiskFullError: No room.
        """
        number = self.ledger.add(self, worker)
        rivals = [
            entry
            for entry in self.ledger.entries()
            if entry.item == self.item
            and entry.attempt >= self.attempt
            and entry.number < number
        ]
        # A database that went away after it had made our entry made a second one.
        twin = next((e for e in rivals if e.is_open and e.worker == worker), None)
        if twin is not None:
            self.ledger.withdraw(number)
            number, rivals = twin.number, []
        if not rivals and not is_void():
            return number
        self.ledger.withdraw(number)
        return None


def _entry(trial: Any) -> Entry | None:
    attrs = trial.user_attrs
    if attrs.get("is_yielded"):
        return None
    point = {**(attrs.get("point") or {}), **trial.params}
    return Entry(
        number=trial.number,
        item=str(attrs.get("item", attrs.get("slot", trial.number))),
        attempt=int(attrs.get("attempt", 0)),
        label=str(attrs.get("label", "")),
        point={name: float(value) for name, value in point.items()},
        score=trial.value if trial.state.is_finished() else None,
        is_open=not trial.state.is_finished(),
        worker=str(attrs.get("worker", "")),
        is_failed=trial.state.name == "FAIL",
    )


def _chunks(texts: Mapping[str, str]) -> dict[str, object]:
    """Texts as attributes that every database takes."""
    found: dict[str, object] = {}
    for key, text in texts.items():
        encoded = json.dumps(text)
        parts = [encoded[i : i + CHUNK] for i in range(0, len(encoded), CHUNK)]
        for i, part in enumerate(parts):
            found[f"{key}.{i}"] = part
        found[key] = len(parts)
    return found


def _joined(attrs: Mapping[str, Any], key: str) -> str | None:
    n_parts = attrs.get(key)
    if not isinstance(n_parts, int):
        return None
    try:
        text = json.loads("".join(attrs[f"{key}.{i}"] for i in range(n_parts)))
    except (KeyError, ValueError):
        return None  # being written just now
    return str(text)


def _gone() -> tuple[type[Exception], ...]:
    """What is raised when a database cannot be reached."""
    optuna = import_optuna()
    found: list[type[Exception]] = [optuna.exceptions.StorageInternalError]
    try:
        from sqlalchemy.exc import InterfaceError, OperationalError
    except ImportError:
        return tuple(found)
    return (*found, InterfaceError, OperationalError)
