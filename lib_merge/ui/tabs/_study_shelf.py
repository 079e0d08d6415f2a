"""What the AutoMBW page does with whole studies: clone, compare, import, delete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from lib_merge.errors import InputError
from lib_merge.ui import compat, markup, study_panels
from lib_merge.ui.guard import guarded
from lib_merge.ui.study_choices import NO_STUDY
from lib_merge.ui.study_import import import_files
from lib_merge.ui.tabs._study_reading import named, paths_of
from lib_merge.ui.tabs._study_watch import StudyWatch


class StudyShelf:
    """The buttons below the list of studies.

    Args:
        watch: The controls, and the study that is chosen.
    """

    def __init__(self, watch: StudyWatch) -> None:
        self._watch = watch
        self._desk = watch.desk
        self._host = watch.workspace.host
        bind, told = compat.handle, watch.told
        changed = [told, watch.study]
        bind(watch.clone.click, self.on_clone, [watch.study, watch.new_name], changed)
        bind(watch.extend.click, self.on_extend, [watch.study, watch.more], told)
        bind(watch.compare.click, self.on_compare, [watch.study, watch.other], told)
        bind(watch.write_report.click, self.on_report, watch.study, told)
        bind(watch.dashboard.click, self.on_dashboard, watch.study, told)
        sure = [watch.study, watch.is_sure]
        bind(watch.delete.click, self.on_delete, sure, [*changed, watch.is_sure])
        bind(watch.old_files.upload, self.on_import, watch.old_files, changed)

    # Handlers: each returns at once

    def on_clone(self, name: str | None, new_name: str | None) -> list[Any]:
        """A new study with the chosen one's settings."""
        from lib_merge.autombw.manage import clone_study

        def clone() -> None:
            if not (new_name or "").strip():
                raise InputError("The clone has no name; type one.")
            study = self._desk.study(named(name))
            folder = self._desk.data_dir()
            clone_study(folder, study, str(new_name).strip())

        words = f"Cloned {name} as {new_name}; press Resume to run it."
        return self._changed(clone, words, str(new_name or "").strip())

    def on_extend(self, name: str | None, n_trials: float | None) -> str:
        """Raise the number of trials."""
        from lib_merge.autombw.study import extend_study

        def extend() -> None:
            extend_study(self._desk.study(named(name)), int(n_trials or 0))

        words = f"{name} has {int(n_trials or 0)} trials now; press Resume to go on."
        return guarded(extend) or markup.success(words)

    def on_compare(self, name: str | None, other: str | None) -> str:
        """Hold two studies against each other."""
        from lib_merge.autombw.manage import compare_studies

        shown: list[str] = []

        def compare() -> None:
            if not other or other == NO_STUDY:
                raise InputError("No other study is chosen; choose it beside.")
            first, second = self._desk.study(named(name)), self._desk.study(other)
            shown.append(study_panels.comparison(compare_studies(first, second)))

        return guarded(compare) or shown[0]

    def on_report(self, name: str | None) -> str:
        """Write the report of what is there by now."""
        from lib_merge.autombw.report import write_report

        def write() -> None:
            write_report(self._desk.study(named(name)).folder)

        return guarded(write) or markup.success("The report is above, as a file.")

    def on_dashboard(self, name: str | None) -> str:
        """Serve Optuna's dashboard on the study's storage."""
        addresses: list[str] = []

        def serve() -> None:
            addresses.append(self._desk.dashboard(named(name)))

        return guarded(serve) or markup.link(
            "Optuna's dashboard is at", addresses[0], addresses[0]
        )

    def on_delete(self, name: str | None, is_sure: bool | None) -> list[Any]:
        """Delete the chosen study."""
        from lib_merge.autombw.manage import delete_study

        def delete() -> None:
            if not is_sure:
                raise InputError("Tick 'Delete it with all its pictures' first.")
            delete_study(self._desk.study(named(name)))
            self._desk.forget(named(name))

        found = self._changed(delete, f"Deleted {name}.", None)
        return [*found, gr.update(value=False)]

    def on_import(self, files: Any) -> list[Any]:
        """Keep AutoMBW's runs as finished studies."""
        lines: list[str] = []
        names: list[str] = []

        def keep() -> None:
            for name, line in import_files(self._host, paths_of(files)):
                names.append(name)
                lines.append(line)

        found = self._changed(keep, "", None)
        if lines and not found[0].startswith('<div class="merge-note merge-bad'):
            found[0] = markup.notes(lines)
            found[1] = gr.update(choices=self._desk.names(), value=names[-1])
        return found

    def _changed(
        self, action: Callable[[], Any], words: str, name: str | None
    ) -> list[Any]:
        """What to say, and the list of studies with one of them chosen."""
        message = guarded(action)
        if message:
            return [message, gr.update()]
        names = self._desk.names()
        chosen = name if name in names else (names[0] if names else None)
        return [markup.success(words), gr.update(choices=names, value=chosen)]
