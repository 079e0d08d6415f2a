"""The Re-Basin page: bring B's channels into A's order, then merge the two."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import gradio as gr

from lib_merge.core.dtypes import SAVE_DTYPES, DType
from lib_merge.errors import InputError
from lib_merge.ui import compat, markup
from lib_merge.ui.form import KEEP, titles_of
from lib_merge.ui.guard import guarded
from lib_merge.ui.rebasing import RebasinForm, report_html
from lib_merge.ui.workspace import Workspace

EXPLANATION = (
    "Two models that were trained apart may hold the same features in other channels. "
    "Git Re-Basin (Ainsworth, Hayase, Srinivasa, 2022) permutes B's channels until "
    "they fit A's, which leaves what B draws unchanged, and then takes the weighted "
    "sum. For SD1 and SDXL. A search that was stopped goes on where it was."
)


class RebasinPage:
    """The page: its controls and what they do.

    Args:
        workspace: Jobs and host, shared by all open pages.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._desk = workspace.rebasin
        self._host = workspace.host
        with gr.Column(elem_id="merge-rb-choice"):
            compat.html(markup.note(EXPLANATION), elem_id="merge-rb-explanation")
            self._build_models()
            self._build_search()
            self._build_outputs()
        self.message = compat.html("", elem_id="merge-rb-message")
        self.live = compat.html(self._live(), elem_id="merge-rb-live")
        self.view = compat.html("", elem_id="merge-rb-view")
        with gr.Row(elem_id="merge-rb-hidden"):
            self.seen = compat.make(gr.Textbox, "", elem_id="merge-rb-seen")
            self.poll = compat.make(gr.Button, "poll", elem_id="merge-rb-poll")
        self._wire()

    def _build_models(self) -> None:
        titles = self._titles()
        with gr.Row():
            self.model_a = _control(
                gr.Dropdown,
                titles,
                value=None,
                label="Model A, which stays",
                elem_id="merge-rb-model-a",
            )
            self.model_b = _control(
                gr.Dropdown,
                titles,
                value=None,
                label="Model B, which is aligned to A",
                elem_id="merge-rb-model-b",
            )
            self.refresh = _button("Refresh", "refresh", size="sm", scale=0)

    def _build_search(self) -> None:
        with gr.Row():
            self.alpha = _control(
                gr.Slider,
                0.0,
                1.0,
                value=0.5,
                step=0.01,
                label="alpha: from A (0) to aligned B (1)",
                elem_id="merge-rb-alpha",
            )
            self.seed = _control(
                gr.Number,
                value=0,
                precision=0,
                label="Seed of the order of matching",
                elem_id="merge-rb-seed",
            )
            self.iterations = _control(
                gr.Slider,
                1,
                50,
                value=10,
                step=1,
                label="Sweeps at most",
                elem_id="merge-rb-iterations",
            )
        with gr.Row():
            self.blocks = _control(
                gr.Textbox,
                label="alpha by block, as text",
                placeholder="IN04=0.7, M00=0.1   ranges: IN00-IN05=0.3   text: BASE=0",
                lines=1,
                max_lines=4,
                scale=3,
                elem_id="merge-rb-blocks",
            )
            self.heads = _control(
                gr.Textbox,
                label="Attention heads, for models of unusual width",
                placeholder="clip_l=4",
                lines=1,
                scale=1,
                elem_id="merge-rb-heads",
            )

    def _build_outputs(self) -> None:
        with gr.Row():
            self.merged = _control(
                gr.Textbox,
                label="File name of the merge",
                placeholder="empty: no merge is saved",
                elem_id="merge-rb-merged",
            )
            self.aligned = _control(
                gr.Textbox,
                label="File name of aligned B itself",
                placeholder="empty: it is not kept",
                elem_id="merge-rb-aligned",
            )
            self.save_dtype = _control(
                gr.Dropdown,
                [*(dtype.torch_name for dtype in SAVE_DTYPES), KEEP],
                value="float16",
                label="Store the merge as",
                elem_id="merge-rb-save-dtype",
            )
            self.overwrite = _control(
                gr.Checkbox,
                label="Overwrite",
                value=False,
                elem_id="merge-rb-overwrite",
            )
        with gr.Row():
            self.start = _button("Align and save", "start", variant="primary")
            self.cancel = _button("Cancel", "cancel", variant="stop")

    def _wire(self) -> None:
        bind = compat.handle
        controls = {
            *(self.model_a, self.model_b, self.alpha, self.blocks, self.merged),
            *(self.aligned, self.save_dtype, self.seed, self.iterations),
            *(self.overwrite, self.heads),
        }
        self.inputs = controls
        shown = [self.message, self.live]
        bind(self.start.click, self.on_start, controls, shown)
        bind(self.cancel.click, self.on_cancel, None, shown)
        models = [self.model_a, self.model_b]
        bind(self.refresh.click, self.on_refresh, None, models)
        news = [self.seen, self.live, self.view]
        bind(self.poll.click, self.on_poll, self.seen, news)

    # Handlers: each returns at once

    def on_start(self, values: dict[Any, Any]) -> list[str]:
        """Check everything and start."""
        return [
            guarded(lambda: self._desk.start(self.form(values))),
            self._live(),
        ]

    def on_cancel(self) -> list[str]:
        """Stop; the search can go on later where it was."""
        self._desk.job.cancel()
        return ["", self._live()]

    def on_refresh(self) -> list[Any]:
        """List the host's checkpoints again."""
        self._host.catalog.refresh()
        titles = self._titles()
        return [gr.update(choices=titles), gr.update(choices=titles)]

    def on_poll(self, seen: str) -> list[Any]:
        """What has changed since this page last asked; nothing when nothing has."""
        live = self._live()
        token = f"{self._desk.n_files}|{zlib.crc32(live.encode()):08x}"
        if token == seen:
            return [gr.update()] * 3
        report = self._desk.report
        return [token, live, report_html(report) if report else ""]

    def form(self, values: dict[Any, Any]) -> RebasinForm:
        """The controls' values.

        Raises:
            InputError: A model is not chosen, or a number is none.
            OutputError: An unfit file name.
        """
        save_dtype = str(values[self.save_dtype])
        return RebasinForm(
            model_a=self._path(values[self.model_a], "A"),
            model_b=self._path(values[self.model_b], "B"),
            alpha=float(values[self.alpha]),
            blocks=str(values[self.blocks] or ""),
            merged=self._output(values[self.merged]),
            aligned=self._output(values[self.aligned]),
            save_dtype=None if save_dtype == KEEP else DType.from_name(save_dtype),
            seed=int(values[self.seed] or 0),
            iterations=int(values[self.iterations]),
            overwrite=bool(values[self.overwrite]),
            heads=str(values[self.heads] or "").strip(),
        )

    def _output(self, name: Any) -> Path | None:
        text = str(name or "").strip()
        return self._workspace.output_path(text) if text else None

    def _path(self, title: Any, letter: str) -> Path:
        entries = titles_of(self._host.catalog.checkpoints())
        if str(title or "") not in entries:
            raise InputError(f"Model {letter} is not chosen; choose one from the list.")
        return entries[str(title)].path

    def _titles(self) -> list[str]:
        return list(titles_of(self._host.catalog.checkpoints()))

    def _live(self) -> str:
        job = self._desk.job.job
        return markup.job(job.view() if job else None) or "<div></div>"


def _control(kind: Any, *args: Any, **options: Any) -> Any:
    return compat.make(kind, *args, interactive=True, **options)


def _button(label: str, name: str, **options: Any) -> Any:
    return compat.make(
        gr.Button, label, elem_id=f"merge-rb-{name}", **{"min_width": 140, **options}
    )


def build(workspace: Workspace) -> RebasinPage:
    """Build the page inside the current Blocks."""
    return RebasinPage(workspace)
