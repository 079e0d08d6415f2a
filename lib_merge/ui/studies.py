"""The studies of one host: which are there, which one runs, what a page shows of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from lib_merge.core.ports import Host, Scorer
from lib_merge.core.recipe import Recipe
from lib_merge.errors import BusyError, InputError, MergeError, StudyError
from lib_merge.ui.jobs import describe_bug
from lib_merge.ui.preferences import Preferences
from lib_merge.ui.study_folder import FolderState, folder_state

if TYPE_CHECKING:
    from lib_merge.autombw.dashboard import Dashboard
    from lib_merge.autombw.objective import Merger
    from lib_merge.autombw.results import StudyResult
    from lib_merge.autombw.runner import StudyRunner
    from lib_merge.autombw.snapshot import Snapshot
    from lib_merge.autombw.study import Study, StudySettings, StudySummary


_log = logging.getLogger(__name__)


LOOK_AGAIN_S = 4.0
"""How often the line about a study is made anew while it changes all the time."""


class StudyDesk:
    """Starts, watches and stops studies; shared by all open pages.

    Args:
        host: What they render through.
        merger: Gives the merger of the loaded model, when one is needed.
        is_merging: Whether a merge is writing into the loaded model.
    """

    def __init__(
        self,
        host: Host,
        merger: Callable[[], Merger],
        is_merging: Callable[[], bool],
    ) -> None:
        self.host = host
        self._merger = merger
        self._is_merging = is_merging
        self._runner: StudyRunner | None = None
        self._dashboard: Dashboard | None = None
        self._lock = Lock()
        self._studies: dict[Path, tuple[int, Study]] = {}
        self._summaries: dict[Path, tuple[FolderState, float, StudySummary]] = {}
        self.preferences = Preferences(host)
        self.scorer: Scorer | None = None
        self.reserved_by = ""

    @property
    def is_running(self) -> bool:
        """Whether a study of this process is using the loaded model."""
        return self._runner is not None and self._runner.is_alive

    @property
    def is_paused(self) -> bool:
        """Whether the running study waits."""
        from lib_merge.autombw.snapshot import PAUSED

        return self.is_running and self.snapshot().state == PAUSED

    def data_dir(self) -> Path:
        """Where `studies` and `tournaments` lie, as the user has set it."""
        return self.preferences.studies_dir()

    def names(self) -> list[str]:
        """Every readable study, the last changed first; asked with every refresh."""
        folder = self.data_dir() / "studies"
        found = []
        for path in folder.glob("*/settings.json"):
            study = self._opened(path)
            if study is not None:
                changed = path.parent.stat().st_mtime_ns
                found.append((-changed, study.settings.name))
        return [name for _, name in sorted(found)]

    def summaries(self) -> list[StudySummary]:
        """One line about every readable study, the last changed first.

        A study is looked at again when its folder changed, one that changes all the
        time every few seconds: a page asks each second, and trials are many files.
        """
        self.names()
        now = time.monotonic()
        for settings, (_, study) in list(self._studies.items()):
            if not settings.is_file():
                del self._studies[settings]
                self._summaries.pop(settings, None)
                continue
            state = folder_state(study)
            known = self._summaries.get(settings)
            if known is None or (known[0] != state and now - known[1] > LOOK_AGAIN_S):
                self._summaries[settings] = (state, now, study.summary())
        found = [summary for _, _, summary in self._summaries.values()]
        return sorted(found, key=lambda one: (-one.modified, one.name))

    def _opened(self, settings: Path) -> Study | None:
        """The study of a settings file; kept open until that file changes."""
        from lib_merge.autombw.study import open_study

        changed = settings.stat().st_mtime_ns
        known = self._studies.get(settings)
        if known is None or known[0] != changed:
            try:
                known = (changed, open_study(settings.parent))
            except MergeError as fault:
                _log.warning("%s", fault)
                return None
            self._studies[settings] = known
        return known[1]

    def current_name(self) -> str | None:
        """The study that runs or ran last in this process, else the newest on disk."""
        if self._runner is not None:
            return self._runner.study.settings.name
        names = self.names()
        return names[0] if names else None

    def study(self, name: str) -> Study:
        """One study, for reading.

        Raises:
            StudyError: There is none of this name.
        """
        from lib_merge.autombw.study import find_study

        if self.is_running and self._runner is not None and self.is_current(name):
            return self._runner.study
        for settings, (_, known) in list(self._studies.items()):
            if known.settings.name == name and settings.is_file():
                study = self._opened(settings)
                if study is not None:
                    return study
        return find_study(self.data_dir(), name)

    def snapshot(self) -> Snapshot:
        """What the study of this process does now.

        Raises:
            StudyError: None was started in this process.
        """
        if self._runner is None:
            raise StudyError("No study was started since the program began.")
        return self._runner.snapshot()

    def is_current(self, name: str) -> bool:
        """Whether this process runs, or ran, the study of this name."""
        return self._runner is not None and self._runner.study.settings.name == name

    def failure(self) -> str:
        """What ended the last study, or ""."""
        error = None if self._runner is None else self._runner.error
        if error is None:
            return ""
        return str(error) if isinstance(error, MergeError) else describe_bug(error)

    def start(self, settings: StudySettings, storage: str = "") -> None:
        """Create a study and run it.

        Args:
            settings: What it is told.
            storage: The address of a storage that others reach; "" for its own file.

        Raises:
            InputError: Something else is using the loaded model, or no such storage.
            StudyError: A study of this name exists.
            ScorerError: The scorer cannot be used.
        """
        from lib_merge.autombw.sharing import create_shared_study
        from lib_merge.autombw.storage import StoragePlace
        from lib_merge.autombw.study import create_study

        self.check_free()
        self._check_scorers(settings)
        folder = self.data_dir()
        if storage.strip():
            place = StoragePlace.parse(storage)
            self._run(create_shared_study(folder, settings, place))
        else:
            self._run(create_study(folder, settings))

    def join(self, storage: str, name: str) -> str:
        """Work on a study in a storage that others reach.

        Args:
            storage: Its address.
            name: The study's name; "" when there is only one.

        Returns:
            The study's name.

        Raises:
            InputError: Something else is using the loaded model, or no such storage.
            StudyError: No such study there, or a model is missing here.
        """
        from lib_merge.autombw.sharing import join_shared_study
        from lib_merge.autombw.storage import StoragePlace

        self.check_free()
        entries = self.host.catalog.checkpoints()
        study = join_shared_study(
            self.data_dir(),
            StoragePlace.parse(storage),
            name.strip() or None,
            folders=list(dict.fromkeys(entry.path.parent for entry in entries)),
        )
        self._check_scorers(study.settings)
        self._run(study)
        return study.settings.name

    def resume(self, name: str) -> None:
        """Go on with a paused study, run a stopped one again, or help another process.

        Raises:
            InputError: Something else is using the loaded model.
            StudyError: There is none of this name.
        """
        if self.is_running and self.is_current(name):
            self._controlled().resume()
            return
        self.check_free()
        study = self.study(name)
        self._check_scorers(study.settings)
        self._run(study, is_helper=study.is_running())

    def pause(self) -> None:
        """Wait after the picture that is being rendered.

        Raises:
            InputError: Nothing runs.
        """
        self._controlled().pause()

    def stop(self) -> None:
        """Stop after the picture that is being rendered; everything is kept.

        Raises:
            InputError: Nothing runs.
        """
        self._controlled().stop()

    def stop_and_wait(self, timeout_s: float) -> None:
        """Stop what runs, its picture too, and wait until the model is put back."""
        if self._runner is not None and self._runner.is_alive:
            self._runner.stop(at_once=True)
            self._runner.wait(timeout_s)

    def recipe(self, name: str, trial: int | None = None) -> Recipe:
        """A trial's recipe; without a number the winner's, or the best one's so far.

        Raises:
            StudyError: No such trial, or none is scored yet.
        """
        from lib_merge.autombw.exports import chosen_point

        study = self.study(name)
        return study.settings.recipe(chosen_point(study, trial))

    def check_free(self) -> None:
        """Raise unless the loaded model can be used.

        Raises:
            InputError: A study or a merge is using it.
        """
        if self.reserved_by:
            raise BusyError(f"The {self.reserved_by} is running; stop it first.")
        if self.is_running and self._runner is not None:
            raise BusyError(
                f"Study '{self._runner.study.settings.name}' is running; stop it first "
                "(it can be resumed later)."
            )
        if self._is_merging():
            raise BusyError(
                "A merge is running; wait for it or cancel it on the Merge page."
            )

    def dashboard(self, name: str) -> str:
        """Serve Optuna's dashboard on a study's storage.

        Returns:
            Its address; one dashboard serves at a time.

        Raises:
            StudyError: No such study, or the dashboard is not installed.
        """
        from lib_merge.autombw.dashboard import Dashboard

        found = Dashboard(self.study(name))
        if self._dashboard is not None:
            self._dashboard.close()
        self._dashboard = found
        return found.address

    def forget(self, name: str) -> None:
        """Show another study than one that was deleted."""
        if self.is_current(name):
            self._runner = None

    def reserve(self, name: str) -> None:
        """Let nothing use the loaded model but what this names; see `reserved_by`."""
        with self._lock:
            self.check_free()
            self.reserved_by = name

    def release(self, name: str) -> None:
        """End what `reserve` began."""
        if self.reserved_by == name:
            self.reserved_by = ""

    def payload_dir(self) -> Path:
        """Where payload files are kept."""
        folder = self.host.catalog.data_dir() / "payloads"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _run(self, study: Study, *, is_helper: bool = False) -> None:
        from lib_merge.autombw.runner import StudyRunner

        with self._lock:
            self.check_free()
            self._runner = StudyRunner(
                self.host,
                study,
                self.scorer,
                merger=self._merger(),
                is_helper=is_helper,
                scorer_device=self.preferences.scorer_device(),
            )
            self._runner.start()

    def run_and_wait(self, study: Study) -> StudyResult | None:
        """Run a study of a tournament, shown as the current one.

        Returns:
            Its result, or None when the user stopped it.

        Raises:
            MergeError: What ended it.
        """
        from lib_merge.autombw.runner import StudyRunner
        from lib_merge.autombw.snapshot import STOPPED

        runner = StudyRunner(
            self.host,
            study,
            self.scorer,
            merger=self._merger(),
            scorer_device=self.preferences.scorer_device(),
        )
        self._runner = runner
        runner.start()
        runner.wait()
        if runner.error is not None:
            raise runner.error
        return None if runner.snapshot().state == STOPPED else study.result()

    def _check_scorers(self, settings: StudySettings) -> None:
        self.preferences.check()
        self.preferences.apply_scorer_cache()
        if self.scorer is not None:
            return
        from lib_merge.autombw.scorers import scorers

        for judge in settings.judges:
            weights = Path(judge.weights_file) if judge.weights_file else None
            reason = (
                scorers()
                .get(judge.id)
                .unavailable_reason(weights=weights, options=dict(judge.options))
            )
            if reason is not None:
                raise InputError(f"The scorer {judge.id} cannot be used: {reason}")

    def _controlled(self) -> StudyRunner:
        if self._runner is None or not self._runner.is_alive:
            raise BusyError("No study is running.")
        return self._runner
