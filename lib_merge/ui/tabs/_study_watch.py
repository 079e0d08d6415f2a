"""The AutoMBW page's live side: what runs, what a refresh brings, what one judges."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import gradio as gr

from lib_merge.errors import MergeError
from lib_merge.ui import compat, markup, study_panels, study_view
from lib_merge.ui import study_choices as offers
from lib_merge.ui.guard import guarded
from lib_merge.ui.study_folder import FolderState, folder_state
from lib_merge.ui.tabs._study_kinds import Opening
from lib_merge.ui.tabs._study_panels import WatchControls
from lib_merge.ui.tabs._study_reading import named, trial_of
from lib_merge.ui.workspace import Workspace

CHECK, SAVE_TRIAL, LOAD_TRIAL = offers.CHECK, offers.SAVE_TRIAL, offers.LOAD_TRIAL
TITLES = (CHECK, SAVE_TRIAL, LOAD_TRIAL)
"""Jobs that are shown on this page."""

N_GALLERY = 12
"""Pictures of a trial that are shown."""


class StudyWatch(WatchControls):
    """The controls beside the set-up, and what they do.

    Args:
        workspace: Jobs and host, shared by all open pages.
        opening: What they show first.
    """

    def __init__(self, workspace: Workspace, opening: Opening) -> None:
        super().__init__(opening)
        from lib_merge.autombw.scorers.person import DESK

        self.workspace = workspace
        self.desk = workspace.studies
        # Pictures are shown to a person here, who can be a scorer then.
        self._resting: tuple[str, FolderState, str] = ("", (), "")
        self._judge_desk = DESK
        DESK.open()

    def show_first(self) -> None:
        """What a freshly opened page shows at once."""
        self.live.value = self._live(self._opening.study)

    def wire(self, others: list[Any]) -> None:
        """Bind the handlers.

        Args:
            others: Lists of studies elsewhere on the page, which refresh, too.
        """
        bind = compat.handle
        bind(self.pause.click, self.on_pause, None, self.message)
        bind(self.stop.click, self.on_stop, None, self.message)
        bind(self.resume.click, self.on_resume, self.study, self.message)
        for button, choice in (
            (self.left, "left"),
            (self.equal, "equal"),
            (self.right, "right"),
        ):
            judged = [self.question, self.question_column]
            bind(button.click, self._answering(choice), self.seen, judged)
        self.polled = [self.seen, self.study, self.live, self.view, self.gallery]
        self.polled += [self.report, self.question, self.question_column, self.shelf]
        self.polled += [self.bracket, self.other, *others]
        asked = [self.seen, self.study, self.look, self.trial, self.tournament]
        for event in (self.poll.click, self.study.change, self.look.change):
            bind(event, self.on_poll, asked, self.polled)

    # Handlers of what runs

    def on_pause(self) -> str:
        """Wait after the picture that is being rendered."""
        return guarded(self.desk.pause)

    def on_stop(self) -> str:
        """Stop after the picture that is being rendered; everything is kept."""
        return guarded(self.desk.stop)

    def on_resume(self, name: str | None) -> str:
        """Go on with the chosen study."""
        return guarded(lambda: self.desk.resume(named(name)))

    def _answering(self, choice: str) -> Callable[[str | None], list[Any]]:
        def answer(seen: str | None) -> list[Any]:
            # The question that this page shows, not one that came up meanwhile.
            shown = (seen or "").split("|")[3:4]
            if shown and shown[0].isdigit():
                self._judge_desk.answer(int(shown[0]), choice)
            return ["", gr.update(visible=False)]

        return answer

    def on_poll(
        self,
        seen: str | None,
        name: str | None,
        look: str | None,
        trial: str | None,
        tournament: str | None,
    ) -> list[Any]:
        """What has changed since this page last asked; nothing when nothing has."""
        names = self.desk.names()
        if not seen or name not in names or self.desk.reserved_by:
            name = self.desk.current_name()
        live = self._live(name)
        asked = self._judge_desk.question()
        shelf = study_panels.shelf(self.desk.summaries())
        bracket = self.workspace.tournaments.show(tournament)
        keys = [
            _digest(live),
            _digest(name or "", look or "", trial or "", self._view_key(name)),
            _digest(*names),
            "" if asked is None else str(asked.number),
            _digest(shelf),
            _digest(bracket),
            name or "",
        ]
        old = (seen or "").split("|")
        if "|".join(keys) == seen:
            return [gr.update() for _ in self.polled]
        news = [i >= len(old) or old[i] != key for i, key in enumerate(keys)]
        is_other = news[2] or news[6]
        listed = gr.update(choices=names, value=name) if is_other else gr.update()
        others = gr.update(choices=[offers.NO_STUDY, *names])
        unchanged = [gr.update() for _ in range(3)]
        return [
            "|".join(keys),
            listed,
            live if news[0] else gr.update(),
            *(self._view(name, look, trial) if news[1] else unchanged),
            *(self._asked(asked) if news[3] else unchanged[:2]),
            shelf if news[4] else gr.update(),
            bracket if news[5] else gr.update(),
            *([others, others] if news[2] else unchanged[:2]),
        ]

    # Showing

    def _live(self, name: str | None) -> str:
        if name is None:
            hint = markup.note("No study yet; set one up and press Start.")
            return hint + self._job()
        try:
            shown = self._shown(name)
        except MergeError as fault:
            shown = markup.errors([str(fault)])
        return shown + self._job()

    def _shown(self, name: str) -> str:
        """The live view; of a study that rests it is made once."""
        state = folder_state(self.desk.study(name))
        is_resting = not self.desk.is_current(name)
        if is_resting and self._resting[:2] == (name, state):
            return self._resting[2]
        shown = study_view.current(self.desk, name)
        self._resting = (name, state, shown)
        return shown

    def _job(self) -> str:
        job = self.workspace.merging.job
        is_ours = job is not None and job.title in TITLES
        if job is not None and job.title == CHECK and self.desk.is_running:
            # What it will take is told by the study itself by now.
            return ""
        return markup.job(job.view()) if job is not None and is_ours else ""

    def _view_key(self, name: str | None) -> str:
        try:
            study = self.desk.study(name or "")
        except MergeError:
            return "none"
        if not self.desk.is_current(study.settings.name):
            return str(folder_state(study))
        now = self.desk.snapshot()
        written = (study.result_path, study.report_path)
        ends = [path.stat().st_mtime_ns for path in written if path.is_file()]
        return f"{now.trial}:{now.n_failed}:{now.state}:{ends}"

    def _view(self, name: str | None, look: str | None, trial: str | None) -> list[Any]:
        """The view, the gallery and the report."""
        try:
            study = self.desk.study(name or "")
            number = trial_of(trial or "")
            path = study.report_path
        except MergeError as fault:
            shown = markup.errors([str(fault)]) if name else ""
            hidden = gr.update(visible=False)
            return [shown, hidden, hidden]
        report = gr.update(value=str(path), visible=True)
        if not path.is_file():
            report = gr.update(visible=False)
        if look == offers.LOOKS[3]:
            pictures = study_panels.pictures(study, number, N_GALLERY)
            empty = "" if pictures else markup.empty("No picture yet.")
            return [empty, gr.update(value=pictures, visible=bool(pictures)), report]
        views = {
            offers.LOOKS[1]: study_panels.leaderboard,
            offers.LOOKS[2]: study_panels.axes,
        }
        shown = views.get(look or "", study_view.tables)(study)
        return [markup.scroll(shown, "Study"), gr.update(visible=False), report]

    def _asked(self, asked: Any) -> list[Any]:
        if asked is None:
            return ["", gr.update(visible=False)]
        return [study_panels.question(asked), gr.update(visible=True)]


def _digest(*parts: str) -> str:
    return f"{zlib.crc32(chr(0).join(parts).encode()):08x}"
