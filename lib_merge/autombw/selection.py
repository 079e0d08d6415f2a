"""Selection by trial: each model's CLIP (or UNet) in an average of all, one picture.

The way in which whole families of merges were made: average everything, put one model's
text encoder after the other into the average, look at one picture each, and go on with
those that still understand the prompt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.autombw._files import write_bytes, write_json
from lib_merge.autombw._lock import StudyLock
from lib_merge.autombw._sheet import sheet_html, sheet_png
from lib_merge.autombw.selection_store import (
    AVERAGE,
    SETTINGS,
    STATE,
    SelectionResult,
    SelectionSettings,
    TrialPicture,
    cells_of,
    open_selection,
    picture_name,
    read_faults,
    selection_folder,
)
from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.dtypes import DType
from lib_merge.core.ports import Host, Progress
from lib_merge.core.recipe import ModelNode, Pick, Recipe, SelectNode, simple_recipe
from lib_merge.engine.live import LiveMerger
from lib_merge.engine.progress import NullProgress
from lib_merge.engine.run import RunOptions
from lib_merge.engine.save import merge_to_file
from lib_merge.errors import (
    Cancelled,
    InputError,
    MergeError,
    OutputError,
    ResourceError,
)

if TYPE_CHECKING:
    from PIL.Image import Image

_log = logging.getLogger(__name__)


def run_selection(
    host: Host,
    out: Path,
    settings: SelectionSettings,
    *,
    merger: LiveMerger | None = None,
    options: RunOptions | None = None,
    progress: Progress | None = None,
    listener: Callable[[TrialPicture], None] | None = None,
) -> SelectionResult:
    """Try every model, or go on where an earlier run stopped.

    A model that cannot be put into the average is told of in its cell, and the others
    go on; pictures that lie there already are not rendered again.

    Args:
        host: Renders.
        out: Selections are kept below it.
        settings: What is tried.
        merger: Of the host's loader; None makes one.
        options: Memory, threads, device.
        progress: Advanced by pictures; asked before each whether to stop.
        listener: Told of every picture that is new.

    Raises:
        InputError: Another selection has this name.
        Cancelled: The user asked to stop; pictures that are there stay.
        MergeError: The average cannot be made.
    """
    progress = progress or NullProgress()
    options = options or RunOptions()
    folder = selection_folder(out, settings.name)
    _prepare(folder, settings)
    before = host.loader.loaded()
    with StudyLock(folder / "lock", settings.name):
        average = _average(folder, settings, options, progress)
        merger = merger or LiveMerger(host.loader)
        try:
            _try_all(
                _Trials(host, merger, folder, settings, average, options),
                progress,
                listener,
            )
        finally:
            merger.restore()
            if before is not None:
                host.loader.load(before)
            result = open_selection(folder)
            write_sheets(result)
    return result


def _prepare(folder: Path, settings: SelectionSettings) -> None:
    file = folder / SETTINGS
    if file.is_file():
        if open_selection(folder).settings != settings:
            raise InputError(
                f"{folder} holds a selection of other models, another part or another "
                "prompt; choose another name."
            )
        return
    try:
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise OutputError(
            f"{folder} cannot be made ({fault.strerror}); choose another place."
        ) from fault
    write_json(file, settings.to_json())


def _average(
    folder: Path, settings: SelectionSettings, options: RunOptions, progress: Progress
) -> Path:
    if settings.average is not None:
        return Path(settings.average)
    target = folder / AVERAGE
    if not target.is_file():
        components = tuple(
            c for c in Component if c not in (Component.VAE, Component.SCHEDULE)
        )
        recipe = simple_recipe(
            "uniform_soup", settings.models, components=components, save_dtype=DType.F16
        )
        merge_to_file(recipe, target, options=options, progress=progress)
    return target


@dataclass(frozen=True)
class _Trials:
    host: Host
    merger: LiveMerger
    folder: Path
    settings: SelectionSettings
    average: Path
    options: RunOptions

    def recipe(self, number: int) -> Recipe:
        """The average, with the part of a model in it; 0 is the average alone."""
        average = ModelNode(str(self.average))
        # Number 0 has its part put back to the average's own.
        given = str(self.average) if number == 0 else self.settings.models[number - 1]
        part = self.settings.part
        name = BlockId("BASE" if part == "text" else part)
        select = SelectNode((0, 1), (Pick(1, blocks=(name,)),))
        return Recipe((average, ModelNode(given), select), save_dtype=None)

    def picture(self, number: int) -> Image:
        """Render what a model gives."""
        self.merger.merge(self.recipe(number), options=self.options)
        request = self.settings.payload.requests()[0]
        return self.host.renderer.render([request])[0]


def _try_all(
    trials: _Trials,
    progress: Progress,
    listener: Callable[[TrialPicture], None] | None,
) -> None:
    cells = cells_of(trials.folder, trials.settings)
    progress.start("Trying models", len(cells), "pictures")
    faults = dict(read_faults(trials.folder))
    for cell in cells:
        progress.check()
        if cell.picture is None:
            fault = _try_one(trials, cell.number)
            faults.pop(str(cell.number), None)
            if fault:
                faults[str(cell.number)] = fault
            write_json(trials.folder / STATE, faults)
            if listener is not None:
                listener(cells_of(trials.folder, trials.settings)[cell.number])
        progress.advance(1)


def _try_one(trials: _Trials, number: int) -> str:
    """Render and store one picture; the reason where it cannot be."""
    import io

    try:
        image = trials.picture(number)
    except (Cancelled, ResourceError):
        raise
    except MergeError as fault:
        _log.warning("Selection %s, model %d: %s", trials.settings.name, number, fault)
        return str(fault)
    content = io.BytesIO()
    image.save(content, "PNG")
    write_bytes(trials.folder / picture_name(number), content.getvalue())
    return ""


def write_sheets(result: SelectionResult) -> None:
    """Write the grid, as a page with boxes to tick and as one picture."""
    write_bytes(result.html, sheet_html(result).encode("utf-8"))
    content = sheet_png(result)
    if content is not None:
        write_bytes(result.png, content)
