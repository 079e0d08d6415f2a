"""The AutoMBW page's controls, section by section; `tabs.autombw` gives them life."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from lib_merge.autombw.tally import TALLIES
from lib_merge.ui import compat, markup, widgets
from lib_merge.ui.form import letter
from lib_merge.ui.study_form import (
    GROUPS,
    SAMPLERS,
    method_note,
    payload_choices,
    searchable_methods,
)

N_SINGLE = max(3, *(method.min_models for method in searchable_methods()))
"""Model lists: as many as a searchable method takes."""

FIRST_METHOD = "weighted_sum"
"""What the page opens with."""

_OFF = " (not available)"


@dataclass(frozen=True)
class Opening:
    """What the page shows when it is built.

    Attributes:
        titles: Checkpoints to choose from; the first two are chosen.
        payload_dir: Where payload files lie.
        studies: Names of all studies.
        study: The one to show, or None.
    """

    titles: tuple[str, ...]
    payload_dir: Path
    studies: tuple[str, ...]
    study: str | None


class StudyControls:
    """Every control of the page, built inside the current Blocks.

    Args:
        opening: What they show first.
    """

    def __init__(self, opening: Opening) -> None:
        self.inputs: set[Any] = set()
        self._opening = opening
        with gr.Row(elem_id="merge-mbw-columns"):
            with gr.Column(scale=2, min_width=400):
                self._build_models()
                self._build_payloads()
                self._build_search()
                self._build_start()
            with gr.Column(scale=3, min_width=520):
                self._build_live()
                self._build_keep()
                self._build_tables()
        self._build_hidden()

    def _build_models(self) -> None:
        found = searchable_methods()
        first = next((m for m in found if m.id == FIRST_METHOD), found[0])
        titles = list(self._opening.titles)
        with gr.Row(elem_id="merge-mbw-models"):
            self.singles = [
                self._control(
                    gr.Dropdown,
                    titles,
                    value=titles[i] if i < min(2, len(titles)) else None,
                    **widgets.input_options(first, i),
                    elem_id=f"merge-mbw-model-{letter(i).lower()}",
                )
                for i in range(N_SINGLE)
            ]
        with gr.Row():
            self.method = self._control(
                gr.Dropdown,
                [method.label for method in found],
                value=first.label,
                label="Method",
                elem_id="merge-mbw-method",
                min_width=160,
            )
            self.name = self._control(
                gr.Textbox,
                label="Study name",
                placeholder="date and time",
                elem_id="merge-mbw-name",
                min_width=160,
            )
        self.method_note = compat.html(
            markup.hints([method_note(first)]), elem_id="merge-mbw-method-note"
        )

    def _build_payloads(self) -> None:
        names = list(payload_choices(self._opening.payload_dir))
        self.payloads = self._control(
            gr.Dropdown,
            names,
            value=names[:1],
            multiselect=True,
            label="Payloads",
            info=f"AutoMBW payload files in {self._opening.payload_dir}",
            elem_id="merge-mbw-payloads",
        )
        with compat.make(
            gr.Accordion, "Add payload files", open=False, elem_id="merge-mbw-add"
        ):
            self.upload = compat.make(
                gr.File,
                label="Payload files (.json)",
                file_count="multiple",
                file_types=[".json"],
                height=120,
                elem_id="merge-mbw-upload",
            )

    def _build_search(self) -> None:
        with gr.Row():
            self.n_trials = self._number("Trials", 80, "n-trials", minimum=1)
            self.n_seeds = self._number("Seeds per payload", 1, "n-seeds", minimum=1)
            self.seed = self._number("Search seed", 0, "seed")
        with gr.Row():
            self.sampler = self._control(
                gr.Dropdown,
                list(SAMPLERS),
                value=next(iter(SAMPLERS)),
                label="Sampler",
                info="CMA-ES for over 300 trials",
                elem_id="merge-mbw-sampler",
                min_width=180,
            )
            labels = scorer_labels()
            self.scorer = self._control(
                gr.Dropdown,
                list(labels),
                value=next((k for k in labels if not k.endswith(_OFF)), None),
                label="Scorer",
                info="Judges every picture",
                elem_id="merge-mbw-scorer",
                min_width=180,
            )
        self.scorer_note = compat.html(scorer_note(), elem_id="merge-mbw-note")
        self._build_limits()

    def _build_limits(self) -> None:
        with compat.make(
            gr.Accordion,
            "Blocks searched, tally",
            open=False,
            elem_id="merge-mbw-blocks",
        ):
            self.groups = self._control(
                gr.CheckboxGroup,
                list(GROUPS),
                value=list(GROUPS),
                label="Searched from 0 to 1",
                info="Blocks that are not ticked stay at 0: the first model, with most "
                "methods",
                elem_id="merge-mbw-groups",
            )
            self.limits = self._control(
                gr.Textbox,
                label="Limits of single blocks",
                placeholder="IN00-IN05=0.2..0.8, M00=0.5",
                info="A range bounds blocks, a single number fixes them",
                lines=1,
                elem_id="merge-mbw-limits",
            )
            self.tally = self._control(
                gr.Dropdown,
                list(TALLIES),
                value="arithmetic",
                label="Score of a trial",
                info="The mean over its pictures; a_g, g_h and a_h are AutoMBW's",
                elem_id="merge-mbw-tally",
            )
            self.weights_file = self._control(
                gr.Textbox,
                label="Scorer weights file",
                placeholder="empty: the scorer's own place",
                lines=1,
                elem_id="merge-mbw-weights",
            )

    def _build_start(self) -> None:
        self.is_saved = self._control(
            gr.Checkbox,
            label="Save the winner as a checkpoint at the end",
            value=False,
            elem_id="merge-mbw-save-winner",
        )
        self.outlook = compat.html("", elem_id="merge-mbw-outlook")
        self.start = self._button("Start", "start", variant="primary")

    def _build_live(self) -> None:
        with gr.Row(elem_id="merge-mbw-controls"):
            self.study = compat.make(
                gr.Dropdown,
                list(self._opening.studies),
                value=self._opening.study,
                label="Study",
                interactive=True,
                elem_id="merge-mbw-study",
                scale=2,
                min_width=180,
            )
            self.pause = self._button("Pause", "pause", size="sm")
            self.resume = self._button("Resume", "resume", size="sm")
            self.stop = self._button("Stop", "stop", variant="stop", size="sm")
        self.message = compat.html("", elem_id="merge-mbw-message")
        self.live = compat.html("", elem_id="merge-mbw-live")

    def _build_keep(self) -> None:
        with gr.Row(elem_id="merge-mbw-keep"):
            self.best_name = compat.make(
                gr.Textbox,
                label="Save best as",
                placeholder="named after the study",
                elem_id="merge-mbw-best-name",
                scale=2,
                min_width=180,
            )
            self.save_recipe = self._button("Save recipe", "save-recipe", size="sm")
            self.save_file = self._button("Save checkpoint", "save-file", size="sm")

    def _build_tables(self) -> None:
        self.gallery = compat.make(
            gr.Gallery,
            label="Pictures of the best trial",
            columns=4,
            height=340,
            object_fit="contain",
            show_label=True,
            interactive=False,
            elem_id="merge-mbw-gallery",
        )
        self.report = compat.make(
            gr.File,
            label="Report with all pictures (HTML)",
            visible=False,
            interactive=False,
            elem_id="merge-mbw-report",
        )
        with compat.make(gr.Accordion, "Trials", open=True, elem_id="merge-mbw-table"):
            self.table = compat.html("", elem_id="merge-mbw-trials")

    def _build_hidden(self) -> None:
        """What javascript/merge_pages.js presses and reads; never shown."""
        with gr.Row(elem_id="merge-mbw-hidden"):
            self.seen = compat.make(gr.Textbox, "", elem_id="merge-mbw-seen")
            self.poll = compat.make(gr.Button, "poll", elem_id="merge-mbw-poll")
            self.replan = compat.make(gr.Button, "plan", elem_id="merge-mbw-plan")

    def _control(self, kind: Any, *args: Any, **options: Any) -> Any:
        control = compat.make(kind, *args, interactive=True, **options)
        self.inputs.add(control)
        return control

    def _number(
        self, label: str, value: int, name: str, *, minimum: int | None = None
    ) -> Any:
        return self._control(
            gr.Number,
            value=value,
            label=label,
            precision=0,
            minimum=minimum,
            elem_id=f"merge-mbw-{name}",
            min_width=100,
        )

    def _button(
        self, label: str, name: str, *, variant: str = "secondary", size: str = "lg"
    ) -> Any:
        return compat.make(
            gr.Button,
            label,
            variant=variant,
            size=size,
            elem_id=f"merge-mbw-{name}",
            min_width=90,
        )


def scorer_labels() -> dict[str, str]:
    """Scorer ids by what is shown; those that cannot be used say so."""
    from lib_merge.autombw.scorers import scorers

    return {
        scorer.label + (_OFF if scorer.unavailable_reason() else ""): scorer.id
        for scorer in scorers()
    }


def scorer_note() -> str:
    """Why scorers cannot be used and what to do, as HTML."""
    from lib_merge.autombw.scorers import scorers

    reasons = [(s.label, s.unavailable_reason()) for s in scorers()]
    return markup.hints([f"{label}: {reason}" for label, reason in reasons if reason])
