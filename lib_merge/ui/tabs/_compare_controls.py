"""The Compare page's controls; `tabs.compare` gives them life."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_merge.ui import compat

FIRST_BASE = "the first model"

PREDICTIONS = {
    "do not tell": None,
    "on an eighth of the values": 0.125,
    "on all values (exact)": 1.0,
}
"""How finely merges are foretold, by what it is called here."""

LAYOUTS = {
    "classical scaling (MDS)": "mds",
    "metric scaling (SMACOF)": "smacof",
    "main directions (PCA)": "pca",
    "neighbourhoods (t-SNE)": "tsne",
    "neighbourhoods (UMAP)": "umap",
}
"""Ways to lay out the map, by what they are called here."""


class CompareControls:
    """Every control of the page, built inside the current Blocks.

    Args:
        titles: Checkpoints to choose from.
    """

    def __init__(self, titles: list[str]) -> None:
        self._opening = titles
        self._build_choice()
        self._build_result()

    def _build_choice(self) -> None:
        titles = self._opening
        with gr.Column(elem_id="merge-cmp-choice"):
            self.models = _control(
                gr.Dropdown,
                titles,
                value=[],
                multiselect=True,
                label="Models to compare",
                info="Two or more of one architecture; each file is read once",
                elem_id="merge-cmp-models",
            )
            with gr.Row(elem_id="merge-cmp-tools"):
                self.filter = _control(
                    gr.Textbox,
                    label="Add all whose name or folder has",
                    placeholder="part of a name, or a pattern like sdxl/*mix*",
                    lines=1,
                    elem_id="merge-cmp-filter",
                    scale=3,
                    min_width=200,
                )
                self.add = _small("Add all", "cmp-add")
                self.clear = _small("Clear", "cmp-clear")
                self.refresh = _small("Refresh", "cmp-refresh")
            with gr.Row():
                self.base = _control(
                    gr.Dropdown,
                    [FIRST_BASE, *titles],
                    value=FIRST_BASE,
                    label="Measure changes from",
                    elem_id="merge-cmp-base",
                )
                self.predict = _control(
                    gr.Dropdown,
                    list(PREDICTIONS),
                    value=next(iter(PREDICTIONS)),
                    label="Tell where merges of them would lie",
                    elem_id="merge-cmp-predict",
                )
            with gr.Row():
                self.start = _button("Compare", "cmp-start", variant="primary")
                self.cancel = _button("Cancel", "cmp-cancel", variant="stop")
            self._build_opening()
        self.message = compat.html("", elem_id="merge-cmp-message")
        self.live = compat.html("", elem_id="merge-cmp-live")

    def _build_opening(self) -> None:
        with compat.make(
            gr.Accordion,
            "Open a saved comparison or a published matrix",
            open=False,
            elem_id="merge-cmp-open-fold",
        ):
            self.file = _control(
                gr.File,
                label="JSON of a comparison (or ml, cm, dm)",
                file_types=[".json"],
                elem_id="merge-cmp-file",
            )

    def _build_result(self) -> None:
        with gr.Row(elem_id="merge-cmp-looked"):
            self.part = _control(
                gr.Dropdown,
                [],
                value=None,
                label="Look at",
                allow_custom_value=True,
                elem_id="merge-cmp-part",
            )
            self.layout = _control(
                gr.Dropdown,
                list(LAYOUTS),
                value=next(iter(LAYOUTS)),
                label="Lay out by",
                elem_id="merge-cmp-layout",
            )
            self.pair = [
                _control(
                    gr.Dropdown,
                    [],
                    value=None,
                    label=label,
                    allow_custom_value=True,
                    elem_id=f"merge-cmp-pair-{i}",
                )
                for i, label in enumerate(("Block by block: one", "and another"))
            ]
            self.count = _button("Histogram of what is looked at", "cmp-histogram")
        self.view = compat.html("", elem_id="merge-cmp-view")
        with gr.Row(elem_id="merge-cmp-actions"):
            self.send_picked = _button(
                "Send ticked models to the merge pool", "cmp-send", variant="primary"
            )
            self.export = _button("Save tables and charts", "cmp-export")
        self.told = compat.html("", elem_id="merge-cmp-told")
        with gr.Row(elem_id="merge-cmp-hidden"):
            self.picked = compat.make(gr.Textbox, "", elem_id="merge-cmp-picked")
            self.seen = compat.make(gr.Textbox, "", elem_id="merge-cmp-seen")
            self.poll = compat.make(gr.Button, "poll", elem_id="merge-cmp-poll")


def _control(kind: Any, *args: Any, **options: Any) -> Any:
    return compat.make(kind, *args, interactive=True, **options)


def _small(label: str, name: str) -> Any:
    return _button(label, name, size="sm", scale=0, min_width=90)


def _button(label: str, name: str, **options: Any) -> Any:
    return compat.make(
        gr.Button, label, elem_id=f"merge-{name}", **{"min_width": 140, **options}
    )
