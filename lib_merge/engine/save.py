"""Merges into a file: written beside the target, verified, then renamed into place."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.checkpoint.hashes import remember_sha256
from lib_merge.checkpoint.header import file_state
from lib_merge.checkpoint.journal import (
    Journal,
    Span,
    find_partial,
    remove_leftovers,
)
from lib_merge.checkpoint.metadata import portable_recipe, recipe_metadata
from lib_merge.checkpoint.outputs import check_disk, check_output
from lib_merge.checkpoint.stream_hash import StreamHash
from lib_merge.checkpoint.writer import Layout, PendingFile, layout_of
from lib_merge.core.blocks import TensorInfo
from lib_merge.core.plan import Plan
from lib_merge.core.ports import Progress
from lib_merge.core.recipe import Recipe
from lib_merge.engine._input_hashes import InputHashes
from lib_merge.engine._sidecar import copy_config
from lib_merge.engine._warnings import run_warnings
from lib_merge.engine._work import work_bytes
from lib_merge.engine.planning import plan_recipe
from lib_merge.engine.progress import NullProgress
from lib_merge.engine.run import RunOptions, RunReport, run_plan
from lib_merge.errors import OutputError, RecipeError, ResourceError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FileSink",
    "SavedMerge",
    "check_disk",
    "check_output",
    "merge_to_file",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedMerge:
    """A merge that lies on the disk.

    Attributes:
        path: The file.
        sha256: Of the file.
        recipe: As in its metadata: bare file names and the hash of every input.
        report: What the run did.
        warnings: Sentences that the user should see.
        notes: What only the run itself could tell: models left out, a merge gone on
            with; the last of the warnings.
    """

    path: Path
    sha256: str
    recipe: Recipe
    report: RunReport
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class FileSink:
    """Puts merged values where a layout wants them; safe from any thread."""

    def __init__(
        self,
        pending: PendingFile,
        layout: Layout,
        n_header: int,
        done: Mapping[str, Sequence[Span]],
    ) -> None:
        self._pending = pending
        self.layout = layout
        self._n_header = n_header
        self._lock = threading.Lock()
        self.hash = StreamHash(pending.read_into, n_header + layout.n_tensor_bytes)
        for key, spans in done.items():
            for start, stop in spans:
                self.hash.mark(self._offset(key, start), self._offset(key, stop))

    def _offset(self, key: str, index: int) -> int:
        size = self.layout.infos[key].dtype.size
        return self._n_header + self.layout.starts[key] + index * size

    def write(self, key: str, start: int, values: Tensor) -> None:
        """Write a run of one tensor's values."""
        import torch

        offset = self._offset(key, start)
        data = values.view(torch.uint8).numpy().data
        # File systems write one at a time; waiting here is sleep, in there it is spin.
        with self._lock:
            self._pending.write_at(offset, data)
        self.hash.mark(offset, offset + len(data))

    def write_header(self, metadata: Mapping[str, str]) -> None:
        """Write the header, which may come last."""
        header = self.layout.header_bytes(metadata, self._n_header)
        self._pending.write_at(0, header)
        self.hash.mark(0, len(header))


def merge_to_file(
    recipe: Recipe,
    output: str | os.PathLike[str],
    *,
    options: RunOptions | None = None,
    folders: Sequence[str | os.PathLike[str]] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SavedMerge:
    """Merge and save; the output is whole or not there.

    Args:
        recipe: What to merge.
        output: A .safetensors file to be.
        options: Memory, threads and device.
        folders: Where checkpoints lie.
        overwrite: Whether an existing output may be replaced.
        progress: Advanced by bytes; asked whether to stop.

    Raises:
        RecipeError: Everything wrong with recipe, inputs and output, at once.
        OutputError: The output alone is wrong: exists, equals an input, no folder.
        DiskFullError: Not enough room, found before the first byte.
        NonFiniteError: A result is NaN, infinite or too large for its type.
        Cancelled: The user asked to stop; nothing is left behind.

    A save that was killed (not stopped) goes on where its journal ends when the same
    merge is asked for again, and gives the same bytes.
    """
    options = options or RunOptions()
    progress = progress or NullProgress()
    target = Path(output).expanduser().absolute()
    plan = _checked_plan(recipe, target, folders=folders, overwrite=overwrite)
    layout = layout_of([(t.key, TensorInfo(t.dtype, t.shape)) for t in plan.tasks])
    n_threads = options.n_threads or 2
    with InputHashes(plan.recipe, n_threads=n_threads, progress=progress) as hashes:
        hashes.verify()
        # As long as the true hashes and all different: the header has its final size.
        blank = {index: f"{index:064d}" for index, _ in plan.recipe.files()}
        blank_header = layout.header_bytes(recipe_metadata(plan, blank))
        n_header = len(blank_header)
        n_bytes = n_header + layout.n_tensor_bytes
        signature = _signature(plan, blank_header, options.device)
        partial = find_partial(target, signature, n_bytes)
        if partial is None:
            remove_leftovers(target)
            check_disk(target, n_bytes)
        done = {} if partial is None else partial.done
        left = None if partial is None else partial.path
        pending = PendingFile(target, n_bytes, partial=left)
        try:
            saved = _write(
                plan,
                FileSink(pending, layout, n_header, done),
                pending,
                journal=Journal(pending.path, signature, pending.sync, done=done),
                options=options,
                hashes=hashes,
                progress=progress,
            )
        finally:
            pending.discard()
    remember_sha256(target, saved.sha256)
    first = dict(plan.recipe.models())[plan.recipe.first_model()]
    warning = copy_config(Path(first.path), target)
    if warning is not None:
        saved = replace(saved, warnings=(*saved.warnings, warning))
    return saved


def _checked_plan(
    recipe: Recipe,
    target: Path,
    *,
    folders: Sequence[str | os.PathLike[str]],
    overwrite: bool,
) -> Plan:
    """The plan, once recipe and output are both seen to be right."""
    try:
        plan = plan_recipe(recipe, folders)
    except RecipeError as fault:
        try:
            check_output(target, (), overwrite=overwrite)
        except OutputError as other:
            raise RecipeError([*fault.problems, str(other)]) from fault
        raise
    inputs = [Path(file.path) for _, file in plan.recipe.files()]
    check_output(target, inputs, overwrite=overwrite)
    return plan


def _write(
    plan: Plan,
    sink: FileSink,
    pending: PendingFile,
    *,
    journal: Journal,
    options: RunOptions,
    hashes: InputHashes,
    progress: Progress,
) -> SavedMerge:
    try:
        known = hashes.known()
        if known is not None:
            sink.write_header(recipe_metadata(plan, known))
        progress.start(f"Merging {pending.target.name}", work_bytes(plan))
        report = run_plan(plan, sink, options, progress, journal=journal)
        found = hashes.result()
        if known is None:
            sink.write_header(recipe_metadata(plan, found))
        pending.sync()
        sha256 = sink.hash.result()
    finally:
        sink.hash.stop()
    if sha256 is None:
        raise ResourceError(
            f"{pending.path} could not be read back; check the disk and merge again."
        )
    progress.check()
    pending.commit(sink.layout)
    notes = run_warnings(plan, report)
    return SavedMerge(
        path=pending.target,
        sha256=sha256,
        recipe=portable_recipe(plan.recipe, found),
        report=report,
        warnings=(*plan.warnings, *notes),
        notes=notes,
    )


def _signature(plan: Plan, header: bytes, device: str) -> str:
    """Equal for merges that write the same bytes: same recipe, same state of files."""
    digest = hashlib.sha256(header)
    digest.update(json.dumps(plan.recipe.to_json(), sort_keys=True).encode())
    digest.update(device.encode())
    for _, file in plan.recipe.files():
        digest.update(repr(file_state(Path(file.path))).encode())
    return digest.hexdigest()
