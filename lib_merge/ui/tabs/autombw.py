"""The AutoMBW page: set up a study, watch it, keep its best merge."""

from __future__ import annotations

import time
import zlib
from pathlib import Path
from typing import Any

import gradio as gr

from lib_merge.errors import InputError, MergeError
from lib_merge.methods import methods
from lib_merge.ui import compat, markup, study_view, widgets
from lib_merge.ui.form import titles_of
from lib_merge.ui.guard import guarded
from lib_merge.ui.study_form import (
    SAMPLERS,
    StudyForm,
    method_note,
    payload_choices,
    payload_notes,
    settings_of,
    study_outlook,
)
from lib_merge.ui.tabs._study_controls import (
    N_SINGLE,
    Opening,
    StudyControls,
    scorer_labels,
)
from lib_merge.ui.workspace import Workspace

SAVE_BEST = "Save best"
"""Merges of this title are shown on this page."""

N_GALLERY = 12
"""Pictures of the best trial that are shown."""


class StudyPage(StudyControls):
    """The page: its controls and what they do.

    Args:
        workspace: Jobs and host, shared by all open pages.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.desk = workspace.studies
        entries = titles_of(workspace.host.catalog.checkpoints())
        opening = Opening(
            titles=tuple(entries),
            payload_dir=self.desk.payload_dir(),
            studies=tuple(self.desk.names()),
            study=self.desk.current_name(),
        )
        super().__init__(opening)
        self.live.value = self._live(opening.study)
        first = {control: control.value for control in self.inputs}
        self.outlook.value = self.on_change(first)
        self._wire()

    # Wiring

    def _wire(self) -> None:
        compat.handle(
            self.method.change,
            self.on_method,
            self.inputs,
            [*self.singles, self.method_note, self.outlook],
        )
        controls = self.inputs - {self.method}
        for control in controls - {self.name, self.limits, self.weights_file}:
            compat.handle(control.change, self.on_change, self.inputs, self.outlook)
        compat.handle(self.replan.click, self.on_change, self.inputs, self.outlook)
        compat.handle(
            self.upload.upload,
            self.on_upload,
            [self.upload, self.payloads],
            [self.payloads, self.message],
        )
        told = self.message
        compat.handle(self.start.click, self.on_start, self.inputs, [told, self.study])
        compat.handle(self.pause.click, self.on_pause, None, told)
        compat.handle(self.stop.click, self.on_stop, None, told)
        compat.handle(self.resume.click, self.on_resume, self.study, told)
        keep = [self.study, self.best_name]
        compat.handle(self.save_recipe.click, self.on_save_recipe, keep, told)
        compat.handle(self.save_file.click, self.on_save_file, keep, told)
        shown = [self.seen, self.study, self.live, self.table]
        shown += [self.gallery, self.report]
        asked = [self.seen, self.study]
        compat.handle(self.poll.click, self.on_poll, asked, shown)
        compat.handle(self.study.change, self.on_poll, asked, shown)

    # Handlers: each returns at once

    def on_method(self, values: dict[Any, Any]) -> list[Any]:
        """Another method: the models that it takes, and what of it is searched."""
        method = widgets.method_by_label(values[self.method])
        shown = [gr.update(**widgets.input_options(method, i)) for i in range(N_SINGLE)]
        note = markup.hints([method_note(method)])
        return [*shown, note, self.on_change(values)]

    def on_change(self, values: dict[Any, Any]) -> str:
        """Anything else changed: say what the study would do."""
        form = self.form(values)
        if "" in form.models or not form.payloads:
            return markup.note("Choose models and payloads.")
        settings: list[str] = []

        def describe() -> None:
            found = settings_of(form, self.workspace.host, is_noted=False)
            notes = payload_notes(form.payloads)
            settings.append(markup.note(study_outlook(found)) + markup.hints(notes))

        return guarded(describe) or settings[0]

    def on_upload(self, files: Any, chosen: list[str] | None) -> list[Any]:
        """Keep uploaded payload files and choose them."""
        kept: list[Path] = []

        def keep() -> None:
            found: list[Any] = files if isinstance(files, list) else [files]
            # Gradio 3 gives open files, later ones give paths.
            paths = [Path(str(getattr(f, "name", f))) for f in found if f]
            kept.extend(self.desk.add_payloads(paths))

        message = guarded(keep)
        choices = list(payload_choices(self.desk.payload_dir()))
        value = [*(chosen or []), *(path.name for path in kept)]
        unique = [name for name in dict.fromkeys(value) if name in choices]
        return [gr.update(choices=choices, value=unique), message]

    def on_start(self, values: dict[Any, Any]) -> list[Any]:
        """Create a study and run it in the background."""
        form = self.form(values)

        def start() -> None:
            if not form.scorer:
                raise InputError("No scorer is chosen; choose one that is available.")
            self.desk.start(settings_of(form, self.workspace.host))

        message = guarded(start)
        if message:
            return [message, gr.update()]
        study = gr.update(choices=self.desk.names(), value=self.desk.current_name())
        return ["", study]

    def on_pause(self) -> str:
        """Wait after the picture that is being rendered."""
        return guarded(self.desk.pause)

    def on_stop(self) -> str:
        """Stop after the picture that is being rendered; everything is kept."""
        return guarded(self.desk.stop)

    def on_resume(self, name: str | None) -> str:
        """Go on with the chosen study."""
        return guarded(lambda: self.desk.resume(self._named(name)))

    def on_save_recipe(self, study: str | None, name: str | None) -> str:
        """Keep the best merge as a recipe."""
        saved: list[Path] = []

        def save() -> None:
            recipe = self.desk.best_recipe(self._named(study))
            stem = (name or "").strip() or f"{study}-best"
            saved.append(self.workspace.save_recipe(recipe, stem))

        message = guarded(save)
        return message or markup.success(f"Saved the recipe {saved[0]}.")

    def on_save_file(self, study: str | None, name: str | None) -> str:
        """Keep the best merge as a checkpoint; the Merge page shows the progress."""

        def save() -> None:
            recipe = self.desk.best_recipe(self._named(study))
            stem = (name or "").strip() or f"{study}-best"
            output = self.workspace.output_path(stem)
            self.workspace.save(recipe, output, overwrite=False, title=SAVE_BEST)

        return guarded(save)

    def on_poll(self, seen: str | None, name: str | None) -> list[Any]:
        """What has changed since this page last asked; nothing when nothing has."""
        names = self.desk.names()
        if not seen or name not in names:
            name = self.desk.current_name()
        live = self._live(name)
        gallery = self._gallery_key(name)
        token = "|".join((_digest(live), gallery, _digest(*names), name or ""))
        if token == seen:
            return [gr.update() for _ in range(6)]
        _, old_gallery, old_names, _ = (f"{seen or ''}|||").split("|")[:4]
        listed = gr.update()
        if old_names != _digest(*names):
            listed = gr.update(choices=names, value=name)
        is_new = old_gallery != gallery
        table = self._table(name) if is_new else gr.update()
        pictures = self._pictures(name) if is_new else gr.update()
        report = self._report(name) if is_new else gr.update()
        return [token, listed, live, table, pictures, report]

    # Reading

    def form(self, values: dict[Any, Any]) -> StudyForm:
        """The controls' values as one form."""
        method = widgets.method_by_label(values[self.method])
        known = payload_choices(self.desk.payload_dir())
        chosen = values[self.payloads] or ()
        n_models = methods().get(method.id).min_models
        return StudyForm(
            name=str(values[self.name] or "") or time.strftime("study-%Y%m%d-%H%M%S"),
            method=method.id,
            models=tuple(str(values[box] or "") for box in self.singles[:n_models]),
            payloads=tuple(known[name] for name in chosen if name in known),
            n_trials=int(values[self.n_trials] or 0),
            n_seeds=int(values[self.n_seeds] or 0),
            seed=int(values[self.seed] or 0),
            sampler=SAMPLERS[values[self.sampler]],
            tally=str(values[self.tally]),
            scorer=scorer_labels().get(values[self.scorer] or "", ""),
            scorer_weights=str(values[self.weights_file] or ""),
            groups=tuple(values[self.groups] or ()),
            limits=str(values[self.limits] or ""),
            is_saved=bool(values[self.is_saved]),
        )

    def _named(self, name: str | None) -> str:
        if not name:
            raise InputError("No study is chosen; start one or choose one.")
        return name

    # Showing

    def _live(self, name: str | None) -> str:
        if name is None:
            hint = markup.note("No study yet; set one up and press Start.")
            return hint + self._job()
        try:
            if self.desk.is_current(name):
                shown = study_view.live(self.desk.snapshot(), self.desk.failure())
            else:
                study = self.desk.study(name)
                shown = study_view.live(study_view.from_disk(study), "")
        except MergeError as fault:
            shown = markup.errors([str(fault)])
        return shown + self._job()

    def _job(self) -> str:
        job = self.workspace.merging.job
        is_ours = job is not None and job.title == SAVE_BEST
        return markup.job(job.view()) if job is not None and is_ours else ""

    def _gallery_key(self, name: str | None) -> str:
        if name is None:
            return "none"
        try:
            study = self.desk.study(name)
        except MergeError:
            return "none"
        has_result = study.result_path.exists()
        return f"{name}:{len(study.records())}:{has_result}"

    def _table(self, name: str | None) -> str:
        if name is None:
            return ""
        try:
            study = self.desk.study(name)
        except MergeError as fault:
            return markup.errors([str(fault)])
        result = study.result()
        final = study_view.result_table(result) if result else ""
        return final + study_view.trial_table(study.records())

    def _report(self, name: str | None) -> Any:
        try:
            path = self.desk.study(name or "").report_path
        except MergeError:
            return gr.update(visible=False)
        if not path.is_file():
            return gr.update(visible=False)
        return gr.update(value=str(path), visible=True)

    def _pictures(self, name: str | None) -> list[Any]:
        from PIL import Image

        try:
            study = self.desk.study(name or "")
        except MergeError:
            return []
        best = study.best()
        if best is None:
            return []
        shown = []
        for image in best.images[:N_GALLERY]:
            path = study.trial_dir(best.number) / image.file
            if path.exists():
                with Image.open(path) as picture:
                    caption = f"{image.payload}: {image.score:.4f}"
                    shown.append((picture.convert("RGB"), caption))
        return shown


def _digest(*parts: str) -> str:
    return f"{zlib.crc32(chr(0).join(parts).encode()):08x}"


def build(workspace: Workspace) -> StudyPage:
    """Build the page inside the current Blocks."""
    return StudyPage(workspace)
