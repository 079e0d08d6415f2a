"""The AutoMBW page's set-up, section by section; `tabs.autombw` gives it life."""

from __future__ import annotations

import gradio as gr

from lib_merge.autombw.tally import TALLIES
from lib_merge.core.dtypes import COMPUTE_DTYPES, SAVE_DTYPES
from lib_merge.ui import compat, markup, widgets
from lib_merge.ui import study_choices as offers
from lib_merge.ui.form import letter
from lib_merge.ui.study_judges import JUDGE_HELP, OFF, scorer_labels, scorer_note
from lib_merge.ui.study_space import SPACE_HELP
from lib_merge.ui.tabs._study_kinds import Opening, StudyKinds

N_SINGLE = max(3, *(method.min_models for method in offers.searchable_methods()))
"""Model lists: as many as a searchable method takes."""

FIRST_METHOD = "weighted_sum"
"""What the page opens with."""


class StudyControls(StudyKinds):
    """Every control of the set-up, built inside the current Blocks.

    Args:
        opening: What they show first.
    """

    def __init__(self, opening: Opening) -> None:
        super().__init__()
        self._opening = opening

    def build(self) -> None:
        """Build all sections below each other; the later ones are folded."""
        self._build_models()
        self._build_payloads()
        self._build_search()
        self._build_space()
        self._build_start_point()
        self._build_savings()
        self._build_judging()
        self._build_end()
        self._build_storage()
        self._build_start()
        self._build_tournament()

    def _build_models(self) -> None:
        found = offers.searchable_methods()
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
            self.name = self._text("Study name", "name", "date and time")
        self.method_note = compat.html(
            markup.hints([offers.method_note(first)]), elem_id="merge-mbw-method-note"
        )

    def _build_payloads(self) -> None:
        names = list(offers.payload_choices(self._opening.payload_dir))
        self.payloads = self._control(
            gr.Dropdown,
            names,
            value=names[:1],
            multiselect=True,
            label="Payloads",
            info=f"Files and folders in {self._opening.payload_dir}",
            elem_id="merge-mbw-payloads",
        )
        with self._fold("Add payload files", "add"):
            endings = list(offers.PAYLOAD_ENDINGS)
            self.upload = compat.make(
                gr.File,
                label="Files: AutoMBW payloads, lists of prompts, pictures",
                file_count="multiple",
                file_types=endings,
                height=120,
                elem_id="merge-mbw-upload",
            )
            self.infotext = self._text(
                "Or generation data, as the WebUI shows it under a picture",
                "infotext",
                "prompt ... Negative prompt: ... Steps: 20, Sampler: Euler, ...",
                lines=3,
            )
            with gr.Row():
                self.take_infotext = self._button("Add it", "add-infotext", size="sm")
                self.take_txt2img = self._button(
                    "Take txt2img's settings", "add-txt2img", size="sm"
                )

    def _build_search(self) -> None:
        with gr.Row():
            self.n_trials = self._number("Trials at most", 80, "n-trials", minimum=1)
            self.hours = self._number("Hours (0: any)", 0, "hours", precision=None)
            self.n_seeds = self._number("Seeds per payload", 1, "n-seeds", minimum=1)
        labels = scorer_labels()
        first = next((k for k in labels if not k.endswith(OFF)), None)
        self.scorers = self._control(
            gr.Dropdown,
            list(labels),
            value=[first] if first else [],
            multiselect=True,
            label="Scorers",
            info="Judge every picture; several are weighed against each other",
            elem_id="merge-mbw-scorer",
        )
        chosen = [labels[first]] if first else list(labels.values())[:1]
        self.scorer_note = compat.html(scorer_note(chosen), elem_id="merge-mbw-note")

    def _build_space(self) -> None:
        with self._fold("What is searched", "blocks"):
            groups = list(self._opening.groups)
            self.groups = self._control(
                gr.CheckboxGroup,
                groups,
                value=groups,
                label="Searched from 0 to 1",
                info="Blocks that are not ticked stay at 0: the first model, with most "
                "methods",
                elem_id="merge-mbw-groups",
            )
            self.ties = self._list(
                "Blocks that share a value", tuple(offers.TIES), "ties"
            )
            self.space = self._text(
                "Limits, ties, and what is searched besides",
                "space",
                SPACE_HELP,
                info="Blocks bounded, fixed or tied; keys that hold a word; parameters "
                "of the method; a choice between methods. Later parts win",
                lines=3,
            )

    def _build_start_point(self) -> None:
        with self._fold("Where to start", "start-fold"):
            self.shapes = self._control(
                gr.Dropdown,
                list(offers.SHAPES_TITLES),
                value=[],
                multiselect=True,
                label="Usual curves to try first",
                info="Both parents and the 0.5 merge always are",
                elem_id="merge-mbw-shapes",
            )
            self.start_text = self._text(
                "Block weights to try first",
                "start-text",
                "IN04=0.3, M00=0.5 - or numbers, as other tools write them",
                lines=2,
            )
            self.start_order = self._list(
                "How they are written", tuple(offers.ORDER_TITLES), "start-order"
            )
            with gr.Row():
                studies = (offers.NO_STUDY, *self._opening.studies)
                self.start_study = self._control(
                    gr.Dropdown,
                    list(studies),
                    value=offers.NO_STUDY,
                    label="Or a trial of an earlier study",
                    allow_custom_value=True,
                    elem_id="merge-mbw-start-study",
                    min_width=160,
                )
                self.start_trial = self._text(
                    "Trial", "start-trial", "the best", min_width=90
                )

    def _build_savings(self) -> None:
        with self._fold("How to search", "sampler-fold"):
            with gr.Row():
                samplers = tuple(offers.SAMPLERS)
                self.sampler = self._list("Sampler", samplers, "sampler")
                self.seed = self._number("Search seed", 0, "seed")
            self.sampler_note = compat.html(
                markup.hints([offers.SAMPLER_HELP[samplers[0]]]),
                elem_id="merge-mbw-sampler-note",
            )
            self.is_pruned = self._tick("Give hopeless trials up early", "prune", True)
            with gr.Row():
                self.p_threshold = self._number(
                    "Chance of a mistake", 0.1, "p", precision=None
                )
                self.n_first = self._number(
                    "Pictures before that", 4, "n-first", minimum=1
                )
            self.rungs = self._control(
                gr.CheckboxGroup,
                list(offers.RUNGS),
                value=[],
                label="Screen with cheap pictures",
                info="Dropped by itself when it does not rank merges as full pictures "
                "do",
                elem_id="merge-mbw-rungs",
            )
            with gr.Row():
                self.n_without_gain = self._number(
                    "Stop after trials without gain (0: never)", 27, "no-gain"
                )
                self.target = self._text("Stop at the score", "target", "never")
                self.max_failures = self._number(
                    "Stop after failures in a row", 5, "max-failures", minimum=1
                )

    def _build_judging(self) -> None:
        with self._fold("How pictures are judged", "judging"):
            self.judge_lines = self._text(
                "Weights, files and options of scorers",
                "judges",
                JUDGE_HELP,
                info="A line a scorer; without a line it counts 1",
                lines=2,
            )
            with gr.Row():
                norms = tuple(offers.NORMALISATIONS)
                self.normalise = self._list("Score of a picture", norms, "normalise")
                self.tally = self._control(
                    gr.Dropdown,
                    list(TALLIES),
                    value="arithmetic",
                    label="Score of a trial",
                    info="Over its pictures; a_g, g_h and a_h are AutoMBW's",
                    elem_id="merge-mbw-tally",
                    min_width=160,
                )
            self.memory = self._list("Memory", tuple(offers.MEMORY), "memory")
            with gr.Row():
                uses = tuple(offers.DIVERSITY)
                self.diversity = self._list("Diversity over seeds", uses, "diversity")
                self.diversity_keep = self._number(
                    "Share that is kept", 0.9, "diversity-keep", precision=None
                )

    def _build_end(self) -> None:
        names = list(offers.payload_choices(self._opening.payload_dir))
        with self._fold("At the end", "end"):
            self.held_out_payloads = self._control(
                gr.Dropdown,
                names,
                value=[],
                multiselect=True,
                label="Payloads held back",
                info="Rendered for the finalists only: prompts that the search never "
                "saw",
                elem_id="merge-mbw-held-out-payloads",
            )
            with gr.Row():
                self.n_held_out = self._number(
                    "Unseen seeds per payload", 2, "n-held-out", minimum=1
                )
                self.n_finalists = self._number(
                    "Finalists", 5, "n-finalists", minimum=1
                )
                self.held_out_share = self._number(
                    "Share of payloads held back",
                    0,
                    "held-out-share",
                    precision=None,
                )
            with gr.Row():
                computes = tuple(d.torch_name for d in COMPUTE_DTYPES)
                self.precision = self._list("Compute in", computes, "precision")
                saves = ("float16", *(d.torch_name for d in SAVE_DTYPES), "keep")
                kinds = tuple(dict.fromkeys(saves))
                self.save_dtype = self._list("Save as", kinds, "save-dtype")

    def _build_storage(self) -> None:
        with self._fold("Several machines or programs", "storage-fold"):
            self.storage = self._text(
                "Storage",
                "storage",
                "postgresql://user:password@host/name",
                value=self._opening.storage,
                info="Empty: this study's own file. A database, or journal:FILE, is "
                "shared by all who can reach it",
            )
            self.join = self._button("Join the study of this name there", "join")

    def _build_start(self) -> None:
        self.is_saved = self._tick(
            "Save the winner as a checkpoint at the end", "save-winner", False
        )
        self.outlook = compat.html("", elem_id="merge-mbw-outlook")
        with gr.Row():
            self.check = self._button("Check and time", "check")
            self.start = self._button("Start", "start", variant="primary")

    def _build_tournament(self) -> None:
        with self._fold("Tournament of many models", "tournament-fold"):
            self.contestants = self._control(
                gr.Dropdown,
                list(self._opening.titles),
                value=[],
                multiselect=True,
                label="Models",
                info="Three or more; every study of it is set up as above",
                elem_id="merge-mbw-contestants",
            )
            kinds = tuple(offers.TOURNAMENTS)
            self.tournament_kind = self._list("How", kinds, "tournament-kind")
            with gr.Row():
                self.plan_tournament = self._button(
                    "Plan it", "tournament-plan", size="sm"
                )
                self.start_tournament = self._button(
                    "Start tournament", "tournament-start", size="sm"
                )
