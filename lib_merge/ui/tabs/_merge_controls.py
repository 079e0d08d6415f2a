"""The Merge page's controls, section by section; `tabs.merge` gives them life."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_merge.core.dtypes import COMPUTE_DTYPES, SAVE_DTYPES
from lib_merge.core.method import MergeMethod
from lib_merge.ui import compat, widgets
from lib_merge.ui.form import DEFAULT_PARTS, KEEP, PARTS, letter

N_SINGLE = 3
"""Model lists with a letter of their own; a pool has one list for all."""

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
                    **model_options(first, i),
                )
                for i in range(N_SINGLE)
            ]
            self.pool = self._control(
                gr.Dropdown,
                titles,
                value=[],
                multiselect=True,
                visible=first.is_pool,
                label="Models, A first",
                info="Any number; what is not blended comes from the first",
                elem_id="merge-model-pool",
                scale=4,
            )
            self.refresh = compat.make(
                gr.Button,
                "Refresh",
                elem_id="merge-refresh",
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
        self.sliders = []
        with gr.Row(elem_id="merge-params"):
            for index in range(widgets.n_param_slots()):
                spec = widgets.spec_at(first, index)
                self.sliders.append(widgets.param_slider(index, spec))
        self.inputs.update(self.sliders)

    def _build_blocks(self) -> None:
        self.use_blocks = self._control(
            gr.Checkbox,
            label="Use block weights",
            value=False,
            elem_id="merge-use-blocks",
        )
        with gr.Column(visible=False, elem_id="merge-blocks") as self.blocks_column:
            self.editor = compat.html("", elem_id="merge-editor-view")
            self.weights = self._control(
                gr.Textbox,
                label="Block weights as text",
                placeholder="IN04=0.7, M00=0.1   ranges: IN00-IN05=0.3   text: BASE=0",
                info="Copy from or paste here; blocks not named follow the main value",
                lines=2,
                max_lines=6,
                elem_id="merge-weights",
            )
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
                info="An empty field means all; the last rule that fits a key wins",
                lines=3,
                max_lines=12,
                elem_id="merge-rules",
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
            info="The rest is copied from model A",
            elem_id="merge-parts",
        )
        with gr.Row():
            self.keep_ema = self._control(
                gr.Checkbox,
                label="Keep model A's EMA weights",
                value=False,
                elem_id="merge-keep-ema",
            )
            self.is_missing_ok = self._control(
                gr.Checkbox,
                label="Take keys that a model lacks from A",
                value=False,
                elem_id="merge-missing-ok",
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


def model_options(method: MergeMethod, index: int) -> dict[str, Any]:
    """Options that fit a model's list to a method, or hide it."""
    singles = [spec for spec in method.inputs if not spec.is_pool]
    help_text = widgets.input_help(method, index) if index < len(singles) else ""
    return {
        "visible": index < len(singles),
        "label": f"Model {letter(index)}",
        "info": help_text or None,
    }
