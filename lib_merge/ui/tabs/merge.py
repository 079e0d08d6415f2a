"""The Merge page: choose models, method and weights; merge into memory or a file."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from typing import Any

import gradio as gr

from lib_merge.core.dtypes import COMPUTE_DTYPES, SAVE_DTYPES
from lib_merge.core.params import MergeMethod
from lib_merge.errors import MergeError, RecipeError
from lib_merge.ui import compat, markup, widgets
from lib_merge.ui.blocks_view import editor
from lib_merge.ui.form import (
    DEFAULT_PARTS,
    KEEP,
    PARTS,
    MergeForm,
    architecture_of,
    block_param,
    letter,
    recipe_of,
    titles_of,
)
from lib_merge.ui.jobs import describe_bug
from lib_merge.ui.summary import outlook
from lib_merge.ui.weights import read_weights
from lib_merge.ui.workspace import Workspace

_log = logging.getLogger(__name__)

N_SINGLE = 3
"""Model lists with a letter of their own; a pool has one list for all."""

FIRST_METHOD = "weighted_sum"


class MergePage:
    """The page's controls and what they do.

    Args:
        workspace: Jobs and host, shared by all open pages.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.inputs: set[Any] = set()
        with gr.Row(elem_id="merge-columns"):
            with gr.Column(scale=3, min_width=520):
                self._build_models()
                self._build_method()
                self._build_blocks()
            with gr.Column(scale=2, min_width=380):
                self._build_options()
                self._build_actions()
        self._build_hidden()
        self._wire()

    # Building, by section

    def _build_models(self) -> None:
        first = widgets.method_by_label(FIRST_METHOD)
        titles = self._titles()
        with gr.Row(elem_id="merge-models"):
            self.singles = [
                self._control(
                    gr.Dropdown,
                    titles,
                    value=self._preselected() if i == 0 else None,
                    elem_id=f"merge-model-{letter(i).lower()}",
                    **self._model_options(first, i),
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
        compat.html('<div class="merge-heading">What will happen</div>')
        self.outlook = compat.html(
            outlook(self._first_form(), self.workspace), elem_id="merge-outlook"
        )
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
            self.restore = self._button("Restore original model", "restore")
            self.cancel = self._button("Cancel", "cancel", variant="stop")
        self.message = compat.html("", elem_id="merge-message")
        self.status = compat.html(self._status(), elem_id="merge-status")

    def _build_hidden(self) -> None:
        """What javascript/merge_pages.js presses and reads; never shown."""
        hidden = {"elem_classes": ["merge-hidden"]}
        self.seen = compat.make(gr.Textbox, "", elem_id="merge-seen", **hidden)
        self.poll = compat.make(gr.Button, "poll", elem_id="merge-poll", **hidden)
        self.replan = compat.make(gr.Button, "plan", elem_id="merge-plan", **hidden)

    def _control(self, kind: Any, *args: Any, **options: Any) -> Any:
        control = compat.make(kind, *args, interactive=True, **options)
        self.inputs.add(control)
        return control

    def _button(self, label: str, name: str, *, variant: str = "secondary") -> Any:
        return compat.make(
            gr.Button, label, variant=variant, elem_id=f"merge-do-{name}", min_width=140
        )

    # Wiring

    def _wire(self) -> None:
        models = [*self.singles, self.pool]
        compat.handle(
            self.method.change,
            self.on_method,
            self.inputs,
            [self.explanation, *models, *self.sliders, self.editor, self.outlook],
        )
        for control in (self.singles[0], self.pool):
            compat.handle(
                control.change, self.on_first, self.inputs, [self.editor, self.outlook]
            )
        compat.handle(
            self.use_blocks.change,
            self.on_use_blocks,
            self.inputs,
            [self.blocks_column, self.editor, self.outlook],
        )
        quiet = (*self.singles[1:], self.precision, self.save_dtype, self.parts)
        for control in (*quiet, self.keep_ema, self.is_missing_ok):
            compat.handle(control.change, self.on_change, self.inputs, self.outlook)
        compat.handle(self.replan.click, self.on_change, self.inputs, self.outlook)
        compat.handle(self.refresh.click, self.on_refresh, None, models)
        told = [self.message, self.status]
        compat.handle(self.load.click, self.on_load, self.inputs, told)
        saving = {*self.inputs, self.name, self.overwrite}
        compat.handle(self.save.click, self.on_save, saving, told)
        compat.handle(self.restore.click, self.on_restore, None, told)
        compat.handle(self.cancel.click, self.on_cancel, None, told)
        compat.handle(
            self.poll.click, self.on_poll, self.seen, [self.seen, self.status, *models]
        )

    # Handlers: each returns at once

    def on_method(self, values: dict[Any, Any]) -> list[Any]:
        """Another method: its explanation, its inputs, its parameters' limits."""
        method = widgets.method_by_label(values[self.method])
        specs = [widgets.spec_at(method, i) for i in range(len(self.sliders))]
        for slider, spec in zip(self.sliders, specs, strict=True):
            values[slider] = spec.default if spec else 0.0
        return [
            widgets.explanation(method),
            *(gr.update(**self._model_options(method, i)) for i in range(N_SINGLE)),
            gr.update(visible=method.is_pool),
            *(gr.update(**widgets.dressed_slider(spec)) for spec in specs),
            self._editor(values),
            outlook(self.form(values), self.workspace),
        ]

    def on_first(self, values: dict[Any, Any]) -> list[Any]:
        """Another model A: its architecture decides which blocks there are."""
        return [self._editor(values), outlook(self.form(values), self.workspace)]

    def on_use_blocks(self, values: dict[Any, Any]) -> list[Any]:
        """Show or hide the block editor."""
        is_used = bool(values[self.use_blocks])
        return [gr.update(visible=is_used), *self.on_first(values)]

    def on_change(self, values: dict[Any, Any]) -> str:
        """Anything else changed: plan again."""
        return outlook(self.form(values), self.workspace)

    def on_refresh(self) -> list[Any]:
        """List the host's checkpoints again."""
        return self._listed()

    def on_load(self, values: dict[Any, Any]) -> list[str]:
        """Merge into the loaded model."""
        return self._told(lambda: self.workspace.load(self._recipe(values)))

    def on_save(self, values: dict[Any, Any]) -> list[str]:
        """Merge into a file."""

        def start() -> None:
            recipe = self._recipe(values)
            name = str(values[self.name] or "") or suggested_name(self.form(values))
            output = self.workspace.output_path(name)
            self.workspace.save(recipe, output, overwrite=bool(values[self.overwrite]))

        return self._told(start)

    def on_restore(self) -> list[str]:
        """Put the loaded file's own weights back."""
        return self._told(self.workspace.restore)

    def on_cancel(self) -> list[str]:
        """Stop the running merge."""
        return self._told(self.workspace.merging.cancel)

    def on_poll(self, seen: str) -> list[Any]:
        """What has changed since this page last asked; nothing when nothing has."""
        status = self._status()
        listed = f"{self.workspace.n_catalog_changes}"
        token = f"{listed}|{zlib.crc32(status.encode()):08x}"
        n_models = N_SINGLE + 1
        if token == seen:
            return [gr.update() for _ in range(2 + n_models)]
        is_listed = str(seen).partition("|")[0] == listed
        models = [gr.update()] * n_models if is_listed else self._listed()
        return [token, status, *models]

    # Reading

    def form(self, values: dict[Any, Any]) -> MergeForm:
        """The controls' values as one form."""
        method = widgets.method_by_label(values[self.method])
        names = [spec.name for spec in method.params]
        numbers = [float(values[slider] or 0.0) for slider in self.sliders]
        return MergeForm(
            method=method.id,
            models=self._chosen(method, values),
            values=tuple(zip(names, numbers, strict=False)),
            weights=str(values[self.weights] or "") if values[self.use_blocks] else "",
            rules=str(values[self.rules] or ""),
            compute_dtype=str(values[self.precision]),
            save_dtype=str(values[self.save_dtype]),
            parts=tuple(values[self.parts] or ()),
            keep_ema=bool(values[self.keep_ema]),
            is_missing_ok=bool(values[self.is_missing_ok]),
        )

    def _chosen(self, method: MergeMethod, values: dict[Any, Any]) -> tuple[str, ...]:
        n_single = sum(not spec.is_pool for spec in method.inputs)
        singles = [str(values[box] or "") for box in self.singles[:n_single]]
        pool = [str(title) for title in values[self.pool] or ()]
        return tuple(singles + pool if method.is_pool else singles)

    def _recipe(self, values: dict[Any, Any]) -> Any:
        return recipe_of(self.form(values), self.workspace.host.catalog)

    def _first_form(self) -> MergeForm:
        return MergeForm(method=FIRST_METHOD, models=(self._preselected() or "",))

    # Showing

    def _told(self, action: Callable[[], Any]) -> list[str]:
        """Do something short; say what went wrong, in words, where it was asked."""
        message = ""
        try:
            action()
        except RecipeError as fault:
            message = markup.errors(fault.problems)
        except MergeError as fault:
            message = markup.errors([str(fault)])
        except Exception as fault:
            # A WebUI callback: a traceback in a pop-up would help nobody.
            _log.exception("a button of the Merge page failed")
            message = markup.errors([describe_bug(fault)])
        return [message, self._status()]

    def _status(self) -> str:
        job = self.workspace.merging.job
        shown = markup.job(job.view() if job else None)
        is_running = job is not None and job.is_active
        state = "" if is_running else self.workspace.live_state()
        line = f'<div class="merge-state">{markup.text(state)}</div>' if state else ""
        return shown + line

    def _editor(self, values: dict[Any, Any]) -> str:
        if not values[self.use_blocks]:
            return ""
        form = self.form(values)
        method = widgets.method_by_label(form.method)
        spec = block_param(method)
        entries = titles_of(self.workspace.host.catalog.checkpoints())
        if spec is None or not form.models or form.models[0] not in entries:
            return editor(None, spec, {}, 0.0)
        try:
            arch = architecture_of(entries[form.models[0]].path)
        except MergeError as fault:
            return markup.errors([str(fault)])
        main = dict(form.values).get(spec.name, spec.default)
        try:
            own = read_weights(form.weights, arch, spec)
        except RecipeError:
            # The outlook names what is wrong with the text; the sliders start afresh.
            own = {}
        return editor(arch, spec, own, main)

    def _titles(self) -> list[str]:
        return list(titles_of(self.workspace.host.catalog.checkpoints()))

    def _preselected(self) -> str | None:
        titles = self._titles()
        return titles[0] if titles else None

    def _listed(self) -> list[Any]:
        titles = self._titles()
        return [gr.update(choices=titles) for _ in range(N_SINGLE + 1)]

    def _model_options(self, method: MergeMethod, index: int) -> dict[str, Any]:
        singles = [spec for spec in method.inputs if not spec.is_pool]
        help_text = widgets.input_help(method, index) if index < len(singles) else ""
        return {
            "visible": index < len(singles),
            "label": f"Model {letter(index)}",
            "info": help_text or None,
        }


def suggested_name(form: MergeForm) -> str:
    """A file name out of the models, the method and its main value."""
    stems = [_stem(title) for title in form.models if title]
    shown = stems if len(stems) <= N_SINGLE else [stems[0], f"{len(stems) - 1}-more"]
    numbers = [f"{value:g}" for _, value in form.values]
    own = ["blocks"] if form.weights.strip() or form.rules.strip() else []
    return "-".join([*shown, form.method, *numbers, *own])


def _stem(title: str) -> str:
    name = title.partition(" [")[0].replace("\\", "/").rpartition("/")[2]
    return name.removesuffix(".safetensors").removesuffix(".ckpt")


def build(workspace: Workspace) -> MergePage:
    """Build the page inside the current Blocks."""
    return MergePage(workspace)

