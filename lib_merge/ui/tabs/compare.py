"""The Compare page: how far models are from each other, and which go into a merge."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_merge.errors import InputError, MergeError
from lib_merge.ui import compat, markup
from lib_merge.ui.compare_view import Looked, comparison_html, plane_of
from lib_merge.ui.form import titles_of
from lib_merge.ui.guard import guarded, problems_of
from lib_merge.ui.tabs._compare_controls import (
    FIRST_BASE,
    LAYOUTS,
    PREDICTIONS,
    CompareControls,
)
from lib_merge.ui.tabs.merge import matching
from lib_merge.ui.workspace import Workspace

if TYPE_CHECKING:
    from lib_merge.analysis.comparison import Comparison

Send = Callable[[list[str], dict[Any, Any]], list[Any]]
"""Given titles and the values of the page they go to; updates of its controls."""


class ComparePage(CompareControls):
    """The page: its controls and what they do.

    Args:
        workspace: Jobs and host, shared by all open pages.
        send: Puts ticked models into another page.
        sent_to: The controls there that it changes.
    """

    def __init__(
        self,
        workspace: Workspace,
        send: Send,
        sent_to: list[Any],
    ) -> None:
        self._desk = workspace.comparisons
        self._host = workspace.host
        self._send = send
        super().__init__(self._titles())
        self.live.value = self._live()
        self._wire(sent_to)

    # Wiring

    def _wire(self, sent_to: list[Any]) -> None:
        bind = compat.handle
        shown = [self.message, self.live]
        asked = {self.models, self.base, self.predict}
        bind(self.start.click, self.on_start, asked, shown)
        bind(self.cancel.click, self.on_cancel, None, shown)
        bind(self.add.click, self.on_add, {self.models, self.filter}, self.models)
        bind(self.clear.click, self.on_clear, None, self.models)
        bind(self.refresh.click, self.on_refresh, None, [self.models, self.base])
        bind(self.file.change, self.on_open, self.file, shown)
        looked = {self.part, self.layout, *self.pair, self.picked}
        for control in (self.part, self.layout, *self.pair):
            bind(control.change, self.on_look, looked, self.view)
        bind(self.count.click, self.on_histogram, looked, shown)
        sending = {self.picked, *sent_to}
        bind(self.send_picked.click, self.on_send, sending, [self.told, *sent_to])
        bind(self.export.click, self.on_export, looked, self.told)
        news = [self.seen, self.live, self.part, *self.pair, self.view]
        bind(self.poll.click, self.on_poll, {self.seen, *looked}, news)

    # Handlers: each returns at once

    def on_start(self, values: dict[Any, Any]) -> list[str]:
        """Compare what is chosen."""
        titles = [str(title) for title in values[self.models] or ()]
        base = str(values[self.base] or FIRST_BASE)
        share = PREDICTIONS[str(values[self.predict])]

        def start() -> None:
            paths = [self._path(title) for title in titles]
            origin = None if base == FIRST_BASE else self._path(base)
            self._desk.start(paths, origin, share)

        return [guarded(start), self._live()]

    def on_cancel(self) -> list[str]:
        """Stop the running comparison."""
        self._desk.job.cancel()
        return ["", self._live()]

    def on_add(self, values: dict[Any, Any]) -> Any:
        """Add every model that the filter fits."""
        chosen = [str(title) for title in values[self.models] or ()]
        entries = titles_of(self._host.catalog.checkpoints())
        found = matching(entries, str(values[self.filter] or ""))
        return gr.update(value=list(dict.fromkeys([*chosen, *found])))

    def on_clear(self) -> Any:
        """Choose none."""
        return gr.update(value=[])

    def on_refresh(self) -> list[Any]:
        """List the host's checkpoints again."""
        self._host.catalog.refresh()
        titles = self._titles()
        return [gr.update(choices=titles), gr.update(choices=[FIRST_BASE, *titles])]

    def on_open(self, file: Any) -> list[str]:
        """Show a comparison from a file."""
        if file is None:
            return ["", self._live()]
        # Gradio 3 hands over an open file, later ones its path.
        path = Path(str(getattr(file, "name", file)))
        return [guarded(lambda: self._desk.open(path)), self._live()]

    def on_look(self, values: dict[Any, Any]) -> str:
        """Another part, layout or pair."""
        return self._view(values)

    def on_histogram(self, values: dict[Any, Any]) -> list[str]:
        """Read one block of the pair."""

        def start() -> None:
            found = self._desk.result()
            looked = self._looked(found, values)
            if looked.part not in found.blocks:
                raise InputError(
                    f"A histogram is of one block; '{looked.part}' is none. Choose a "
                    "block to look at, e.g. IN04."
                )
            if not looked.pair:
                raise InputError("Choose the two models of the histogram first.")
            one, two = looked.pair
            self._desk.start_histogram(one, two, looked.part)

        return [guarded(start), self._live()]

    def on_send(self, values: dict[Any, Any]) -> list[Any]:
        """Put the ticked models into the merge page's pool."""
        sent: list[str] = []

        def collect() -> None:
            found = self._desk.result()
            chosen = _positions(str(values[self.picked]), len(found.names))
            if not chosen:
                raise InputError(
                    "No model is ticked; tick some in the table, or click their dots."
                )
            sent.extend(self._titles_of(found, chosen))

        problems = guarded(collect)
        told = problems or markup.success(
            f"{markup.count(len(sent), 'model')} sent to the pool of the Merge page."
        )
        return [told, *self._send(sent, values)]

    def on_export(self, values: dict[Any, Any]) -> str:
        """Write tables and charts."""
        places: list[Path] = []

        def write() -> None:
            found = self._desk.result()
            looked = self._looked(found, values)
            plane = plane_of(found, looked.part, looked.method)
            places.append(self._desk.export(looked.part, plane))

        problems = guarded(write)
        return problems or markup.success(f"Saved in {places[0]}.")

    def on_poll(self, values: dict[Any, Any]) -> list[Any]:
        """What has changed since this page last asked; nothing when nothing has."""
        live = self._live()
        n_results = str(self._desk.n_results)
        token = f"{n_results}|{zlib.crc32(live.encode()):08x}"
        seen = str(values[self.seen])
        if token == seen:
            return [gr.update()] * 6
        if seen.partition("|")[0] == n_results:
            return [token, live, *[gr.update()] * 4]
        found = self._desk.comparison
        names = list(found.names) if found else []
        parts = _parts(found)
        if values[self.part] not in parts:
            values[self.part] = found.main_part if found else None
        pairs = []
        for control in self.pair:
            if values[control] not in names:
                values[control] = None
            pairs.append(gr.update(choices=names, value=values[control]))
        part = gr.update(choices=parts, value=values[self.part])
        return [token, live, part, *pairs, self._view(values)]

    # Reading and showing

    def _path(self, title: str) -> Path:
        entries = titles_of(self._host.catalog.checkpoints())
        if title not in entries:
            raise InputError(f"The model '{title}' is not listed any more; refresh.")
        return entries[title].path

    def _titles(self) -> list[str]:
        return list(titles_of(self._host.catalog.checkpoints()))

    def _titles_of(self, found: Comparison, chosen: list[int]) -> list[str]:
        """The catalog's titles of compared models.

        Raises:
            InputError: Some are not in the catalog.
        """
        entries = titles_of(self._host.catalog.checkpoints())
        known = {str(entry.path.absolute()): t for t, entry in entries.items()}
        paths = [found.paths[i] if found.paths else "" for i in chosen]
        lost = [
            found.names[i]
            for i, path in zip(chosen, paths, strict=True)
            if path not in known
        ]
        if lost:
            raise InputError(
                f"Not among this host's models: {', '.join(lost)}; put the files into "
                "its model folder, or tick others."
            )
        return [known[path] for path in paths]

    def _looked(self, found: Comparison, values: dict[Any, Any]) -> Looked:
        pair = [values.get(control) for control in self.pair]
        both = [found.names.index(name) for name in pair if name in found.names]
        return Looked(
            part=str(values.get(self.part) or found.main_part),
            method=LAYOUTS[str(values[self.layout])],
            pair=(both[0], both[1]) if len(both) == 2 else None,
            picked=tuple(
                _positions(str(values.get(self.picked) or ""), len(found.names))
            ),
        )

    def _view(self, values: dict[Any, Any]) -> str:
        found = self._desk.comparison
        if found is None:
            return markup.empty("Nothing was compared yet.")
        try:
            looked = self._looked(found, values)
            return comparison_html(found, looked, self._desk.histogram)
        except MergeError as fault:
            return markup.errors(problems_of(fault))

    def _live(self) -> str:
        job = self._desk.job.job
        return markup.job(job.view() if job else None) or "<div></div>"


def _parts(found: Comparison | None) -> list[str]:
    if found is None:
        return []
    return ["all", *found.components, *found.blocks]


def _positions(text: str, n_models: int) -> list[int]:
    """Positions out of "0,3,7"; what is none of them is dropped."""
    numbers = (part.strip() for part in text.split(","))
    found = (int(number) for number in numbers if number.isdigit())
    return [i for i in dict.fromkeys(found) if i < n_models]


def build(workspace: Workspace, send: Send, sent_to: list[Any]) -> ComparePage:
    """Build the page inside the current Blocks."""
    return ComparePage(workspace, send, sent_to)
