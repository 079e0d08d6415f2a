"""What the AutoMBW page does with a trial: sliders, merges, files, the next study."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_merge.core.recipe import MergeNode, Setting
from lib_merge.errors import InputError
from lib_merge.methods import methods
from lib_merge.ui import compat, markup
from lib_merge.ui.form import titles_of
from lib_merge.ui.guard import guarded
from lib_merge.ui.tabs._study_panels import EXPORTS
from lib_merge.ui.tabs._study_reading import named, trial_of
from lib_merge.ui.tabs._study_watch import LOAD_TRIAL, SAVE_TRIAL
from lib_merge.ui.tabs.merge import MergePage

if TYPE_CHECKING:
    from lib_merge.autombw.study import Study
    from lib_merge.core.recipe import Recipe
    from lib_merge.ui.tabs.autombw import StudyPage


class StudyTools:
    """The buttons that act on a chosen trial.

    Args:
        page: The AutoMBW page.
        merging: The Merge page, for its sliders.
    """

    def __init__(self, page: StudyPage, merging: MergePage) -> None:
        self._page = page
        self._merging = merging
        self._workspace = page.workspace
        self._desk = page.desk
        watch, told = page.watch, page.watch.message
        asked = [watch.study, watch.trial, watch.best_name]
        bind = compat.handle
        bind(watch.save_recipe.click, self.on_save_recipe, asked, told)
        bind(watch.save_file.click, self.on_save_file, asked, told)
        bind(watch.load.click, self.on_load, asked[:2], told)
        sent = {watch.study, watch.trial, *merging.inputs}
        bind(watch.to_sliders.click, self.on_sliders, sent, [told, *self.slid])
        going = [told, page.method, *page.singles]
        going += [page.start_study, page.start_trial]
        bind(watch.go_on.click, self.on_go_on, asked[:2], going)
        writing = [*asked[:2], watch.exports]
        bind(watch.export.click, self.on_export, writing, [told, watch.files])

    @property
    def slid(self) -> list[Any]:
        """The Merge page's controls that a trial sets."""
        page = self._merging
        drawn = [page.block_param, page.editor, page.outlook]
        chosen = [page.method, *page.singles, page.use_blocks, page.weights]
        return [*chosen, page.rules, page.blocks_column, *drawn]

    # Handlers: each returns at once

    def on_save_recipe(
        self, study: str | None, trial: str | None, name: str | None
    ) -> str:
        """Keep a trial's merge as a recipe."""
        saved: list[Path] = []

        def save() -> None:
            stem = _stem(study, trial, name)
            saved.append(self._workspace.save_recipe(self._recipe(study, trial), stem))

        return guarded(save) or markup.success(f"Saved the recipe {saved[0]}.")

    def on_save_file(
        self, study: str | None, trial: str | None, name: str | None
    ) -> str:
        """Keep a trial's merge as a checkpoint."""

        def save() -> None:
            output = self._workspace.output_path(_stem(study, trial, name))
            recipe = self._recipe(study, trial)
            self._workspace.save(recipe, output, overwrite=False, title=SAVE_TRIAL)

        return guarded(save)

    def on_load(self, study: str | None, trial: str | None) -> str:
        """Merge a trial into the loaded model."""

        def load() -> None:
            self._workspace.load(self._recipe(study, trial), title=LOAD_TRIAL)

        return guarded(load)

    def on_sliders(self, values: dict[Any, Any]) -> list[Any]:
        """Put a trial into the Merge page."""
        watch, page = self._page.watch, self._merging
        updates: list[Any] = []
        notes: list[str] = []

        def send() -> None:
            recipe = self._recipe(values[watch.study], values[watch.trial])
            node = recipe.nodes[-1]
            if not isinstance(node, MergeNode):
                raise InputError("This trial's recipe is no single merge; save it.")
            label = methods().get(node.method).label
            titles = self._titles([model.path for _, model in recipe.models()])
            blocks = _blocks_text(node)
            rules = _rules_text(node)
            values[page.method] = label
            values[page.use_blocks] = True
            values[page.weights], values[page.rules] = blocks, rules
            models = []
            for box, title in zip(page.singles, titles, strict=False):
                values[box] = title or values[box]
                models.append(gr.update(value=values[box]))
            models += [gr.update()] * (len(page.singles) - len(models))
            if None in titles:
                notes.append("Its models are not in the list; choose them there.")
            notes.extend(_left_out(node))
            updates.extend([gr.update(value=label), *models, True, blocks, rules])
            updates.extend([gr.update(visible=True), *page.on_first(values)])

        message = guarded(send)
        if message:
            return [message, *(gr.update() for _ in self.slid)]
        words = " ".join(["The Merge page's sliders show this trial now.", *notes])
        return [markup.success(words), *updates]

    def on_go_on(self, study: str | None, trial: str | None) -> list[Any]:
        """Set up a new study that starts from a trial."""
        page = self._page
        updates: list[Any] = []

        def prepare() -> None:
            name = named(study)
            found = self._desk.study(name)
            self._recipe(name, trial)
            titles = self._titles(found.settings.models)
            boxes = [gr.update() for _ in page.singles]
            for place, title in enumerate(titles[: len(boxes)]):
                boxes[place] = gr.update(value=title) if title else boxes[place]
            label = methods().get(found.settings.method).label
            choices = ["no study", *self._desk.names()]
            updates.extend([gr.update(value=label), *boxes])
            updates.append(gr.update(choices=choices, value=name))
            updates.append(gr.update(value=str(trial or "").strip()))

        message = guarded(prepare)
        if message:
            n_controls = 3 + len(page.singles)
            return [message, *(gr.update() for _ in range(n_controls))]
        words = (
            "The set-up starts from this trial now (see 'Where to start'); choose "
            "payloads and trials, and press Start."
        )
        return [markup.success(words), *updates]

    def on_export(
        self, study: str | None, trial: str | None, kinds: list[str] | None
    ) -> list[Any]:
        """Write files from a trial and its study."""
        files: list[str] = []

        def write() -> None:
            found = self._desk.study(named(study))
            if not kinds:
                raise InputError("No file is ticked; tick what is to be written.")
            folder = found.folder / "exports"
            folder.mkdir(exist_ok=True)
            point = self._point(found, trial)
            for kind in kinds:
                name, text = _export(kind, found, point)
                stem = found.folder.name + _suffix(trial)
                path = folder / f"{stem}.{name}"
                path.write_text(text, encoding="utf-8")
                files.append(str(path))

        message = guarded(write)
        if message:
            return [message, gr.update()]
        where = Path(files[0]).parent
        told = markup.success(f"Wrote {markup.count(len(files), 'file')} to {where}.")
        return [told, gr.update(value=files, visible=True)]

    # Reading

    def _recipe(self, study: str | None, trial: str | None) -> Recipe:
        return self._desk.recipe(named(study), trial_of(trial or ""))

    def _point(self, study: Study, trial: str | None) -> Any:
        from lib_merge.autombw.exports import chosen_point

        return chosen_point(study, trial_of(trial or ""))

    def _titles(self, models: Any) -> list[str | None]:
        """Titles of model files; None for one that the host does not list."""
        entries = titles_of(self._workspace.host.catalog.checkpoints())
        known = {str(entry.path): title for title, entry in entries.items()}
        return [known.get(str(model)) for model in models]


def _stem(study: str | None, trial: str | None, name: str | None) -> str:
    chosen = (name or "").strip()
    return chosen or f"{named(study)}{_suffix(trial) or '-best'}"


def _suffix(trial: str | None) -> str:
    number = trial_of(trial or "")
    return "" if number is None else f"-trial{number}"


def _export(kind: str, study: Study, point: Any) -> tuple[str, str]:
    """A file's ending and its text."""
    from lib_merge.autombw import exports

    recipe = study.settings.recipe(point)
    writers: dict[str, tuple[str, Callable[[], str]]] = {
        EXPORTS[0]: ("recipe.json", lambda: json.dumps(recipe.to_json(), indent=2)),
        EXPORTS[1]: ("recipe.txt", lambda: exports.recipe_txt(study.settings, point)),
        EXPORTS[2]: ("trials.csv", lambda: exports.trials_csv(study)),
        EXPORTS[3]: ("csv", lambda: exports.autombw_csv(study)),
        EXPORTS[4]: (
            "history.tsv",
            lambda: exports.history_head() + exports.history_row(study, point),
        ),
    }
    name, write = writers[kind]
    return name, write()


def _blocks_text(node: MergeNode) -> str:
    """Values by block of every parameter, as the Merge page reads them."""
    main = methods().get(node.method).block_param
    parts = []
    for name, setting in node.params:
        pairs = ", ".join(f"{block}={value:.6g}" for block, value in setting.blocks)
        is_main = main is not None and name == main.name
        if pairs:
            parts.append((not is_main, pairs if is_main else f"{name}: {pairs}"))
    return "; ".join(text for _, text in sorted(parts))


def _rules_text(node: MergeNode) -> str:
    """Values of single layers, a line each."""
    return "\n".join(
        f"{name}@{' '.join(rule.blocks)}:{rule.pattern}:{rule.value:.6g}"
        for name, setting in node.params
        for rule in setting.rules
    )


def _left_out(node: MergeNode) -> list[str]:
    """What the sliders do not show: main values that are not the defaults."""
    method = methods().get(node.method)
    found = [
        f"{name}={setting.value:.6g}"
        for name, setting in node.params
        if _is_own(method.param(name.partition("@")[0]), setting)
    ]
    return [f"Set yourself: {', '.join(found)}."] if found else []


def _is_own(spec: Any, setting: Setting) -> bool:
    is_plain = not setting.blocks and not setting.rules
    return spec is not None and is_plain and setting.value != spec.default
