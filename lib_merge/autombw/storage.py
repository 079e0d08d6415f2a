"""Where a study's Optuna storage is: a journal file, or a database by its URL.

Everything is kept in ordinary Optuna studies, so that Optuna's own tools open them.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_merge.autombw._lock import WaitingLock
from lib_merge.autombw.search import import_optuna
from lib_merge.errors import InputError, StudyError

_log = logging.getLogger(__name__)

JOURNAL = "journal"
"""What stands ahead of the colon for a journal file."""

_DRIVERS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "postgresql": (
        ("psycopg", "psycopg", '"psycopg[binary]"'),
        ("psycopg2", "psycopg2", "psycopg2-binary"),
    ),
    "mysql": (
        ("pymysql", "pymysql", "pymysql cryptography"),
        ("mysqldb", "MySQLdb", "mysqlclient"),
    ),
    "sqlite": (("", "sqlite3", ""),),
}
"""Kind of database -> (SQLAlchemy's name of a driver, its module, how pip calls it)."""

_ALIASES = {"postgres": "postgresql", "mariadb": "mysql"}

_URL = re.compile(r"(?P<kind>[a-z0-9]+)(\+(?P<driver>[a-z0-9_]+))?:(?P<rest>.*)", re.S)
_SECRET = re.compile(r"(?<=:)[^:/@]*(?=@)")


@dataclass(frozen=True)
class StoragePlace:
    """A storage by its address.

    Attributes:
        url: "journal:PATH", "postgresql://...", "mysql://..." or "sqlite:///PATH".
    """

    url: str

    @classmethod
    def parse(cls, text: str) -> StoragePlace:
        """Read what a user typed.

        Raises:
            InputError: Not an address of a kind that is known, or the driver that it
                needs is not installed.
        """
        match = _URL.fullmatch(text.strip())
        kind = _ALIASES.get(match["kind"], match["kind"]) if match else ""
        if match is None or kind not in (JOURNAL, *_DRIVERS):
            raise InputError(
                f"'{_SECRET.sub('***', text)}' is no storage; use postgresql://..., "
                "mysql://..., sqlite:///FILE or journal:FILE."
            )
        rest = match["rest"]
        if kind == JOURNAL:
            if not rest:
                raise InputError("journal: names no file; use journal:FILE.")
            return cls(f"{JOURNAL}:{Path(rest).absolute()}")
        return cls(f"{kind}{_driver(kind, match['driver'])}:{rest}")

    @property
    def journal_path(self) -> Path | None:
        """The journal file, or None for a database."""
        kind, _, rest = self.url.partition(":")
        return Path(rest) if kind == JOURNAL else None

    @property
    def shown(self) -> str:
        """The address for people, without its password."""
        return _SECRET.sub("***", self.url)


def _driver(kind: str, wanted: str | None) -> str:
    """The part of the URL that names a driver which is installed.

    Raises:
        InputError: None is; the message says what to install.
    """
    known = _DRIVERS[kind]
    if wanted is not None and wanted not in [name for name, _, _ in known]:
        return f"+{wanted}"  # SQLAlchemy may know it; if not, it says so on opening
    choices = [driver for driver in known if wanted in (None, driver[0])]
    for name, module, _ in choices:
        if importlib.util.find_spec(module) is not None:
            return f"+{name}" if name else ""
    raise InputError(
        f"A {kind} storage needs a driver that is not installed; run: "
        f"pip install {choices[0][2]}"
    )


def open_storage(place: StoragePlace) -> Any:
    """Open an Optuna storage.

    Raises:
        StudyError: Optuna is missing, the database cannot be reached, or the file is
            no journal.
    """
    optuna = import_optuna()
    path = place.journal_path
    if path is not None:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        with _unreadable(place):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _JournalLock(path)
            drop_torn_line(path)
            return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    with _unreadable(place):
        rdb = optuna.storages.RDBStorage(
            place.url,
            engine_kwargs={"pool_pre_ping": True, **_engine_options(place)},
        )
        return optuna.storages.get_storage(rdb)


def _engine_options(place: StoragePlace) -> dict[str, Any]:
    if place.url.startswith("sqlite"):
        return {"connect_args": {"timeout": 60}}
    return {}


class _unreadable:  # noqa: N801 - reads as a context, like suppress
    """Names the storage in whatever goes wrong while it is opened."""

    def __init__(self, place: StoragePlace) -> None:
        self._place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, fault: BaseException | None, _: object) -> None:
        if fault is None or isinstance(fault, (OSError, StudyError)):
            return
        if not isinstance(fault, Exception):
            return
        path = self._place.journal_path
        if path is not None:
            raise StudyError(
                f"{path} is no readable journal ({fault}); restore it from a copy, or "
                "start a new study."
            ) from fault
        text = _SECRET.sub("***", str(fault).strip().splitlines()[0])
        raise StudyError(
            f"The storage {self._place.shown} cannot be opened: {text} Check that the "
            "server runs, and address, user and password."
        ) from fault


class _JournalLock:
    """Optuna's lock on a journal, freed by the system when its holder is killed.

    What a killed process or a full disk left of a line is cut off before the next
    line is written, so that lines are never glued together.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = WaitingLock(path.with_name(path.name + ".flock"))

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._lock.acquire()
        drop_torn_line(self._path)
        return True

    def release(self) -> None:
        """Give it back; what could not be written whole is cut off first."""
        drop_torn_line(self._path)
        self._lock.release()


def drop_torn_line(path: Path) -> None:
    """Cut what a killed process or a full disk left after the last whole line."""
    with suppress(FileNotFoundError), path.open("r+b") as file:
        size = file.seek(0, 2)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        _log.warning("%s: dropped a torn last line.", path)
        file.truncate(whole)
