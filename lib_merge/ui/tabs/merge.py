"""The Merge page: choose models, method and weights; merge into memory or a file."""

from __future__ import annotations

import fnmatch
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from lib_merge.analysis.anatomy import anatomy_of_file
from lib_merge.core.method import MergeMethod
from lib_merge.core.params import split_name
from lib_merge.core.ports import CheckpointEntry
from lib_merge.errors import MergeError
from lib_merge.formats.block_text import Scope, expand_blocks, read_blocks
from lib_merge.methods import methods
from lib_merge.ui import compat, markup, recipe_page, widgets
from lib_merge.ui.blocks_view import EditorView, editor
from lib_merge.ui.form import (
    MergeForm,
    architecture_of,
    block_settings,
    read_main_values,
    recipe_of,
    titles_of,
)
from lib_merge.ui.guard import guarded
from lib_merge.ui.summary import outlook
from lib_merge.ui.tabs._merge_controls import (
    FIRST_METHOD,
    N_SINGLE,
    MergeControls,
)
from lib_merge.ui.tabs._merge_taking import RecipeTaker, param_updates
from lib_merge.ui.widgets import Kind
from lib_merge.ui.workspace import Workspace

POOL_METHOD = "uniform_soup"
"""What is chosen when another page sends a pool and the chosen method takes none."""


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
        self.taker = RecipeTaker(self, self._titles, workspace.host.catalog)
        self._wire()

    # Wiring

    def _wire(self) -> None:
        self._wire_choosing()
        self._wire_pool()
        told = [self.message, self.status]
        compat.handle(self.load.click, self.on_load, self.inputs, told)
        saving = {*self.inputs, self.name, self.overwrite}
        compat.handle(self.save.click, self.on_save, saving, told)
        compat.handle(self.restore.click, self.on_restore, None, told)
        compat.handle(self.cancel.click, self.on_cancel, None, told)
        models = [*self.singles, self.pool]
        compat.handle(self.refresh.click, self.on_refresh, None, models)
        compat.handle(
            self.poll.click, self.on_poll, self.seen, [self.seen, self.status, *models]
        )

    def _wire_choosing(self) -> None:
        drawn = [self.block_param, self.editor, self.outlook]
        chosen = [self.explanation, *self.singles, self.pool_column]
        params = [control for kind in Kind for control in self.params[kind]]
        compat.handle(
            self.method.change,
            self.on_method,
            {*self.inputs, self.taken},
            [self.taken, *chosen, *params, *drawn],
        )
        for control in (self.singles[0], self.pool, *self.params[Kind.EACH]):
            compat.handle(control.change, self.on_first, self.inputs, drawn)
        compat.handle(
            self.use_blocks.change,
            self.on_use_blocks,
            self.inputs,
            [self.blocks_column, *drawn],
        )
        compat.handle(
            self.block_param.change, self.on_block_param, self.inputs, self.editor
        )
        quiet = (*self.singles[1:], self.precision, self.save_dtype, self.parts)
        switches = (self.keep_ema, self.is_missing_ok, self.non_finite)
        for control in (*quiet, *switches, *self.params[Kind.CHOICE]):
            compat.handle(control.change, self.on_change, self.inputs, self.outlook)
        compat.handle(self.replan.click, self.on_change, self.inputs, self.outlook)

    def _wire_pool(self) -> None:
        asked = {self.pool, self.pool_filter, self.method, *self.singles}
        compat.handle(self.pool_add.click, self.on_pool_add, asked, self.pool)
        compat.handle(self.pool_clear.click, self.on_pool_clear, None, self.pool)

    # Handlers: each returns at once

    def on_method(self, values: dict[Any, Any]) -> list[Any]:
        """Another method: its explanation, its inputs, its parameters' limits."""
        method = widgets.method_by_label(values[self.method])
        shown = recipe_page.numbers_of(values.get(self.taken), method)
        updates = param_updates(self, method, values, shown)
        return [
            "",
            widgets.explanation(method),
            *(gr.update(**widgets.input_options(method, i)) for i in range(N_SINGLE)),
            gr.update(visible=method.is_pool),
            *updates,
            *self.on_first(values),
        ]

    def on_first(self, values: dict[Any, Any]) -> list[Any]:
        """Other models: the first one's architecture decides which blocks there are."""
        form = self.form(values)
        method = widgets.method_by_label(form.method)
        names = block_settings(method, len(form.models) - method.n_single)
        if values[self.block_param] not in names:
            values[self.block_param] = names[0] if names else None
        named = gr.update(
            choices=names, value=values[self.block_param], visible=len(names) > 1
        )
        return [named, self._editor(values), outlook(form, self.workspace)]

    def on_block_param(self, values: dict[Any, Any]) -> str:
        """The editor for another parameter."""
        return self._editor(values)

    def on_use_blocks(self, values: dict[Any, Any]) -> list[Any]:
        """Show or hide the block editor."""
        is_used = bool(values[self.use_blocks])
        return [gr.update(visible=is_used), *self.on_first(values)]

    def on_pool_add(self, values: dict[Any, Any]) -> Any:
        """Add every model that the filter fits, in the list's order."""
        method = widgets.method_by_label(values[self.method])
        taken = [str(values[box] or "") for box in self.singles[: method.n_single]]
        chosen = [str(title) for title in values[self.pool] or ()]
        entries = titles_of(self.workspace.host.catalog.checkpoints())
        found = matching(entries, str(values[self.pool_filter] or ""))
        added = [title for title in found if title not in taken]
        return gr.update(value=list(dict.fromkeys([*chosen, *added])))

    def on_pool_clear(self) -> Any:
        """Take every model out of the pool."""
        return gr.update(value=[])

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

    # What other pages send

    @property
    def pool_inputs(self) -> list[Any]:
        """The controls that `take_pool` changes."""
        return [self.method, self.pool]

    def take_pool(self, titles: list[str], values: dict[Any, Any]) -> list[Any]:
        """Updates of `pool_inputs` that put models into the pool; none change nothing.

        Where the chosen method takes no pool, the plain mean is chosen instead.
        """
        if not titles:
            return [gr.update(), gr.update()]
        is_pool = widgets.method_by_label(values[self.method]).is_pool
        label = methods().get(POOL_METHOD).label
        method = gr.update() if is_pool else gr.update(value=label)
        return [method, gr.update(value=titles)]

    # Reading

    def form(self, values: dict[Any, Any]) -> MergeForm:
        """The controls' values as one form."""
        method = widgets.method_by_label(values[self.method])
        shown = {
            spec.name: values[control]
            for kind in Kind
            for control, spec in zip(
                self.params[kind], widgets.placed(method, kind), strict=True
            )
            if spec is not None
        }
        specs = [spec for spec in method.params if not spec.param.per_model]
        each = [spec for spec in method.params if spec.param.per_model]
        return MergeForm(
            method=method.id,
            models=self._chosen(method, values),
            values=tuple((s.name, widgets.number_of(s, shown[s.name])) for s in specs),
            each=tuple((s.name, str(shown[s.name] or "")) for s in each),
            weights=str(values[self.weights] or "") if values[self.use_blocks] else "",
            rules=str(values[self.rules] or ""),
            steps=str(values[self.steps] or ""),
            compute_dtype=str(values[self.precision]),
            save_dtype=str(values[self.save_dtype]),
            parts=tuple(values[self.parts] or ()),
            keep_ema=bool(values[self.keep_ema]),
            is_missing_ok=bool(values[self.is_missing_ok]),
            non_finite=str(values[self.non_finite]),
        )

    def _chosen(self, method: MergeMethod, values: dict[Any, Any]) -> tuple[str, ...]:
        singles = [str(values[box] or "") for box in self.singles[: method.n_single]]
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
        entries = titles_of(self.workspace.host.catalog.checkpoints())
        name = str(values[self.block_param] or "")
        spec = method.param(split_name(name)[0])
        if spec is None or not form.models or form.models[0] not in entries:
            return editor(None, None, spec)
        try:
            arch = architecture_of(entries[form.models[0]].path)
            anatomy = anatomy_of_file(entries[form.models[0]].path)
        except MergeError as fault:
            return markup.errors([str(fault)])
        # The outlook names what is wrong with a text; what can be read is drawn.
        main = read_main_values(form, [])
        blocks = read_blocks([form.weights], Scope(method, arch), "", [])
        own = [(b.block, b.value) for b in blocks if b.name == name]
        view = EditorView(
            name=name,
            first=method.block_param.name if method.block_param else "",
            main=main.get(name, main.get(spec.name, spec.default)),
            values=expand_blocks(own, arch),
            parts={part.block.id: part for part in anatomy.parts},
        )
        return editor(arch, view, spec)

    def _titles(self) -> list[str]:
        return list(titles_of(self.workspace.host.catalog.checkpoints()))

    def _listed(self) -> list[Any]:
        titles = self._titles()
        return [gr.update(choices=titles) for _ in range(N_SINGLE + 1)]


def suggested_name(form: MergeForm) -> str:
    """A file name out of the models, the method and the values that matter."""
    method = methods().get(form.method)
    stems = [_stem(title) for title in form.models if title]
    shown = stems if len(stems) <= N_SINGLE else [stems[0], f"{len(stems) - 1}-more"]
    numbers = []
    for name, value in form.values:
        spec = method.param(name)
        if spec is not None and spec == method.block_param:
            numbers.append(f"{value:g}")
        elif spec is not None and value != spec.default:
            numbers.append(f"{name}-{spec.text_of(value)}")
    texts = (form.weights, form.rules, form.steps, *(text for _, text in form.each))
    own = ["own"] if any(text.strip() for text in texts) else []
    return "-".join([*shown, form.method, *numbers, *own])


def matching(entries: Mapping[str, CheckpointEntry], text: str) -> list[str]:
    """Titles that have a text in their title or folder, or fit it as a pattern.

    Args:
        entries: By title.
        text: A part, or a pattern with * and ?; empty fits every model.
    """
    # Names often have [...] in them, so of a pattern's signs only * and ? count.
    pattern = "*" + text.strip().lower().replace("[", "[[]") + "*"
    return [
        title
        for title, entry in entries.items()
        if fnmatch.fnmatchcase(title.lower(), pattern)
        or fnmatch.fnmatchcase(_in_folder(entry.path).lower(), pattern)
    ]


def _in_folder(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _stem(title: str) -> str:
    name = title.replace("\\", "/").rpartition("/")[2]
    return name.removesuffix(".safetensors").removesuffix(".ckpt")


def build(workspace: Workspace) -> MergePage:
    """Build the page inside the current Blocks."""
    return MergePage(workspace)
