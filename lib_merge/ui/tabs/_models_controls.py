"""The Models page's controls; `tabs.models` gives them life."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_merge.analysis.health.defects import Defect
from lib_merge.analysis.health.repair import DROPPED
from lib_merge.core.dtypes import DType
from lib_merge.ui import compat
from lib_merge.ui.inspect_view import SORTS

NO_BASE = "none"
AS_IT_IS = "as it is"

DROPS = {
    "noise schedule constants": Defect.SCHEDULE,
    "unknown keys": Defect.UNKNOWN,
}
"""Keys that are left out only when asked for."""

COMPONENTS = "whole components that are absent"
DEAD = "tensors that are all zero"

_MENDED = (
    *DROPPED,
    Defect.MISSING,
    Defect.MISSHAPEN,
    Defect.POSITION_IDS,
    Defect.NON_FINITE,
)
KEEPS = {f"keys {defect.words}": defect for defect in _MENDED}
"""Defects that are mended unless they are to stay."""

WEIGHTS = {
    AS_IT_IS: None,
    "float16": DType.F16,
    "bfloat16": DType.BF16,
    "float32": DType.F32,
}
"""Precisions of a repaired copy."""

PRECISIONS = {
    "float16": DType.F16,
    "bfloat16": DType.BF16,
    "float32": DType.F32,
    "float8_e4m3fn (fp8)": DType.F8_E4M3,
    "float8_e5m2 (fp8)": DType.F8_E5M2,
}
"""Precisions to convert to."""


class ModelsControls:
    """Every control of the page, built inside the current Blocks.

    Args:
        titles: Checkpoints to choose from.
    """

    def __init__(self, titles: list[str]) -> None:
        self._opening = titles
        self._build_list()
        self._build_choice()
        with gr.Row(elem_id="merge-ins-columns"):
            with compat.make(gr.Column, scale=3, min_width=480):
                self.details = compat.html("", elem_id="merge-ins-details")
                with compat.make(
                    gr.Accordion, "Blocks", open=True, elem_id="merge-ins-blocks-fold"
                ):
                    self.diagram = compat.html("", elem_id="merge-ins-diagram")
            with compat.make(
                gr.Column, scale=2, min_width=360, elem_id="merge-ins-remedies"
            ):
                self._build_repair()
                self._build_convert()
        with gr.Row(elem_id="merge-ins-hidden"):
            self.picked = compat.make(gr.Textbox, "", elem_id="merge-ins-picked")
            self.seen = compat.make(gr.Textbox, "", elem_id="merge-ins-seen")
            self.poll = compat.make(gr.Button, "poll", elem_id="merge-ins-poll")

    def _build_list(self) -> None:
        with gr.Row(elem_id="merge-ins-tools"):
            self.filter = _control(
                gr.Textbox,
                label="Show models that have",
                placeholder="words of the name, folder, architecture or precision",
                lines=1,
                scale=3,
                elem_id="merge-ins-filter",
            )
            self.sort = _control(
                gr.Dropdown,
                list(SORTS),
                value=next(iter(SORTS)),
                label="Sort by",
                scale=1,
                elem_id="merge-ins-sort",
            )
            self.refresh = _button(
                "Refresh", "refresh", size="sm", scale=0, min_width=90
            )
        self.table = compat.html("", elem_id="merge-ins-table")

    def _build_choice(self) -> None:
        with gr.Row(elem_id="merge-ins-choice"):
            self.model = _control(
                gr.Dropdown,
                self._opening,
                value=None,
                label="Model",
                info="or click one in the table",
                scale=3,
                allow_custom_value=True,
                elem_id="merge-ins-model",
            )
            self.read = _button("Read every value", "read", scale=1)
            self.cancel = _button("Cancel", "cancel", variant="stop", scale=1)
        self.message = compat.html("", elem_id="merge-ins-message")
        self.live = compat.html("<div></div>", elem_id="merge-ins-live")

    def _build_repair(self) -> None:
        with compat.make(
            gr.Accordion,
            "Repair into a new file",
            open=True,
            elem_id="merge-ins-repair-fold",
        ):
            self.base = _control(
                gr.Dropdown,
                [NO_BASE, *self._opening],
                value=NO_BASE,
                label="Base model",
                info="sound, of the same architecture; gives what is missing or broken",
                elem_id="merge-ins-base",
            )
            self._build_repair_options()
            self.plan = _button("Show what it would do", "plan")
            self.repair_told = compat.html("", elem_id="merge-ins-repair-told")
            self.repair_plan = compat.html("", elem_id="merge-ins-repair-plan")
            with gr.Row():
                self.repair_name = _name("_repaired", "repair-name")
                self.repair_over = _overwrite("repair-overwrite")
            self.repair = _button("Repair", "repair", variant="primary")

    def _build_repair_options(self) -> None:
        self.fills = _control(
            gr.CheckboxGroup,
            [COMPONENTS, DEAD],
            value=[],
            label="Also take from the base",
            elem_id="merge-ins-fills",
        )
        self.drops = _control(
            gr.CheckboxGroup,
            list(DROPS),
            value=[],
            label="Also leave out",
            elem_id="merge-ins-drops",
        )
        with compat.make(
            gr.Accordion, "More", open=False, elem_id="merge-ins-more-fold"
        ):
            self.keeps = _control(
                gr.Dropdown,
                list(KEEPS),
                value=[],
                multiselect=True,
                label="Do not mend",
                elem_id="merge-ins-keeps",
            )
            self.weights = _control(
                gr.Dropdown,
                list(WEIGHTS),
                value=AS_IT_IS,
                label="Precision of the copy",
                elem_id="merge-ins-weights",
            )
            self.deep = _control(
                gr.Checkbox,
                label="Read every value first (finds NaN and wrong position ids)",
                value=True,
                elem_id="merge-ins-deep",
            )

    def _build_convert(self) -> None:
        with compat.make(
            gr.Accordion,
            "Convert precision into a new file",
            open=True,
            elem_id="merge-ins-convert-fold",
        ):
            self.precision = _control(
                gr.Dropdown,
                list(PRECISIONS),
                value=next(iter(PRECISIONS)),
                label="Precision",
                elem_id="merge-ins-precision",
            )
            self.scaled = _control(
                gr.Checkbox,
                label="A scale beside each fp8 weight (as ComfyUI's scaled fp8)",
                value=True,
                visible=False,
                elem_id="merge-ins-scaled",
            )
            self.ema = _control(
                gr.Checkbox,
                label="Keep EMA shadow weights",
                value=False,
                elem_id="merge-ins-ema",
            )
            self.convert_plan = compat.html("", elem_id="merge-ins-convert-plan")
            with gr.Row():
                self.convert_name = _name("_precision", "convert-name")
                self.convert_over = _overwrite("convert-overwrite")
            self.convert = _button("Convert", "convert", variant="primary")
            self.convert_told = compat.html("", elem_id="merge-ins-convert-told")


def _name(ending: str, name: str) -> Any:
    return _control(
        gr.Textbox,
        label="File name",
        placeholder=f"empty: model{ending}",
        lines=1,
        scale=3,
        min_width=200,
        elem_id=f"merge-ins-{name}",
    )


def _overwrite(name: str) -> Any:
    return _control(
        gr.Checkbox,
        label="Overwrite",
        value=False,
        scale=1,
        min_width=100,
        elem_id=f"merge-ins-{name}",
    )


def _control(kind: Any, *args: Any, **options: Any) -> Any:
    return compat.make(kind, *args, interactive=True, **options)


def _button(label: str, name: str, **options: Any) -> Any:
    options = {"min_width": 140, **options}
    return compat.make(gr.Button, label, elem_id=f"merge-ins-{name}", **options)
