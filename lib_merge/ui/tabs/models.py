"""The Models page: what every checkpoint is and holds, what is wrong, and remedies."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_merge.checkpoint.scaled import EIGHT_BITS
from lib_merge.errors import InputError, MergeError
from lib_merge.ui import compat, markup
from lib_merge.ui.form import titles_of
from lib_merge.ui.guard import guarded, problems_of
from lib_merge.ui.inspect_view import (
    convert_html,
    details_html,
    diagram_html,
    repair_html,
    table_html,
)
from lib_merge.ui.jobs import JobState
from lib_merge.ui.tabs._models_controls import (
    COMPONENTS,
    DEAD,
    DROPS,
    KEEPS,
    NO_BASE,
    PRECISIONS,
    WEIGHTS,
    ModelsControls,
)
from lib_merge.ui.workspace import Workspace

if TYPE_CHECKING:
    from lib_merge.analysis.health.convert import ConvertOptions
    from lib_merge.analysis.health.repair import RepairOptions


class ModelsPage(ModelsControls):
    """The page: its controls and what they do.

    Args:
        workspace: Jobs and host, shared by all open pages.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._desk = workspace.inspections
        self._host = workspace.host
        super().__init__(self._titles())
        self._wire()

    def _wire(self) -> None:
        bind = compat.handle
        of_list = {self.filter, self.sort}
        bind(self.filter.change, self.on_list, of_list, self.table)
        bind(self.sort.change, self.on_list, of_list, self.table)
        bind(self.refresh.click, self.on_refresh, None, self.live)
        looked = {self.model, self.precision, self.scaled, self.ema}
        shown = [self.details, self.diagram, self.repair_plan, self.convert_plan]
        messages = [self.message, self.repair_told, self.convert_told]
        bind(self.model.change, self.on_model, looked, [*shown, *messages])
        bind(self.picked.change, self.on_pick, self.picked, self.model)
        bind(self.read.click, self.on_read, self.model, [self.message, self.live])
        bind(self.cancel.click, self.on_cancel, None, self.live)
        for control in (self.precision, self.scaled, self.ema):
            told = [self.convert_plan, self.scaled]
            bind(control.change, self.on_convert_look, looked, told)
        repairing = {
            *(self.model, self.base, self.fills, self.drops, self.keeps),
            *(self.weights, self.deep, self.repair_name, self.repair_over),
        }
        told = [self.repair_told, self.live]
        bind(self.plan.click, self.on_plan, repairing, told)
        bind(self.repair.click, self.on_repair, repairing, told)
        converting = {*looked, self.convert_name, self.convert_over}
        told = [self.convert_told, self.live]
        bind(self.convert.click, self.on_convert, converting, told)
        asked = {self.seen, self.base, *of_list, *looked}
        news = [self.seen, self.live, self.table, self.model, self.base, *shown]
        bind(self.poll.click, self.on_poll, asked, news)

    # Handlers: each returns at once

    def on_list(self, values: dict[Any, Any]) -> str:
        """Another filter or order."""
        return self._table(values)

    def on_refresh(self) -> str:
        """List the host's checkpoints again and look at those that changed."""

        def look() -> None:
            self._host.catalog.refresh()
            self._desk.keep_current(again=True)

        return guarded(look) or self._live()

    def on_pick(self, picked: str) -> Any:
        """A row of the table was clicked; a counter stands before its title."""
        return gr.update(value=str(picked).partition("|")[2])

    def on_model(self, values: dict[Any, Any]) -> list[str]:
        """Another model: all that is shown of one, and no old messages."""
        views = self._views(values[self.model])
        return [*views, self._convert_view(values), "", "", ""]

    def on_read(self, title: Any) -> list[str]:
        """Read every value of the model."""
        return self._do(lambda: self._desk.start_reading(str(title or "")))

    def on_cancel(self) -> str:
        """Stop what runs."""
        self._desk.job.cancel()
        self._desk.listing.cancel()
        return self._live()

    def on_plan(self, values: dict[Any, Any]) -> list[str]:
        """Find out what a repair would do."""

        def start() -> None:
            self._desk.start_plan(self._title(values), self._repair_options(values))

        return self._do(start)

    def on_repair(self, values: dict[Any, Any]) -> list[str]:
        """Write the repaired copy that was shown."""

        def start() -> None:
            self._desk.start_repair(
                self._title(values),
                self._repair_options(values),
                self._output(values, self.repair_name, "repaired"),
                overwrite=bool(values[self.repair_over]),
            )

        return self._do(start)

    def on_convert_look(self, values: dict[Any, Any]) -> list[Any]:
        """Other settings: what a conversion would do."""
        is_eight = PRECISIONS[str(values[self.precision])] in EIGHT_BITS
        return [self._convert_view(values), gr.update(visible=is_eight)]

    def on_convert(self, values: dict[Any, Any]) -> list[str]:
        """Write a copy in another precision."""

        def start() -> None:
            dtype = PRECISIONS[str(values[self.precision])]
            self._desk.start_convert(
                self._title(values),
                self._convert_options(values),
                self._output(values, self.convert_name, dtype.torch_name),
                overwrite=bool(values[self.convert_over]),
            )

        return self._do(start)

    def on_poll(self, values: dict[Any, Any]) -> list[Any]:
        """What has changed since this page last asked; nothing when nothing has."""
        problems = guarded(self._desk.keep_current)
        live = problems or self._live()
        n_results = str(self._desk.n_results)
        token = f"{n_results}|{zlib.crc32(live.encode()):08x}"
        seen = str(values[self.seen])
        if token == seen:
            return [gr.update()] * 9
        if seen.partition("|")[0] == n_results:
            return [token, live, *[gr.update()] * 7]
        titles = self._titles()
        model = gr.update(choices=titles)
        base = gr.update(choices=[NO_BASE, *titles])
        if values[self.base] not in (NO_BASE, *titles):
            base = gr.update(choices=[NO_BASE, *titles], value=NO_BASE)
        views = [*self._views(values[self.model]), self._convert_view(values)]
        return [token, live, self._table(values), model, base, *views]

    # Reading the controls

    def _title(self, values: dict[Any, Any]) -> str:
        return str(values[self.model] or "")

    def _repair_options(self, values: dict[Any, Any]) -> RepairOptions:
        from lib_merge.analysis.health.repair import RepairOptions

        base = str(values[self.base] or NO_BASE)
        fills = values[self.fills] or ()
        return RepairOptions(
            base=None if base == NO_BASE else self._path(base),
            drop=frozenset(DROPS[name] for name in values[self.drops] or ()),
            keep=frozenset(KEEPS[name] for name in values[self.keeps] or ()),
            fill_components=COMPONENTS in fills,
            fill_dead=DEAD in fills,
            dtype=WEIGHTS[str(values[self.weights])],
            is_deep=bool(values[self.deep]),
        )

    def _convert_options(self, values: dict[Any, Any]) -> ConvertOptions:
        from lib_merge.analysis.health.convert import ConvertOptions

        return ConvertOptions(
            PRECISIONS[str(values[self.precision])],
            is_scaled=bool(values[self.scaled]),
            keep_ema=bool(values[self.ema]),
            is_single=self._desk.chosen(self._title(values)).found.path.is_dir(),
        )

    def _output(self, values: dict[Any, Any], control: Any, ending: str) -> Path:
        """The file to write: by the name typed, or after the model."""
        name = str(values[control] or "").strip()
        if not name:
            path = self._desk.chosen(self._title(values)).found.path
            name = f"{path.name if path.is_dir() else path.stem}_{ending}"
        return self._workspace.output_path(name)

    def _path(self, title: str) -> Path:
        entries = titles_of(self._host.catalog.checkpoints())
        if title not in entries:
            raise InputError(f"The model '{title}' is not listed any more; refresh.")
        return entries[title].path

    def _titles(self) -> list[str]:
        return list(titles_of(self._host.catalog.checkpoints()))

    # Showing

    def _do(self, start: Callable[[], None]) -> list[str]:
        """Start something; the message beside its button, and the job."""
        return [guarded(start), self._live()]

    def _live(self) -> str:
        listing, job = self._desk.listing.job, self._desk.job.job
        shown = markup.job(job.view()) if job else ""
        looking = listing.view() if listing else None
        if looking is not None and looking.state is not JobState.DONE:
            shown = markup.job(looking) + shown
        return shown or "<div></div>"

    def _table(self, values: dict[Any, Any]) -> str:
        text, order = str(values[self.filter] or ""), str(values[self.sort])
        return table_html(self._desk.models, text, order)

    def _views(self, title: Any) -> list[str]:
        """Details, diagram and planned repair of a model."""
        model = self._desk.model(str(title or ""))
        told = self._desk.foretold
        is_its = model and told and told.plan.inspection.path == model.found.path
        planned = repair_html(told.plan) if told and is_its else ""
        return [details_html(model), diagram_html(model), planned]

    def _convert_view(self, values: dict[Any, Any]) -> str:
        from lib_merge.analysis.health.convert import plan_convert

        if not values[self.model]:
            return ""
        try:
            path = self._desk.chosen(self._title(values)).found.path
            return convert_html(plan_convert(path, self._convert_options(values)))
        except MergeError as fault:
            return markup.errors(problems_of(fault))


def build(workspace: Workspace) -> ModelsPage:
    """Build the page inside the current Blocks."""
    return ModelsPage(workspace)
