"""The Merge page's controls, section by section; `tabs.merge` gives them life."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_merge.core.dtypes import COMPUTE_DTYPES, SAVE_DTYPES
from lib_merge.core.params import ParamSpec
from lib_merge.methods import methods
from lib_merge.ui import compat, widgets
from lib_merge.ui.form import (
    DEFAULT_PARTS,
    KEEP,
    NON_FINITE,
    PARTS,
    block_settings,
    letter,
)
from lib_merge.ui.widgets import Kind

N_SINGLE = max(3, *(method.n_single for method in methods()))
"""Model lists with a name of their own; a pool has one list for all."""

FIRST_METHOD = "weighted_sum"
"""What the page opens with."""


class MergeControls:
    """Every control of the page, built inside the current Blocks.

    Args:
        titles: Checkpoints to choose from; the first one is chosen as model A.
    """

    def __init__(self, titles: list[str]) -> None:
        self.inputs: set[Any] = set()
        self._opening = titles
        with gr.Row(elem_id="merge-columns"):
            with gr.Column(scale=3, min_width=520):
                self._build_models()
                self._build_method()
                self._build_blocks()
                self._build_rules()
            with gr.Column(scale=2, min_width=380):
                self._build_options()
                self._build_actions()
        self._build_hidden()

    def _build_models(self) -> None:
        first = widgets.method_by_label(FIRST_METHOD)
        titles = self._opening
        with gr.Row(elem_id="merge-models"):
            self.singles = [
                self._control(
                    gr.Dropdown,
                    titles,
                    value=titles[0] if titles and i == 0 else None,
                    elem_id=f"merge-model-{letter(i).lower()}",
                    **widgets.input_options(first, i),
                )
                for i in range(N_SINGLE)
            ]
            self.refresh = self._small("Refresh", "refresh")
        with gr.Column(visible=first.is_pool, elem_id="merge-pool") as self.pool_column:
            self._build_pool(titles)

    def _build_pool(self, titles: list[str]) -> None:
        self.pool = self._control(
            gr.Dropdown,
            titles,
            value=[],
            multiselect=True,
            label="Pool of models, in order",
            info="Any number, from one up",
            elem_id="merge-model-pool",
        )
        with gr.Row(elem_id="merge-pool-tools"):
            self.pool_filter = compat.make(
                gr.Textbox,
                label="Add all whose name or folder has",
                placeholder="part of a name, or a pattern like sdxl/*mix*",
                lines=1,
                elem_id="merge-pool-filter",
                scale=3,
                min_width=200,
            )
            self.pool_add = self._small("Add all", "pool-add")
            self.pool_clear = self._small("Clear", "pool-clear")

    def _small(self, label: str, name: str) -> Any:
        return compat.make(
            gr.Button,
            label,
            elem_id=f"merge-{name}",
            elem_classes=["merge-small"],
            scale=0,
            min_width=90,
        )

    def _build_method(self) -> None:
        first = widgets.method_by_label(FIRST_METHOD)
        with gr.Row(elem_id="merge-method-row"):
            self.method = self._control(
                gr.Dropdown,
                widgets.method_choices(),
                value=first.label,
                label="Method",
                elem_id="merge-method",
                scale=1,
                min_width=180,
            )
            with gr.Column(scale=2, min_width=300):
                self.explanation = compat.html(
                    widgets.explanation(first), elem_id="merge-explanation"
                )
        with gr.Row(elem_id="merge-params"):
            self.params = {
                kind: self._build_params(kind, widgets.placed(first, kind))
                for kind in Kind
            }

    def _build_params(self, kind: Kind, specs: list[ParamSpec | None]) -> list[Any]:
        """Controls of one kind, those without a parameter hidden."""
        controls = [widgets.param_control(kind, i, s) for i, s in enumerate(specs)]
        self.inputs.update(controls)
        return controls

    def _build_blocks(self) -> None:
        names = block_settings(widgets.method_by_label(FIRST_METHOD), 0)
        self.use_blocks = self._control(
            gr.Checkbox,
            label="Use block weights",
            value=False,
            elem_id="merge-use-blocks",
        )
        with gr.Column(visible=False, elem_id="merge-blocks") as self.blocks_column:
            self.block_param = self._control(
                gr.Dropdown,
                names,
                value=names[0],
                visible=len(names) > 1,
                label="Block weights of",
                # Its names change with the method, which the page may not know yet.
                allow_custom_value=True,
                elem_id="merge-block-param",
            )
            self.editor = compat.html("", elem_id="merge-editor-view")
            self.weights = self._control(
                gr.Textbox,
                label="Block weights as text",
                placeholder="IN04=0.7, M00=0.1   ranges: IN00-IN05=0.3   text: BASE=0",
                info="Copy from or paste here; blocks not named follow the main value, "
                "a name before a colon (beta: IN04=0.7) sets another parameter",
                lines=2,
                max_lines=6,
                elem_id="merge-weights",
            )

    def _build_rules(self) -> None:
        with compat.make(
            gr.Accordion,
            "Rules for single layers (elemental merge)",
            open=False,
            elem_id="merge-rules-fold",
        ):
            self.rules = self._control(
                gr.Textbox,
                label="One rule a line: blocks : part of the key's name : value",
                placeholder="OUT03-OUT06 : attn : 0.4",
                info="An empty field means all; the last rule that fits a key wins; "
                "beta@OUT03 sets another parameter",
                lines=3,
                max_lines=12,
                elem_id="merge-rules",
            )
        with compat.make(
            gr.Accordion,
            "Other methods, and parts of other models",
            open=False,
            elem_id="merge-steps-fold",
        ):
            self.steps = self._control(
                gr.Textbox,
                label="One step a line",
                placeholder="CLIP_L, CLIP_G : uniform_soup\nM00 : weighted_sum : "
                "alpha=0.3\nVAE = other.safetensors\nthen : iso_z : z=0.8",
                info="Another method for some blocks or components; blocks of another "
                "model; a method on what the first one gave",
                lines=4,
                max_lines=12,
                elem_id="merge-steps",
            )

    def _build_options(self) -> None:
        with gr.Row():
            self.precision = self._control(
                gr.Dropdown,
                [dtype.torch_name for dtype in COMPUTE_DTYPES],
                value="float32",
                label="Compute in",
                elem_id="merge-precision",
                min_width=120,
            )
            self.save_dtype = self._control(
                gr.Dropdown,
                [*(dtype.torch_name for dtype in SAVE_DTYPES), KEEP],
                value="float16",
                label="Store as",
                elem_id="merge-save-dtype",
                min_width=120,
            )
        self.parts = self._control(
            gr.CheckboxGroup,
            list(PARTS),
            value=list(DEFAULT_PARTS),
            label="Blend",
            info="The rest is copied from the first model",
            elem_id="merge-parts",
        )
        with gr.Row():
            self.keep_ema = self._control(
                gr.Checkbox,
                label="Keep the first model's EMA weights",
                value=False,
                elem_id="merge-keep-ema",
            )
            self.is_missing_ok = self._control(
                gr.Checkbox,
                label="Models may lack keys",
                value=False,
                elem_id="merge-missing-ok",
            )
        self.non_finite = self._control(
            gr.Dropdown,
            list(NON_FINITE),
            value=next(iter(NON_FINITE)),
            label="NaN or infinity in a model",
            elem_id="merge-non-finite",
        )

    def _build_actions(self) -> None:
        self.outlook = compat.html("", elem_id="merge-outlook")
        with gr.Row():
            self.name = compat.make(
                gr.Textbox,
                label="File name",
                placeholder="named after models and method",
                elem_id="merge-name",
                scale=3,
                min_width=200,
            )
            self.overwrite = compat.make(
                gr.Checkbox,
                label="Overwrite",
                value=False,
                elem_id="merge-overwrite",
                scale=1,
                min_width=120,
            )
        with gr.Row():
            self.load = self._button("Merge and load", "load", variant="primary")
            self.save = self._button("Merge and save", "save", variant="primary")
        with gr.Row():
            self.restore = self._button("Restore original model", "restore", size="sm")
            self.cancel = self._button("Cancel", "cancel", variant="stop", size="sm")
        self.message = compat.html("", elem_id="merge-message")
        self.status = compat.html("", elem_id="merge-status")

    def _build_hidden(self) -> None:
        """What javascript/merge_pages.js presses and reads; never shown."""
        with gr.Row(elem_id="merge-hidden"):
            self.seen = compat.make(gr.Textbox, "", elem_id="merge-seen")
            self.poll = compat.make(gr.Button, "poll", elem_id="merge-poll")
            # A recipe that another page has sent: the change of method that comes with
            # it must not put the parameters' defaults over its values.
            self.taken = compat.make(gr.Textbox, "", elem_id="merge-taken")
            self.replan = compat.make(gr.Button, "plan", elem_id="merge-plan")

    def _control(self, kind: Any, *args: Any, **options: Any) -> Any:
        control = compat.make(kind, *args, interactive=True, **options)
        self.inputs.add(control)
        return control

    def _button(
        self, label: str, name: str, *, variant: str = "secondary", size: str = "lg"
    ) -> Any:
        return compat.make(
            gr.Button,
            label,
            variant=variant,
            size=size,
            elem_id=f"merge-do-{name}",
            min_width=140,
        )
