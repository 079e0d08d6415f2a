"""The AutoMBW page's right side: what runs, what it found, and what to do with it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_merge.ui import compat
from lib_merge.ui.study_choices import LOOKS, NO_STUDY
from lib_merge.ui.tabs._study_kinds import Opening, button

EXPORTS = (
    "recipe (.json)",
    "recipe.txt (AutoMBW)",
    "all trials (.csv)",
    "27 columns (AutoMBW .csv)",
    "history.tsv (AutoMBW)",
)
"""Files that a trial or its study can be written to."""


class WatchControls:
    """Every control beside the set-up, built inside the current Blocks.

    Lists of studies take any text: Gradio refuses a value that has left the list, as
    one does whose study was deleted, and would refuse every handler that gets it.

    Args:
        opening: What they show first.
    """

    def __init__(self, opening: Opening) -> None:
        self._opening = opening

    def build(self) -> None:
        """Build all parts below each other."""
        self._build_live()
        self._build_question()
        self._build_trial()
        self._build_look()
        self._build_tournament()
        self._build_shelf()
        self._build_hidden()

    def _build_live(self) -> None:
        with gr.Row(elem_id="merge-mbw-controls"):
            self.study = compat.make(
                gr.Dropdown,
                list(self._opening.studies),
                value=self._opening.study,
                label="Study",
                allow_custom_value=True,
                interactive=True,
                elem_id="merge-mbw-study",
                scale=2,
                min_width=180,
            )
            self.pause = button("Pause", "pause")
            self.resume = button("Resume", "resume")
            self.stop = button("Stop and keep", "stop", variant="stop")
        self.message = compat.html("", elem_id="merge-mbw-message")
        self.live = compat.html("", elem_id="merge-mbw-live")

    def _build_question(self) -> None:
        with compat.make(
            gr.Column, visible=False, elem_id="merge-mbw-judge"
        ) as self.question_column:
            self.question = compat.html("", elem_id="merge-mbw-question")
            with gr.Row():
                self.left = button("Left is better", "left")
                self.equal = button("Equal", "equal")
                self.right = button("Right is better", "right")

    def _build_trial(self) -> None:
        with gr.Row(elem_id="merge-mbw-keep"):
            self.trial = _text("Trial", "trial", "the best", min_width=90)
            self.best_name = _text(
                "Name of what is saved", "best-name", "named after the study", scale=2
            )
        with gr.Row(elem_id="merge-mbw-trial-tools"):
            self.to_sliders = button("To sliders", "to-sliders")
            self.load = button("Merge and load", "load")
            self.save_file = button("Save checkpoint", "save-file")
            self.save_recipe = button("Save recipe", "save-recipe")
            self.go_on = button("Continue here", "go-on")
        with compat.make(
            gr.Accordion, "Files", open=False, elem_id="merge-mbw-files-fold"
        ):
            with gr.Row(elem_id="merge-mbw-shelf-row-files"):
                self.exports = compat.make(
                    gr.CheckboxGroup,
                    list(EXPORTS),
                    value=list(EXPORTS[:2]),
                    label="Written from the trial above and its study",
                    interactive=True,
                    elem_id="merge-mbw-exports",
                )
                self.export = button("Write files", "export")
            self.files = compat.make(
                gr.File,
                label="Files",
                file_count="multiple",
                visible=False,
                interactive=False,
                elem_id="merge-mbw-files",
            )

    def _build_look(self) -> None:
        self.look = compat.make(
            gr.Radio,
            list(LOOKS),
            value=LOOKS[0],
            label="Show",
            show_label=False,
            interactive=True,
            elem_id="merge-mbw-look",
        )
        self.view = compat.html("", elem_id="merge-mbw-trials")
        self.gallery = compat.make(
            gr.Gallery,
            label="Pictures of the trial",
            columns=4,
            height=340,
            object_fit="contain",
            show_label=True,
            interactive=False,
            visible=False,
            elem_id="merge-mbw-gallery",
        )
        self.report = compat.make(
            gr.File,
            label="Report with all pictures (HTML)",
            visible=False,
            interactive=False,
            elem_id="merge-mbw-report",
        )

    def _build_tournament(self) -> None:
        with compat.make(
            gr.Accordion, "Tournament", open=False, elem_id="merge-mbw-bracket-fold"
        ):
            with gr.Row(elem_id="merge-mbw-shelf-row-tournament"):
                names = list(self._opening.tournaments)
                self.tournament = compat.make(
                    gr.Dropdown,
                    names,
                    value=names[-1] if names else None,
                    label="Tournament",
                    allow_custom_value=True,
                    interactive=True,
                    elem_id="merge-mbw-tournament",
                    min_width=160,
                )
                self.resume_tournament = button("Resume it", "tournament-resume")
            self.bracket = compat.html("", elem_id="merge-mbw-bracket")

    def _build_shelf(self) -> None:
        names = list(self._opening.studies)
        with compat.make(
            gr.Accordion, "All studies", open=False, elem_id="merge-mbw-shelf-fold"
        ):
            self.shelf = compat.html("", elem_id="merge-mbw-shelf")
            with gr.Row(elem_id="merge-mbw-shelf-row-0"):
                self.new_name = _text("New name", "new-name", "for a clone")
                self.clone = button("Clone", "clone")
                self.more = compat.make(
                    gr.Number,
                    value=100,
                    precision=0,
                    minimum=1,
                    label="Trials in all",
                    interactive=True,
                    elem_id="merge-mbw-more",
                    min_width=90,
                )
                self.extend = button("Raise trials", "extend")
            with gr.Row(elem_id="merge-mbw-shelf-row-1"):
                self.other = compat.make(
                    gr.Dropdown,
                    [NO_STUDY, *names],
                    value=NO_STUDY,
                    label="Against",
                    allow_custom_value=True,
                    interactive=True,
                    elem_id="merge-mbw-other",
                    min_width=160,
                )
                self.compare = button("Compare", "compare")
                self.write_report = button("Write report", "write-report")
                self.dashboard = button("Optuna dashboard", "dashboard")
            with gr.Row(elem_id="merge-mbw-shelf-row-2"):
                self.is_sure = compat.make(
                    gr.Checkbox,
                    label="Delete it with all its pictures",
                    value=False,
                    interactive=True,
                    elem_id="merge-mbw-sure",
                )
                self.delete = button("Delete", "delete", variant="stop")
            self.old_files = compat.make(
                gr.File,
                label="Import AutoMBW runs (.csv, .recipe.txt)",
                file_count="multiple",
                file_types=[".csv", ".txt"],
                height=110,
                elem_id="merge-mbw-import",
            )
            self.told = compat.html("", elem_id="merge-mbw-told")

    def _build_hidden(self) -> None:
        """What javascript/merge_pages.js presses and reads; never shown."""
        with gr.Row(elem_id="merge-mbw-hidden"):
            self.seen = compat.make(gr.Textbox, "", elem_id="merge-mbw-seen")
            self.poll = compat.make(gr.Button, "poll", elem_id="merge-mbw-poll")
            self.replan = compat.make(gr.Button, "plan", elem_id="merge-mbw-plan")


def _text(
    label: str, name: str, placeholder: str, *, scale: int = 1, min_width: int = 140
) -> Any:
    return compat.make(
        gr.Textbox,
        label=label,
        placeholder=placeholder,
        lines=1,
        max_lines=1,
        interactive=True,
        elem_id=f"merge-mbw-{name}",
        scale=scale,
        min_width=min_width,
    )
