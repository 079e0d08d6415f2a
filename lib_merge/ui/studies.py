"""The studies of one host: which are there, which one runs, what a page shows of it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from lib_merge.core.ports import Host, Scorer
from lib_merge.core.recipe import Recipe
from lib_merge.errors import InputError, MergeError, StudyError
from lib_merge.ui.jobs import describe_bug

if TYPE_CHECKING:
    from lib_merge.autombw.objective import Merger
    from lib_merge.autombw.runner import StudyRunner
    from lib_merge.autombw.snapshot import Snapshot
    from lib_merge.autombw.study import Study, StudySettings


_log = logging.getLogger(__name__)


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
        self._lock = Lock()
        self._studies: dict[Path, tuple[int, Study]] = {}
        self.scorer: Scorer | None = None

    @property
    def is_running(self) -> bool:
        """Whether a study of this process is using the loaded model."""
        return self._runner is not None and self._runner.is_alive

    @property
    def is_paused(self) -> bool:
        """Whether the running study waits."""
        from lib_merge.autombw.snapshot import PAUSED

        return self.is_running and self.snapshot().state == PAUSED

    def names(self) -> list[str]:
        """Every readable study, the last changed first; asked with every refresh."""
        folder = self.host.catalog.data_dir() / "studies"
        found = []
        for path in folder.glob("*/settings.json"):
            study = self._opened(path)
            if study is not None:
                changed = path.parent.stat().st_mtime_ns
                found.append((-changed, study.settings.name))
        return [name for _, name in sorted(found)]

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

        if self._runner is not None and self._runner.study.settings.name == name:
            return self._runner.study
        for _, study in self._studies.values():
            if study.settings.name == name and study.folder.is_dir():
                return study
        return find_study(self.host.catalog.data_dir(), name)

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

    def start(self, settings: StudySettings) -> None:
        """Create a study and run it.

        Raises:
            InputError: Something else is using the loaded model.
            StudyError: A study of this name exists.
            ScorerError: The scorer cannot be used.
        """
        from lib_merge.autombw.study import create_study

        self._check_free()
        self._check_scorer(settings.scorer)
        self._run(create_study(self.host.catalog.data_dir(), settings))

    def resume(self, name: str) -> None:
        """Go on with a paused study, or run a stopped one again.

        Raises:
            InputError: Something else is using the loaded model.
            StudyError: There is none of this name, or it runs in another process.
        """
        if self.is_running and self.is_current(name):
            self._controlled().resume()
            return
        self._check_free()
        study = self.study(name)
        if study.is_running():
            raise StudyError(
                f"Study '{name}' is running in another process; stop it there first."
            )
        self._check_scorer(study.settings.scorer)
        self._run(study)

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

    def best_recipe(self, name: str) -> Recipe:
        """The winner's recipe, or that of the best trial so far.

        Raises:
            StudyError: No trial is scored yet.
        """
        study = self.study(name)
        result = study.result()
        best = study.best()
        if result is not None:
            return study.settings.recipe(result.best.point)
        if best is None:
            raise StudyError(
                f"Study '{name}' has no scored trial yet; wait for the first one."
            )
        return study.settings.recipe(best.point)

    def add_payloads(self, files: list[Path]) -> list[Path]:
        """Keep uploaded payload files; each is read first.

        Raises:
            PayloadError: One of them is no payload; none is kept then.
        """
        from lib_merge.autombw.payloads import read_payload

        for file in files:
            read_payload(file)
        kept = []
        for file in files:
            target = self.payload_dir() / file.name
            shutil.copyfile(file, target)
            kept.append(target)
        return kept

    def payload_dir(self) -> Path:
        """Where payload files are kept and looked for."""
        folder = self.host.catalog.data_dir() / "payloads"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _run(self, study: Study) -> None:
        from lib_merge.autombw.runner import StudyRunner

        with self._lock:
            self._check_free()
            self._runner = StudyRunner(
                self.host, study, self.scorer, merger=self._merger()
            )
            self._runner.start()

    def _check_free(self) -> None:
        if self.is_running and self._runner is not None:
            raise InputError(
                f"Study '{self._runner.study.settings.name}' is running; stop it first "
                "(it can be resumed later)."
            )
        if self._is_merging():
            raise InputError(
                "A merge is running; wait for it or cancel it on the Merge page."
            )

    def _check_scorer(self, scorer_id: str) -> None:
        if self.scorer is not None:
            return
        from lib_merge.autombw.scorers import scorers

        reason = scorers().get(scorer_id).unavailable_reason()
        if reason is not None:
            raise InputError(f"The scorer {scorer_id} cannot be used: {reason}")

    def _controlled(self) -> StudyRunner:
        if self._runner is None or not self._runner.is_alive:
            raise InputError("No study is running.")
        return self._runner
