"""The AutoMBW page: set up a study, watch it, keep what it found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from lib_merge.errors import InputError, MergeError
from lib_merge.ui import compat, markup, widgets
from lib_merge.ui import study_choices as offers
from lib_merge.ui.form import architecture_of, titles_of
from lib_merge.ui.guard import guarded
from lib_merge.ui.study_form import (
    StudyForm,
    payload_notes,
    settings_of,
    study_outlook,
)
from lib_merge.ui.study_judges import scorer_note
from lib_merge.ui.study_payloads import keep_files, keep_infotext, keep_txt2img
from lib_merge.ui.study_space import groups_of
from lib_merge.ui.tabs._study_controls import N_SINGLE, StudyControls
from lib_merge.ui.tabs._study_kinds import Opening
from lib_merge.ui.tabs._study_reading import form_of, paths_of, scorers_of
from lib_merge.ui.tabs._study_shelf import StudyShelf
from lib_merge.ui.tabs._study_tools import StudyTools
from lib_merge.ui.tabs._study_tournament import StudyTournament
from lib_merge.ui.tabs._study_watch import CHECK, StudyWatch
from lib_merge.ui.tabs.merge import MergePage
from lib_merge.ui.workspace import Workspace

TXT2IMG = "(text, chosen) => [window.mergeTxt2img ? window.mergeTxt2img() : '', chosen]"
"""Puts the txt2img page's settings in the place of the typed text."""


class StudyPage(StudyControls):
    """The page: its controls and what they do.

    Args:
        workspace: Jobs and host, shared by all open pages.
        merging: The Merge page, for its sliders.
    """

    def __init__(self, workspace: Workspace, merging: MergePage) -> None:
        self.workspace = workspace
        self.desk = workspace.studies
        opening = self._opened()
        super().__init__(opening)
        self.watch = StudyWatch(workspace, opening)
        with gr.Row(elem_id="merge-mbw-columns"):
            with gr.Column(scale=2, min_width=400):
                self.build()
            with gr.Column(scale=3, min_width=520):
                self.watch.build()
        self.watch.show_first()
        first = {control: control.value for control in self.inputs}
        self.outlook.value = self.on_change(first)
        self._wire()
        self.watch.wire([self.start_study])
        self.tools = StudyTools(self, merging)
        self.shelf = StudyShelf(self.watch)
        self.tournament = StudyTournament(self)

    def _opened(self) -> Opening:
        entries = titles_of(self.workspace.host.catalog.checkpoints())
        return Opening(
            titles=tuple(entries),
            payload_dir=self.desk.payload_dir(),
            studies=tuple(self.desk.names()),
            study=self.desk.current_name(),
            groups=tuple(self._groups(next(iter(entries), ""))),
            tournaments=tuple(self.workspace.tournaments.names()),
            storage=self.workspace.preferences.current.storage_url,
        )

    # Wiring

    def _wire(self) -> None:
        bind, watch = compat.handle, self.watch
        shown = [*self.singles, self.method_note, self.outlook]
        bind(self.method.change, self.on_method, self.inputs, shown)
        for control, handler, also in (
            (self.singles[0], self.on_first, self.groups),
            (self.scorers, self.on_scorers, self.scorer_note),
            (self.sampler, self.on_sampler, self.sampler_note),
        ):
            bind(control.change, handler, self.inputs, [also, self.outlook])
        own = {self.method, self.singles[0], self.scorers, self.sampler}
        typed = {c for c in self.inputs if isinstance(c, (gr.Textbox, gr.Number))}
        for control in self.inputs - own - typed:
            bind(control.change, self.on_change, self.inputs, self.outlook)
        bind(watch.replan.click, self.on_change, self.inputs, self.outlook)
        chosen = [self.upload, self.payloads]
        both = [self.payloads, self.held_out_payloads, watch.message]
        bind(self.upload.upload, self.on_upload, chosen, both)
        typed_in = [self.infotext, self.payloads]
        bind(self.take_infotext.click, self.on_infotext, typed_in, both)
        bind(self.take_txt2img.click, self.on_txt2img, typed_in, both, js=TXT2IMG)
        started = [watch.message, watch.study]
        bind(self.start.click, self.on_start, self.inputs, started)
        bind(self.join.click, self.on_join, self.inputs, started)
        bind(self.check.click, self.on_check, self.inputs, watch.message)

    # Handlers of the set-up: each returns at once

    def on_method(self, values: dict[Any, Any]) -> list[Any]:
        """Another method: the models that it takes, and what of it is searched."""
        method = widgets.method_by_label(values[self.method])
        shown = [gr.update(**widgets.input_options(method, i)) for i in range(N_SINGLE)]
        note = markup.hints([offers.method_note(method)])
        return [*shown, note, self.on_change(values)]

    def on_first(self, values: dict[Any, Any]) -> list[Any]:
        """Another first model: the groups of blocks that its architecture has."""
        groups = self._groups(str(values[self.singles[0]] or ""))
        before = [g for g in values[self.groups] or () if g in groups]
        missing = [g for g in groups if g not in before]
        kept = before if before and len(missing) < len(groups) else groups
        values[self.groups] = kept
        return [gr.update(choices=groups, value=kept), self.on_change(values)]

    def on_scorers(self, values: dict[Any, Any]) -> list[Any]:
        """Other scorers: what they need."""
        return [scorer_note(scorers_of(self, values)), self.on_change(values)]

    def on_sampler(self, values: dict[Any, Any]) -> list[Any]:
        """Another sampler: when to take it."""
        words = offers.SAMPLER_HELP.get(str(values[self.sampler]), "")
        return [markup.hints([words]), self.on_change(values)]

    def on_change(self, values: dict[Any, Any]) -> str:
        """Anything else changed: say what the study would do."""
        shown: list[str] = []

        def describe() -> None:
            form = self.form(values)
            if "" in form.models or not form.payloads:
                shown.append(markup.note("Choose models and payloads."))
                return
            found = self.settings(form, is_noted=False)
            notes = payload_notes(form.payloads)
            shown.append(markup.note(study_outlook(found)) + markup.hints(notes))

        return guarded(describe) or shown[0]

    def on_upload(self, files: Any, chosen: list[str] | None) -> list[Any]:
        """Keep uploaded payload files and choose them."""
        return self._added(lambda folder: keep_files(folder, paths_of(files)), chosen)

    def on_infotext(self, text: str | None, chosen: list[str] | None) -> list[Any]:
        """Keep generation data as a payload and choose it."""
        return self._added(lambda folder: [keep_infotext(folder, text or "")], chosen)

    def on_txt2img(self, values: str | None, chosen: list[str] | None) -> list[Any]:
        """Keep the WebUI's txt2img settings as a payload and choose it."""
        return self._added(lambda folder: [keep_txt2img(folder, values or "")], chosen)

    def _added(
        self, add: Callable[[Path], list[Path]], chosen: list[str] | None
    ) -> list[Any]:
        kept: list[Path] = []
        folder = self.desk.payload_dir()
        message = guarded(lambda: kept.extend(add(folder)))
        choices = list(offers.payload_choices(folder))
        value = [*(chosen or []), *(path.name for path in kept)]
        unique = [name for name in dict.fromkeys(value) if name in choices]
        listed = gr.update(choices=choices)
        return [gr.update(choices=choices, value=unique), listed, message]

    def on_start(self, values: dict[Any, Any]) -> list[Any]:
        """Create a study and run it in the background."""

        def start() -> None:
            settings = self.settings(self.form(values))
            self.desk.start(settings, str(values[self.storage] or ""))

        return self._started(start)

    def on_join(self, values: dict[Any, Any]) -> list[Any]:
        """Work on a study that others share."""
        storage, name = str(values[self.storage] or ""), str(values[self.name] or "")

        def join() -> None:
            if not storage.strip():
                raise InputError("No storage is named; type its address above.")
            self.desk.join(storage, name)

        return self._started(join)

    def _started(self, action: Callable[[], Any]) -> list[Any]:
        message = guarded(action)
        if message:
            return [message, gr.update()]
        study = gr.update(choices=self.desk.names(), value=self.desk.current_name())
        return ["", study]

    def on_check(self, values: dict[Any, Any]) -> str:
        """Check everything and time one picture, before anything is started."""

        def check() -> None:
            settings = self.settings(self.form(values))
            self.workspace.check_study(CHECK, settings)

        return guarded(check)

    # Reading

    def form(self, values: dict[Any, Any]) -> StudyForm:
        """The controls' values as one form.

        Raises:
            InputError: What stands where a number belongs is none.
        """
        return form_of(self, values, self.desk.payload_dir())

    def settings(self, form: StudyForm, *, is_noted: bool = True) -> Any:
        return settings_of(
            form,
            self.workspace.host,
            find_study=self.desk.study,
            is_noted=is_noted,
        )

    def _groups(self, title: str) -> list[str]:
        entries = titles_of(self.workspace.host.catalog.checkpoints())
        if title not in entries:
            return list(offers.GROUPS)
        try:
            return groups_of(architecture_of(entries[title].path))
        except MergeError:
            return list(offers.GROUPS)


def build(workspace: Workspace, merging: MergePage) -> StudyPage:
    """Build the page inside the current Blocks."""
    return StudyPage(workspace, merging)
