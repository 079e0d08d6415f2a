"""The AutoMBW page's tournament: many models become one, study after study."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_merge.errors import InputError
from lib_merge.ui import compat
from lib_merge.ui.form import titles_of
from lib_merge.ui.guard import guarded
from lib_merge.ui.study_choices import TOURNAMENTS

if TYPE_CHECKING:
    from lib_merge.ui.tabs.autombw import StudyPage


class StudyTournament:
    """What the tournament's buttons do.

    Args:
        page: The AutoMBW page, whose set-up every study of it has.
    """

    def __init__(self, page: StudyPage) -> None:
        self._page = page
        self._desk = page.workspace.tournaments
        watch, bind = page.watch, compat.handle
        told = [watch.message, watch.tournament]
        bind(page.plan_tournament.click, self.on_plan, page.inputs, watch.message)
        bind(page.start_tournament.click, self.on_start, page.inputs, told)
        bind(
            watch.resume_tournament.click,
            self.on_resume,
            watch.tournament,
            watch.message,
        )

    def on_plan(self, values: dict[Any, Any]) -> str:
        """What it would do."""
        shown: list[str] = []
        return (
            guarded(lambda: shown.append(self._desk.plan(*self._read(values))))
            or shown[0]
        )

    def on_start(self, values: dict[Any, Any]) -> list[Any]:
        """Run it."""
        message = guarded(lambda: self._desk.start(*self._read(values)))
        if message:
            return [message, gr.update()]
        names = self._desk.names()
        name = self._page.form(values).name
        chosen = name if name in names else (names[-1] if names else None)
        return ["", gr.update(choices=names, value=chosen)]

    def on_resume(self, name: str | None) -> str:
        """Go on with the chosen one."""

        def resume() -> None:
            if not name:
                raise InputError("No tournament is chosen; start one or choose one.")
            self._desk.resume(name)

        return guarded(resume)

    def _read(self, values: dict[Any, Any]) -> tuple[Any, list[str], str]:
        """Settings, model files and kind.

        Raises:
            InputError: Too few models, or one that is gone.
            MergeError: What is wrong with the set-up.
        """
        page = self._page
        titles = [str(title) for title in values[page.contestants] or ()]
        if len(titles) < 3:
            raise InputError("A tournament needs three models or more; choose them.")
        entries = titles_of(page.workspace.host.catalog.checkpoints())
        gone = [title for title in titles if title not in entries]
        if gone:
            raise InputError(f"{gone[0]} is no longer in the list; choose again.")
        form = page.form(values)
        # A study's own pair says nothing here; the first two stand for all.
        form = replace(form, models=(titles[0], titles[1]), is_saved=False)
        settings = page.settings(form)
        kind = TOURNAMENTS[str(values[page.tournament_kind])]
        return settings, [str(entries[title].path) for title in titles], kind
