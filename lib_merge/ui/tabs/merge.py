"""The Merge page: choose models, method and weights; merge into memory or a file."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import gradio as gr

from lib_merge.core.method import MergeMethod
from lib_merge.errors import MergeError, RecipeError
from lib_merge.ui import compat, markup, widgets
from lib_merge.ui.blocks_view import editor
from lib_merge.ui.form import (
    MergeForm,
    architecture_of,
    block_param,
    recipe_of,
    titles_of,
)
from lib_merge.ui.guard import guarded
from lib_merge.ui.summary import outlook
from lib_merge.ui.tabs._merge_controls import (
    FIRST_METHOD,
    N_SINGLE,
    MergeControls,
    model_options,
)
from lib_merge.ui.weights import read_weights
from lib_merge.ui.workspace import Workspace


class MergePage(MergeControls):
    """The page: its controls and what they do.

    Args:
        workspace: Jobs and host, shared by all open pages.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        super().__init__(self._titles())
        self.outlook.value = outlook(self._first_form(), workspace)
        self.status.value = self._status()
        self._wire()

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
            *(gr.update(**model_options(method, i)) for i in range(N_SINGLE)),
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
        """Look at the disk and list the host's checkpoints again."""
        self.workspace.host.catalog.refresh()
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
        return self._told(self.workspace.cancel)

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
        return MergeForm(method=FIRST_METHOD, models=tuple(self._titles()[:1]))

    # Showing

    def _told(self, action: Callable[[], Any]) -> list[str]:
        """Do something short; say what went wrong, in words, where it was asked."""
        return [guarded(action), self._status()]

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

    def _listed(self) -> list[Any]:
        titles = self._titles()
        return [gr.update(choices=titles) for _ in range(N_SINGLE + 1)]


def suggested_name(form: MergeForm) -> str:
    """A file name out of the models, the method and its main value."""
    stems = [_stem(title) for title in form.models if title]
    shown = stems if len(stems) <= N_SINGLE else [stems[0], f"{len(stems) - 1}-more"]
    numbers = [f"{value:g}" for _, value in form.values]
    own = ["blocks"] if form.weights.strip() or form.rules.strip() else []
    return "-".join([*shown, form.method, *numbers, *own])


def _stem(title: str) -> str:
    name = title.replace("\\", "/").rpartition("/")[2]
    return name.removesuffix(".safetensors").removesuffix(".ckpt")


def build(workspace: Workspace) -> MergePage:
    """Build the page inside the current Blocks."""
    return MergePage(workspace)
