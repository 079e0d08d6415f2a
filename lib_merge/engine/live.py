"""Merges into the model that a host holds in memory, writing only what changes."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib_merge.checkpoint.header import read_header
from lib_merge.core.blocks import Component, TensorInfo
from lib_merge.core.plan import CopyOp, KeyTask, Plan
from lib_merge.core.ports import LiveModel, Loader, Progress
from lib_merge.core.recipe import Recipe
from lib_merge.engine._packs import Packs
from lib_merge.engine._replan import Planner
from lib_merge.engine._warnings import run_warnings
from lib_merge.engine._work import work_bytes
from lib_merge.engine.progress import NullProgress
from lib_merge.engine.run import RunOptions, RunReport, run_plan
from lib_merge.engine.sources import FileId, Sources
from lib_merge.errors import HostError, MergeError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LiveReport:
    """What a live merge did.

    Attributes:
        seconds: Wall time, loading of the first model included.
        n_changed_keys: Tensors that were written.
        n_bytes: Their size, in the recipe's save type.
        recipe_digest: Names what is live now.
        skipped_keys: Tensors that the loaded model has no place for.
        warnings: Sentences that the user should see.
        notes: The last of them: what only the run itself could tell.
    """

    seconds: float
    n_changed_keys: int
    n_bytes: int
    recipe_digest: str
    skipped_keys: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Live:
    """What we know the loaded model to hold."""

    identity: object
    files: Mapping[int, FileId]
    tasks: Mapping[str, KeyTask]
    """Everything that was written, by key; other keys are as in the first model."""
    recipe: Recipe


class LiveMerger:
    """Keeps track of which recipe the host's loaded model holds.

    Values are rounded to the recipe's save type first and cast to the parameter's type
    by the host, so that the live model equals the saved file loaded again, bit by bit.

    Args:
        loader: The host's.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._lock = threading.Lock()
        self._live: _Live | None = None
        self._sources: Sources | None = None
        self._packs = Packs()
        self._planner = Planner()

    def merge(
        self,
        recipe: Recipe,
        *,
        folders: Sequence[str | os.PathLike[str]] = (),
        options: RunOptions | None = None,
        progress: Progress | None = None,
    ) -> LiveReport:
        """Make the loaded model hold a recipe's result.

        The recipe's first model is loaded through the host. Only keys that differ from
        what is live are computed and written; after somebody else loaded a model, or
        when the state is unknown, all that the recipe touches.

        Args:
            recipe: What to merge.
            folders: Where checkpoints lie.
            options: Memory, threads, device; `cache_bytes` keeps models in memory.
            progress: Advanced by bytes; asked whether to stop.

        Raises:
            RecipeError: Everything wrong with the recipe; nothing was touched.
            HostError: The host refuses; or it failed, and its model was restored.
            NonFiniteError, Cancelled: As in `run_plan`; the model was restored.
        """
        options = options or RunOptions()
        began = time.monotonic()
        with self._lock:
            plan = self._planner.plan(recipe, folders)
            sources = self._open_sources(options)
            files = sources.open(plan.recipe)
            tasks, before = self._load_first(plan, files)
            report, skipped = self._write(
                plan, tasks, files, options=options, progress=progress
            )
            written = {**before, **{task.key: task for task in tasks}}
            self._live = _Live(self._loader.identity(), files, written, recipe)
        notes = run_warnings(plan, report)
        return LiveReport(
            seconds=time.monotonic() - began,
            n_changed_keys=report.n_merged + report.n_copied,
            n_bytes=report.bytes_written,
            recipe_digest=recipe.digest(),
            skipped_keys=skipped,
            warnings=(*plan.warnings, *notes),
            notes=notes,
        )

    def _open_sources(self, options: RunOptions) -> Sources:
        if self._sources is None or self._sources.cache_bytes != options.cache_bytes:
            self._close_sources()
            self._sources = Sources(options.cache_bytes)
        return self._sources

    def _close_sources(self) -> None:
        self._packs.clear()
        if self._sources is not None:
            self._sources.close()
            self._sources = None

    def _load_first(
        self, plan: Plan, files: Mapping[int, FileId]
    ) -> tuple[list[KeyTask], Mapping[str, KeyTask]]:
        """Load the first model; the tasks to write, and those that are live already."""
        first = plan.recipe.first_model()
        identity = self._loader.identity()
        live = self._live if self._is_live(identity) else None
        self._loader.load(Path(files[first][0]))
        touched = _touched(plan, first)
        if self._loader.identity() != identity:
            # The host really loaded it: it is the first model, bit by bit.
            self._live = None
            stored = _stored_types(plan)
            return [t for t in touched.values() if _changes(t, plan, stored)], {}
        if live is None or files[first] not in live.files.values():
            return list(touched.values()), {}
        return _difference(touched, live, plan, files)

    def _is_live(self, identity: object) -> bool:
        return self._live is not None and self._live.identity == identity

    def _write(
        self,
        plan: Plan,
        tasks: Sequence[KeyTask],
        files: Mapping[int, FileId],
        *,
        options: RunOptions,
        progress: Progress | None,
    ) -> tuple[RunReport, tuple[str, ...]]:
        if not tasks:
            return RunReport(0.0, 0, 0, 0, 0, 0), ()
        is_started = False
        try:
            with self._loader.edit() as live:
                tasks, skipped = _possible(live, tasks)
                part = replace(
                    plan,
                    tasks=tuple(tasks),
                    n_bytes_out=sum(task.n_bytes for task in tasks),
                )
                if progress is not None:
                    progress.start("Merging into the loaded model", work_bytes(part))
                is_started = True
                report = self._run(part, live, files, options, progress)
        except BaseException as fault:
            if is_started:
                self._live = None
                self._put_back(fault)
            raise
        return report, skipped

    def _run(
        self,
        plan: Plan,
        live: LiveModel,
        files: Mapping[int, FileId],
        options: RunOptions,
        progress: Progress | None,
    ) -> RunReport:
        """Write a plan: small tensors in packs where models stay in memory."""
        sources = self._open_sources(options)
        if not options.cache_bytes or options.device != "cpu":
            return run_plan(plan, live, options, progress, sources=sources)
        began = time.monotonic()
        left = self._packs.merge(
            plan.tasks,
            live,
            sources=sources,
            files=files,
            compute=plan.recipe.compute_dtype,
            advance=(progress or NullProgress()).advance,
        )
        packed = len(plan.tasks) - len(left)
        n_bytes = plan.n_bytes_out - sum(task.n_bytes for task in left)
        if not left:
            return RunReport(time.monotonic() - began, 0, n_bytes, packed, 0, 1)
        rest = replace(plan, tasks=tuple(left), n_bytes_out=plan.n_bytes_out - n_bytes)
        report = run_plan(rest, live, options, progress, sources=sources)
        return replace(
            report,
            seconds=time.monotonic() - began,
            bytes_written=report.bytes_written + n_bytes,
            n_merged=report.n_merged + packed,
        )

    def _put_back(self, fault: BaseException) -> None:
        """Restore after a fault in the middle, and say so in its message."""
        try:
            self._loader.restore()
        except MergeError as other:
            raise HostError(
                f"The merge failed ({fault}) and the loaded model could not be "
                f"restored ({other}); load a model in the host before you go on."
            ) from fault
        if isinstance(fault, MergeError) and fault.args:
            fault.args = (f"{fault.args[0]} The loaded model was restored.",)

    def restore(self) -> None:
        """Bring the loaded file's own weights back and free cached models.

        Raises:
            HostError: The host failed.
        """
        with self._lock:
            self._close_sources()
            if self._live is not None:
                self._live = None
                self._loader.restore()

    def is_merged(self) -> bool:
        """Whether the loaded model holds a merge of ours now."""
        return self._is_live(self._loader.identity())

    def recipe(self) -> Recipe | None:
        """The recipe that is live, or None."""
        live = self._live
        is_live = live is not None and live.identity == self._loader.identity()
        return live.recipe if live is not None and is_live else None


def _touched(plan: Plan, first: int) -> dict[str, KeyTask]:
    """Tasks that a loaded model can differ in; constants are the file's own."""
    return {
        task.key: task
        for task in plan.tasks
        if task.component is not Component.SCHEDULE and task.dtype.is_float
    }


def _stored_types(plan: Plan) -> Mapping[str, TensorInfo]:
    """What the first model's file holds."""
    first = plan.recipe.first_model()
    return read_header(dict(plan.recipe.models())[first].path).infos


def _changes(task: KeyTask, plan: Plan, stored: Mapping[str, TensorInfo]) -> bool:
    """Whether the output differs from the first model's stored tensor."""
    if task.op != CopyOp(plan.recipe.first_model()):
        return True
    info = stored.get(task.key)
    return info is None or info.dtype is not task.dtype


def _difference(
    touched: Mapping[str, KeyTask],
    live: _Live,
    plan: Plan,
    files: Mapping[int, FileId],
) -> tuple[list[KeyTask], Mapping[str, KeyTask]]:
    is_same_models = dict(live.files) == dict(files)
    stored = _stored_types(plan)
    tasks = []
    for key, task in touched.items():
        before = live.tasks.get(key)
        if before is None:
            if _changes(task, plan, stored):
                tasks.append(task)
        elif not is_same_models or before != task:
            tasks.append(task)
    return tasks, live.tasks


def _possible(
    live: LiveModel, tasks: Sequence[KeyTask]
) -> tuple[list[KeyTask], tuple[str, ...]]:
    refusal = live.refusal()
    if refusal is not None:
        raise HostError(f"The loaded model cannot be merged in place: {refusal}")
    missing = set(live.missing([task.key for task in tasks]))
    kept = [task for task in tasks if task.key not in missing]
    return kept, tuple(sorted(missing))
