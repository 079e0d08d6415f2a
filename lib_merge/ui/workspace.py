"""What outlives a page: the jobs, the live merge and the host they work through."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from lib_merge.core.ports import Host, Progress
from lib_merge.core.recipe import Recipe
from lib_merge.errors import BusyError, MergeError, OutputError
from lib_merge.formats.short_form import short_form
from lib_merge.ui import markup
from lib_merge.ui.jobs import JobSlot, Outcome
from lib_merge.ui.preferences import Preferences, SettledMerger

if TYPE_CHECKING:
    from lib_merge.autombw.objective import Merger
    from lib_merge.autombw.settings import StudySettings
    from lib_merge.core.grid import GridJobs
    from lib_merge.engine.live import LiveMerger
    from lib_merge.ui.comparing import CompareDesk
    from lib_merge.ui.grids import MergeGrid
    from lib_merge.ui.inspecting import InspectDesk
    from lib_merge.ui.rebasing import RebasinDesk
    from lib_merge.ui.recipe_desk import RecipeDesk
    from lib_merge.ui.recipe_history import History
    from lib_merge.ui.studies import StudyDesk
    from lib_merge.ui.tournaments import TournamentDesk

_UNFIT = re.compile(r'[<>:"|?*\x00-\x1f]')


class Workspace:
    """Everything the tab holds for one host, shared by all open pages.

    Args:
        host: What it merges, renders and lists checkpoints through.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.preferences = Preferences(host)
        self.merging = JobSlot()
        self.n_catalog_changes = 0
        self._users_model: Path | None = None
        self._claims = Lock()
        self._grid: MergeGrid | None = None

    @cached_property
    def live(self) -> LiveMerger:
        """The merger of the loaded model; it knows what it wrote there."""
        from lib_merge.engine.live import LiveMerger

        return LiveMerger(self.host.loader)

    def grid(self, jobs: GridJobs) -> MergeGrid:
        """What changes the loaded merge for an X/Y/Z plot of the host's.

        Args:
            jobs: The host's.
        """
        from lib_merge.ui.grids import MergeGrid

        if self._grid is None:
            self._grid = MergeGrid(self, jobs)
        return self._grid

    @cached_property
    def history(self) -> History:
        """Every merge that was loaded or saved."""
        from lib_merge.ui.recipe_history import History

        return History(self.preferences.recipes_dir)

    @cached_property
    def recipes(self) -> RecipeDesk:
        """Saved recipes and past merges."""
        from lib_merge.ui.recipe_desk import RecipeDesk

        return RecipeDesk(self)

    @cached_property
    def studies(self) -> StudyDesk:
        """The studies of this host."""
        from lib_merge.ui.studies import StudyDesk

        def merger() -> Merger:
            return SettledMerger(self.live, self.preferences)

        return StudyDesk(self.host, merger, lambda: self.merging.is_busy)

    @cached_property
    def comparisons(self) -> CompareDesk:
        """The comparison that all pages share."""
        from lib_merge.ui.comparing import CompareDesk

        return CompareDesk(self.host)

    @cached_property
    def inspections(self) -> InspectDesk:
        """What is known of the host's checkpoints."""
        from lib_merge.ui.inspecting import InspectDesk

        return InspectDesk(self.host, self.note_new_file)

    @cached_property
    def rebasin(self) -> RebasinDesk:
        """The alignment that all pages share."""
        from lib_merge.ui.rebasing import RebasinDesk

        return RebasinDesk(self.host)

    @cached_property
    def tournaments(self) -> TournamentDesk:
        """The tournaments of this host."""
        from lib_merge.ui.tournaments import TournamentDesk

        return TournamentDesk(self.studies)

    def job_slots(self) -> dict[str, JobSlot]:
        """Every place where jobs run, by a permanent name."""
        return {
            "merge": self.merging,
            "compare": self.comparisons.job,
            "models": self.inspections.listing,
            "model": self.inspections.job,
            "rebasin": self.rebasin.job,
        }

    def note_new_file(self) -> None:
        """Let open pages list the catalog again."""
        self.n_catalog_changes += 1

    def folders(self) -> tuple[Path, ...]:
        """Where model files named without a folder are looked for."""
        parents = (entry.path.parent for entry in self.host.catalog.checkpoints())
        return tuple(dict.fromkeys(parents))

    def output_path(self, name: str) -> Path:
        """The file that a name given by the user stands for.

        Raises:
            OutputError: The name leaves the output folder or has unfit characters.
        """
        stem = name.strip().removesuffix(".safetensors").strip()
        if not stem:
            raise OutputError("The file has no name; type one.")
        relative = Path(stem + ".safetensors")
        bad = _UNFIT.search(stem)
        is_hidden = any(part.startswith(".") for part in relative.parts)
        if bad or relative.is_absolute() or is_hidden or "\\" in stem:
            what = f"the character {bad[0]!r}" if bad else "a path out of the folder"
            raise OutputError(
                f"The file name '{name}' has {what}; give a name inside "
                f"{self.host.catalog.output_dir()}."
            )
        return self.host.catalog.output_dir() / relative

    def recipe_dir(self) -> Path:
        """Where saved recipes are kept."""
        return self.preferences.recipes_dir()

    def save_recipe(self, recipe: Recipe, name: str) -> Path:
        """Write a recipe into the data folder.

        Raises:
            OutputError: The name is unfit, or a recipe of this name exists.
        """
        stem = self.output_path(name).stem
        folder = self.recipe_dir()
        target = folder / f"{stem}.json"
        if target.exists():
            raise OutputError(f"The recipe {target} exists; choose another name.")
        partial = target.with_suffix(".json.part")
        partial.write_text(json.dumps(recipe.to_json(), indent=2), encoding="utf-8")
        partial.replace(target)
        return target

    def save(
        self,
        recipe: Recipe,
        output: Path,
        *,
        overwrite: bool,
        title: str = "Merge and save",
    ) -> None:
        """Start a merge into a file.

        Args:
            recipe: What to merge.
            output: The file, inside the output folder.
            overwrite: Whether a file that is there may be replaced.
            title: What the job is called.

        Raises:
            BusyError: A merge is running already.
            InputError: A setting cannot hold.
        """
        from lib_merge.engine.save import merge_to_file

        self.preferences.check()
        folders = self.folders()
        options = self.preferences.run_options()

        def work(progress: Progress) -> Outcome:
            saved = merge_to_file(
                recipe,
                output,
                folders=folders,
                overwrite=overwrite,
                options=options,
                progress=progress,
            )
            self.history.add(recipe, "saved", saved.path.stem, saved.path)
            self.host.catalog.register(saved.path)
            self.n_catalog_changes += 1
            n_bytes = saved.path.stat().st_size
            facts = {
                "path": str(saved.path),
                "sha256": saved.sha256,
                "recipe": recipe.digest(),
            }
            return Outcome(
                f"saved {saved.path.name} ({markup.size(n_bytes)}) in "
                f"{markup.duration(saved.report.seconds)} to {saved.path.parent}; "
                f"sha256 {saved.sha256[:10]}, recipe {recipe.digest()}."
                + _noted(saved.notes),
                facts,
            )

        self.merging.start(title, work)

    def load(self, recipe: Recipe, *, title: str = "Merge and load") -> None:
        """Start a merge into the loaded model.

        Args:
            recipe: What to merge.
            title: What the job is called.

        Raises:
            BusyError: A merge or a study is running.
        """
        self.preferences.check()
        folders = self.folders()
        options = self.preferences.run_options()

        def work(progress: Progress) -> Outcome:
            if not self.live.is_merged():
                # A merge loads the recipe's first model; restore gives this one back.
                self._users_model = self.host.loader.loaded()
            report = self.live.merge(
                recipe, folders=folders, options=options, progress=progress
            )
            self.history.add(recipe, "loaded", short_form(recipe))
            facts = {
                "recipe": recipe.digest(),
                "n_changed_tensors": report.n_changed_keys,
            }
            return Outcome(
                f"the loaded model is now the merge, recipe {recipe.digest()}; "
                f"{report.n_changed_keys} tensors changed in "
                f"{markup.duration(report.seconds)}. No file was written."
                + _noted(report.notes),
                facts,
            )

        self._start_live(title, work)

    def check_study(self, title: str, settings: StudySettings) -> None:
        """Start checking a study: models, scorers, room; then one timed picture.

        Args:
            title: What the job is called.
            settings: The study's; nothing of it is kept.

        Raises:
            BusyError: A merge or a study is running.
        """
        from lib_merge.ui.study_check import check_study

        self.studies.check_free()

        def work(progress: Progress) -> str:
            return check_study(
                self.host,
                settings,
                scorer=self.studies.scorer,
                merger=SettledMerger(self.live, self.preferences),
                progress=progress,
                scorer_device=self.preferences.scorer_device(),
            )

        self._start_live(title, work)

    def restore(self) -> None:
        """Start putting back what was loaded before the merge, with its own weights.

        Raises:
            BusyError: A merge or a study is running.
        """

        def work(progress: Progress) -> str:
            progress.check()
            self.restore_now()
            loaded = self.host.loader.loaded()
            name = loaded.name if loaded else "the model"
            return f"{name} is loaded with its own weights again."

        self._start_live("Restore original model", work)

    def restore_now(self) -> None:
        """Put back what was loaded before the merge, in this thread.

        Raises:
            HostError: The host could not load it.
        """
        self.live.restore()
        if self._users_model is not None:
            self.host.loader.load(self._users_model)

    def claim(self, name: str) -> None:
        """Reserve the loaded model; until `studies.release` nothing else takes it.

        Raises:
            BusyError: A merge, a study or something else is using it.
        """
        with self._claims:
            self.studies.reserve(name)

    def cancel(self) -> None:
        """Ask the running merge to stop.

        Raises:
            BusyError: Nothing is running.
        """
        if not self.merging.is_busy:
            raise BusyError("Nothing is running.")
        self.merging.cancel()

    def _start_live(
        self, title: str, work: Callable[[Progress], str | Outcome]
    ) -> None:
        if self.studies.is_running:
            raise BusyError(
                "An AutoMBW study is using the loaded model; stop it first (it can be "
                "resumed later)."
            )
        with self._claims:
            if self._grid is not None and self._grid.is_open:
                raise BusyError(
                    "An X/Y/Z plot is changing the loaded merge; wait for it, or "
                    "interrupt it."
                )
            self.merging.start(title, work)

    def live_state(self) -> str:
        """One sentence on what the host has loaded."""
        if self.studies.is_running:
            return "An AutoMBW study is using the loaded model."
        try:
            loaded = self.host.loader.loaded()
            if loaded is None:
                return "No model is loaded yet."
            if self.live.is_merged():
                return f"Loaded: {loaded.name}, merged in memory {self._live_recipe()}"
        except MergeError as fault:
            return f"The loaded model cannot be told: {fault}"
        return f"Loaded: {loaded.name}, as it is on disk."

    def _live_recipe(self) -> str:
        recipe = self.live.recipe()
        return f"(recipe {recipe.digest()})." if recipe else "(recipe unknown)."


def _noted(notes: Sequence[str]) -> str:
    """What a run found, behind what it did."""
    return "".join(f" {note}" for note in notes)


_WORKSPACES: dict[tuple[str, str], Workspace] = {}
_LOCK = Lock()


def workspace_of(host: Host) -> Workspace:
    """The one workspace of a host and its data folder.

    The WebUI's "Reload UI" builds the tab again while our jobs go on: the new tab gets
    the workspace that they run in.
    """
    key = (host.id, str(host.catalog.data_dir()))
    with _LOCK:
        if key not in _WORKSPACES:
            _WORKSPACES[key] = Workspace(host)
        return _WORKSPACES[key]
