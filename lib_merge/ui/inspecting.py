"""What all pages know of the host's checkpoints, and the jobs that mend them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.core.ports import Host, Progress
from lib_merge.errors import CheckpointError, InputError
from lib_merge.ui import markup
from lib_merge.ui.form import titles_of
from lib_merge.ui.jobs import JobSlot

if TYPE_CHECKING:
    from lib_merge.analysis.health.convert import ConvertOptions
    from lib_merge.analysis.health.inspection import Inspection
    from lib_merge.analysis.health.job import Rewrite
    from lib_merge.analysis.health.repair import RepairOptions, RepairPlan
    from lib_merge.checkpoint.header import FileState


@dataclass(frozen=True)
class Model:
    """A checkpoint of the catalog.

    Attributes:
        title: What lists call it.
        found: What it is and holds.
    """

    title: str
    found: Inspection


@dataclass(frozen=True)
class Foretold:
    """A repair that was planned and shown.

    Attributes:
        options: What was asked for.
        plan: What would be done.
        states: The plan's files as they were when it was made.
    """

    options: RepairOptions
    plan: RepairPlan
    states: tuple[FileState, ...]

    def is_of(self, path: Path, options: RepairOptions) -> bool:
        """Whether it is the plan of this request, and its files did not change."""
        is_same = self.plan.inspection.path == path and self.options == options
        return is_same and self.states == _states(self.plan.job)


class InspectDesk:
    """Keeps inspections of the catalog current, and reads, mends and converts files.

    Args:
        host: Whose checkpoints they are; its catalog learns of new files.
        on_new_file: Called after a file was written.
    """

    def __init__(self, host: Host, on_new_file: Callable[[], None]) -> None:
        self.listing = JobSlot()
        self.job = JobSlot()
        self._host = host
        self._on_new_file = on_new_file
        self._lock = threading.RLock()
        self._asked: tuple[tuple[str, Path], ...] | None = None
        self._models: dict[str, Model] = {}
        self._foretold: Foretold | None = None
        self.n_results = 0

    @property
    def models(self) -> tuple[Model, ...]:
        """Every checkpoint that was inspected, in the catalog's order."""
        return tuple(self._models.values())

    @property
    def foretold(self) -> Foretold | None:
        """The last repair that was planned."""
        return self._foretold

    def model(self, title: str) -> Model | None:
        """A checkpoint by its title, if it was inspected."""
        return self._models.get(title)

    def chosen(self, title: str) -> Model:
        """A checkpoint that can be worked on.

        Raises:
            InputError: None of this title is known, or its file cannot be read.
        """
        model = self._models.get(title)
        if model is None:
            raise InputError("No model is chosen; choose one from the list first.")
        if model.found.error is not None:
            raise InputError(f"{title} cannot be read: {model.found.error}")
        return model

    def keep_current(self, *, again: bool = False) -> None:
        """Start inspecting if the catalog lists other files than it did.

        Args:
            again: Also where it lists the same ones; files may have changed.
        """
        if self.listing.is_busy:
            if again:
                # What is being listed may be older: the next look starts anew.
                self._asked = None
            return
        entries = titles_of(self._host.catalog.checkpoints())
        wanted = tuple((title, entry.path) for title, entry in entries.items())
        if wanted == self._asked and not again:
            return
        self._asked = wanted

        def work(progress: Progress) -> str:
            return self._inspect(wanted, progress)

        self.listing.start("Look at all models", work)

    def _inspect(self, wanted: Sequence[tuple[str, Path]], progress: Progress) -> str:
        from lib_merge.analysis.health.deep import recall
        from lib_merge.analysis.health.look import inspect_files

        found = recall(inspect_files([path for _, path in wanted], progress))
        titles = [title for title, _ in wanted]
        models = [Model(*pair) for pair in zip(titles, found, strict=True)]
        self._keep(models)
        return markup.count(len(models), "model")

    def start_reading(self, title: str) -> None:
        """Start reading every value of a checkpoint.

        Raises:
            InputError: It is not known, cannot be read, or another job runs.
        """
        from lib_merge.analysis.health.deep import read_deep

        model = self.chosen(title)

        def work(progress: Progress) -> str:
            (found,) = read_deep([model.found], progress=progress)
            self._update(replace(model, found=found))
            n_problems = markup.count(len(found.all_problems()), "problem")
            return f"every value of {title} was read; {n_problems} in all."

        self.job.start("Read every value", work)

    def start_plan(self, title: str, options: RepairOptions) -> None:
        """Start finding out what a repair would do.

        Raises:
            InputError: The model is unknown, does not go with the base, or a job runs.
        """
        from lib_merge.analysis.health.repair import plan_repair

        model = self.chosen(title)
        self._check_base(model, options)

        def work(progress: Progress) -> str:
            plan = plan_repair(model.found.path, options, progress)
            with self._lock:
                self._foretold = Foretold(options, plan, _states(plan.job))
            self._update(replace(model, found=plan.inspection))
            n_steps = markup.count(len(plan.steps), "change")
            return f"{n_steps} to {title}, listed under its button; none was made yet."

        self.job.start("Plan a repair", work)

    def _check_base(self, model: Model, options: RepairOptions) -> None:
        if options.base is None:
            if options.fill_components or options.fill_dead:
                raise InputError(
                    "Absent components and all-zero tensors are taken from a base; "
                    "choose a base model."
                )
            return
        bases = (m for m in self.models if m.found.path == options.base)
        base = next(bases, None)
        ours = model.found.contents
        if base is None or base.found.contents.arch_id == ours.arch_id:
            return
        raise InputError(
            f"The base {base.title} is {base.found.contents.label}, {model.title} is "
            f"{ours.label}; choose a base of the same architecture."
        )

    def start_repair(
        self, title: str, options: RepairOptions, output: Path, *, overwrite: bool
    ) -> None:
        """Start writing the repaired copy that was planned.

        Raises:
            InputError: No such repair was planned, it changes nothing, or a job runs.
            OutputError: The output exists, is an input, or its folder is closed.
            DiskFullError: There is not enough room.
        """
        model = self.chosen(title)
        told = self._foretold
        if told is None or not told.is_of(model.found.path, options):
            raise InputError(
                "These settings were not planned yet, or a file changed since; press "
                "'Show what it would do' first and read what it says."
            )
        if not told.plan.steps:
            raise InputError(f"Nothing of {title} can be mended; nothing was written.")
        self._write("Repair", told.plan.job, output, overwrite=overwrite)

    def start_convert(
        self, title: str, options: ConvertOptions, output: Path, *, overwrite: bool
    ) -> None:
        """Start writing a copy in another precision.

        Raises:
            InputError: The weights cannot be held so, or a job runs.
            CheckpointError: The file cannot be read.
            OutputError: The output exists, is an input, or its folder is closed.
            DiskFullError: There is not enough room.
        """
        from lib_merge.analysis.health.convert import plan_convert

        plan = plan_convert(self.chosen(title).found.path, options)
        self._write("Convert", plan.job, output, overwrite=overwrite)

    def _write(
        self, title: str, job: Rewrite, output: Path, *, overwrite: bool
    ) -> None:
        from lib_merge.analysis.health.rewrite import check_rewrite, write_file

        check_rewrite(job, output, overwrite=overwrite)

        def work(progress: Progress) -> str:
            done = write_file(job, output, overwrite=overwrite, progress=progress)
            self._host.catalog.register(done.path)
            self._on_new_file()
            self.keep_current(again=True)
            saved = (
                f"saved {done.path.name} ({markup.size(done.n_bytes)}) to "
                f"{done.path.parent}; sha256 {done.sha256[:10]}."
            )
            return " ".join([saved, *done.warnings])

        self.job.start(title, work)

    def _update(self, model: Model) -> None:
        """Replace one model's inspection."""
        with self._lock:
            known = {**self._models, model.title: model}
            self._keep(list(known.values()))

    def _keep(self, models: Sequence[Model]) -> None:
        from lib_merge.analysis.health.deep import with_namesakes

        found = with_namesakes([model.found for model in models])
        pairs = zip(models, found, strict=True)
        with self._lock:
            self._models = {m.title: replace(m, found=f) for m, f in pairs}
            self.n_results += 1


def _states(job: Rewrite) -> tuple[FileState, ...]:
    """The job's files as they are now; empty where one is gone."""
    from lib_merge.checkpoint.header import file_state

    try:
        return tuple(file_state(path) for path in job.inputs)
    except CheckpointError:
        return ()
