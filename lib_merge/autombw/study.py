"""Studies on disk: folder layout, opening for reading, listing, extending."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lib_merge.autombw._files import folder_name, read_json, write_json
from lib_merge.autombw._lock import StudyLock, is_locked
from lib_merge.autombw._slots import SlotTable
from lib_merge.autombw.payloads import draw_payloads
from lib_merge.autombw.presence import living
from lib_merge.autombw.records import RECORD, TrialRecord, load_record
from lib_merge.autombw.results import StudyResult
from lib_merge.autombw.settings import Shot, StudySettings, shots
from lib_merge.autombw.snapshot import Snapshot
from lib_merge.autombw.storage import JOURNAL, StoragePlace
from lib_merge.autombw.wildcards import FOLDER
from lib_merge.errors import MergeError, StudyError

__all__ = [
    "Shot",
    "Study",
    "StudySettings",
    "StudySummary",
    "create_study",
    "extend_study",
    "find_study",
    "list_studies",
    "live_snapshot",
    "open_study",
    "shots",
    "worker_snapshots",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudySummary:
    """One line about a study.

    Attributes:
        name: Its name.
        folder: Where it is.
        state: new, running, stopped, complete, imported or damaged.
        n_complete: Scored trials.
        n_trials: Trials asked for.
        best_score: Of the search, or None.
        modified: Unix time of the last change, seconds.
    """

    name: str
    folder: Path
    state: str
    n_complete: int
    n_trials: int
    best_score: float | None
    modified: float


class Study:
    """A study's folder, for reading; safe while another process runs it.

    Args:
        folder: The study's folder.
        settings: Its settings.
    """

    def __init__(self, folder: Path, settings: StudySettings) -> None:
        self.folder = folder
        self.settings = settings
        self._records: dict[int, tuple[tuple[int, int], TrialRecord]] = {}

    @property
    def journal_path(self) -> Path:
        """The Optuna journal."""
        return self.folder / "journal.log"

    @property
    def lock_path(self) -> Path:
        """The lock file that the running process holds."""
        return self.folder / "study.lock"

    @property
    def live_path(self) -> Path:
        """What the running process last said, for others to show."""
        return self.folder / "live.json"

    @property
    def result_path(self) -> Path:
        """The final result."""
        return self.folder / "result.json"

    @property
    def recipe_path(self) -> Path:
        """The best recipe so far, or the winner."""
        return self.folder / "best.recipe.json"

    @property
    def report_path(self) -> Path:
        """The report."""
        return self.folder / "report.html"

    @property
    def held_out_dir(self) -> Path:
        """Pictures and scores of the candidates on held-out seeds."""
        return self.folder / "held_out"

    def trial_dir(self, number: int) -> Path:
        """The folder of one attempt."""
        return self.folder / "trials" / f"{number:04d}"

    @property
    def workers_dir(self) -> Path:
        """A lock file and what it said last, for every worker of this folder."""
        return self.folder / "workers"

    @property
    def storage_path(self) -> Path:
        """Where the study's storage is, if it is no journal of its own."""
        return self.folder / "storage.json"

    @property
    def place(self) -> StoragePlace:
        """The study's Optuna storage.

        Raises:
            StudyError: storage.json is damaged.
        """
        try:
            return StoragePlace(str(read_json(self.storage_path)["url"]))
        except FileNotFoundError:
            return StoragePlace(f"{JOURNAL}:{self.journal_path}")
        except (OSError, ValueError, KeyError, TypeError) as fault:
            raise StudyError(
                f"{self.storage_path} cannot be read ({fault}); join the study anew."
            ) from fault

    @property
    def is_remote(self) -> bool:
        """Whether the storage, not this folder, is what the workers share."""
        return self.storage_path.exists()

    def records(self) -> tuple[TrialRecord, ...]:
        """Every finished attempt, by number; a file is read when it has changed."""
        folder = self.folder / "trials"
        for path in folder.glob(f"*/{RECORD}"):
            name = path.parent.name
            if not name.isdigit():
                continue
            with suppress(OSError):
                found = path.stat()
                changed = (found.st_mtime_ns, found.st_ino)
                if self._records.get(int(name), (None,))[0] != changed:
                    record = load_record(path.parent)
                    if record is not None:
                        self._records[int(name)] = (changed, record)
        return tuple(self._records[n][1] for n in sorted(self._records))

    def best(self) -> TrialRecord | None:
        """The whole trial with the highest score; of equal ones the first.

        Those that keep the diversity that was asked for come first.
        """
        return self.table().best()

    def table(self) -> SlotTable:
        """Every attempt by slot."""
        return SlotTable(self.settings, self.records(), self.settings.start_points())

    def result(self) -> StudyResult | None:
        """The final result, or None while there is none."""
        try:
            return StudyResult.from_json(read_json(self.result_path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as fault:
            _log.warning("%s is unreadable: %s", self.result_path, fault)
            return None

    def is_running(self) -> bool:
        """Whether some process of this machine works on it now."""
        return is_locked(self.lock_path) or bool(living(self.workers_dir))

    def summary(self) -> StudySummary:
        """One line about it."""
        records = self.records()
        n_complete = sum(record.is_complete for record in records)
        best = self.best()
        state = "stopped" if records else "new"
        if self.is_running():
            state = "running"
        elif self.settings.origin:
            state = "imported"
        elif self.result_path.exists():
            state = "complete"
        return StudySummary(
            name=self.settings.name,
            folder=self.folder,
            state=state,
            n_complete=n_complete,
            n_trials=self.settings.n_trials,
            best_score=best.score if best else None,
            modified=self._modified(),
        )

    def _modified(self) -> float:
        times = [0.0]
        for path in (self.folder / "settings.json", self.live_path, self.result_path):
            with suppress(OSError):
                times.append(path.stat().st_mtime)
        return max(times)


def create_study(data_dir: Path, settings: StudySettings) -> Study:
    """Make a study's folder under `data_dir`/studies; nothing is rendered yet.

    Negative payload seeds become fixed ones, and wildcards are drawn, both from the
    study's seed; wildcard files are looked for under `data_dir`/wildcards.

    Raises:
        StudyError: A study of this name exists.
        DiskFullError: No room for the settings.
    """
    fixed, held_out = (
        draw_payloads(
            (payload.with_fixed_seed(settings.seed) for payload in payloads),
            settings.seed,
            data_dir / FOLDER,
        )
        for payloads in (settings.payloads, settings.held_out_payloads)
    )
    settings = replace(settings, payloads=fixed, held_out_payloads=held_out)
    folder = data_dir / "studies" / folder_name(settings.name)
    if (folder / "settings.json").exists():
        raise StudyError(
            f"A study named '{settings.name}' exists in {folder}; resume it, or choose "
            "another name."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "settings.json", settings.to_json())
    return Study(folder, settings)


def open_study(folder: Path) -> Study:
    """Open a study's folder for reading or for a `StudyRunner`.

    Raises:
        StudyError: There is no study, or its settings are damaged.
    """
    path = folder / "settings.json"
    try:
        data = read_json(path)
    except FileNotFoundError as fault:
        raise StudyError(
            f"{folder} holds no study (no settings.json); see `study status`."
        ) from fault
    except (OSError, ValueError) as fault:
        raise StudyError(f"{path} cannot be read: {fault}.") from fault
    return Study(folder, StudySettings.from_json(data, where=str(path)))


def extend_study(study: Study, n_trials: int) -> Study:
    """The same study with more trials to do; what is done stays.

    Raises:
        StudyError: Fewer trials than before, or it is running.
        DiskFullError: No room for the settings.
    """
    from lib_merge.autombw.crew import clear_ending

    if n_trials < study.settings.n_trials:
        raise StudyError(
            f"Study '{study.settings.name}' has {study.settings.n_trials} trials; the "
            f"number can be raised, not lowered to {n_trials}."
        )
    with StudyLock(study.lock_path, study.settings.name):
        helpers = living(study.workers_dir)
        if helpers:
            raise StudyError(
                f"{len(helpers)} workers are at study '{study.settings.name}'; stop "
                "them before you raise the number of trials."
            )
        settings = replace(study.settings, n_trials=n_trials)
        write_json(study.folder / "settings.json", settings.to_json())
        extended = Study(study.folder, settings)
        clear_ending(extended)
    return extended


def live_snapshot(study: Study) -> Snapshot | None:
    """What the process that runs (or ran) the study said last, or None.

    Of several workers it is the one that was not started to help, while it is alive.
    """
    main = _snapshot(study.live_path)
    if is_locked(study.lock_path):
        return main
    found = [main, *worker_snapshots(study).values()]
    return max(
        (said for said in found if said is not None),
        key=lambda said: said.updated,
        default=None,
    )


def worker_snapshots(study: Study) -> dict[str, Snapshot]:
    """What every living worker that joined on this machine said last, by its name."""
    names = living(study.workers_dir)
    said = {name: _snapshot(study.workers_dir / f"{name}.json") for name in names}
    return {name: one for name, one in said.items() if one is not None}


def _snapshot(path: Path) -> Snapshot | None:
    try:
        return Snapshot.from_json(read_json(path))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_study(data_dir: Path, name: str) -> Study:
    """Open a study by its name, or by its folder.

    Raises:
        StudyError: There is none of this name; the message lists those that are.
    """
    for folder in (data_dir / "studies" / folder_name(name), Path(name)):
        if (folder / "settings.json").is_file():
            return open_study(folder)
    known = ", ".join(s.name for s in list_studies(data_dir)) or "none"
    raise StudyError(f"There is no study '{name}' in {data_dir}. Known: {known}.")


def list_studies(data_dir: Path) -> tuple[StudySummary, ...]:
    """Every study under `data_dir`/studies, the last changed first."""
    found = []
    for path in (data_dir / "studies").glob("*/settings.json"):
        try:
            found.append(open_study(path.parent).summary())
        except (MergeError, OSError) as fault:
            _log.warning("%s", fault)
            name = path.parent.name
            found.append(StudySummary(name, path.parent, "damaged", 0, 0, None, 0.0))
    return tuple(sorted(found, key=lambda s: (-s.modified, s.name)))
