"""The Recipes page's controls; `tabs.recipes` gives them life."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from lib_merge.formats.files import WRITERS
from lib_merge.ui import compat, markup

FORMATS = {module.TITLE: name for name, module in WRITERS.items()}
"""Formats to export to, by what they are called."""

NOTHING = markup.empty("Choose a recipe in the list to see what it does.")


class RecipesControls:
    """Every control of the page, built inside the current Blocks.

    Args:
        others: What a recipe can be compared with.
    """

    def __init__(self, others: Sequence[str]) -> None:
        with gr.Row(elem_id="merge-rec-columns"):
            with gr.Column(scale=2, min_width=440):
                self._build_list()
            with gr.Column(scale=3, min_width=520):
                self._build_actions()
                self._build_views(others)
        self._build_hidden()

    def _build_list(self) -> None:
        self.drop = compat.make(
            gr.File,
            label="Recipe of any merger, merged model or picture",
            elem_id="merge-rec-drop",
            height=150,
        )
        self.search = compat.make(
            gr.Textbox,
            label="Search",
            placeholder="words of the name, a model, a method, a hash, a file",
            lines=1,
            max_lines=1,
            interactive=True,
            elem_id="merge-rec-search",
        )
        self.table = compat.html("", elem_id="merge-rec-table")

    def _build_actions(self) -> None:
        with gr.Row(elem_id="merge-rec-run"):
            self.open = _button("Open on Merge page", "open", variant="primary")
            self.load = _button("Merge and load", "load")
            self.save = _button("Merge and save", "save")
        with gr.Row(elem_id="merge-rec-keep-row"):
            self.name = compat.make(
                gr.Textbox,
                label="Name",
                placeholder="of the merged model, the recipe or the exported file",
                lines=1,
                max_lines=1,
                interactive=True,
                scale=3,
                min_width=220,
                elem_id="merge-rec-name",
            )
            self.keep = _button("Keep as recipe", "keep", scale=1)
            self.delete = _button("Delete", "delete", variant="stop", scale=1)
        self.message = compat.html("", elem_id="merge-rec-message")
        self.live = compat.html("<div></div>", elem_id="merge-rec-live")

    def _build_views(self, others: Sequence[str]) -> None:
        self.details = compat.html(NOTHING, elem_id="merge-rec-details")
        with compat.make(
            gr.Accordion, "Compare", open=False, elem_id="merge-rec-compare-fold"
        ):
            self.other = compat.make(
                gr.Dropdown,
                list(others),
                value=None,
                label="Compare with",
                interactive=True,
                # The list grows while the page is open.
                allow_custom_value=True,
                elem_id="merge-rec-other",
            )
            self.difference = compat.html("", elem_id="merge-rec-difference")
        with compat.make(
            gr.Accordion, "Export", open=False, elem_id="merge-rec-export-fold"
        ):
            with gr.Row(elem_id="merge-rec-export-row"):
                self.format = compat.make(
                    gr.Dropdown,
                    list(FORMATS),
                    value=next(iter(FORMATS)),
                    label="Format",
                    interactive=True,
                    scale=3,
                    elem_id="merge-rec-format",
                )
                self.export = _button("Export", "export", scale=1)
            self.exported = compat.make(
                gr.File,
                label="Exported file",
                interactive=False,
                visible=False,
                elem_id="merge-rec-exported",
            )
            self.export_told = compat.html("", elem_id="merge-rec-export-told")

    def _build_hidden(self) -> None:
        """What scripts press and read; never shown."""
        with gr.Row(elem_id="merge-rec-hidden"):
            self.picked = _hidden("picked")
            self.chosen = _hidden("chosen")
            self.infotext = _hidden("infotext")
            self.seen = _hidden("seen")
            self.poll = compat.make(gr.Button, "poll", elem_id="merge-rec-poll")
            self.find = compat.make(gr.Button, "find", elem_id="merge-rec-find")


def _button(label: str, name: str, **options: Any) -> Any:
    given = {"min_width": 120, **options}
    return compat.make(gr.Button, label, elem_id=f"merge-rec-{name}", **given)


def _hidden(name: str) -> Any:
    return compat.make(
        gr.Textbox, "", label=name, interactive=True, elem_id=f"merge-rec-{name}"
    )
