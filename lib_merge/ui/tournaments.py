"""The tournaments of one host: planned, run study by study, shown."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.errors import InputError, MergeError
from lib_merge.ui import markup
from lib_merge.ui.jobs import describe_bug

if TYPE_CHECKING:
    from lib_merge.autombw.settings import StudySettings
    from lib_merge.autombw.tournament import Tournament
    from lib_merge.ui.studies import StudyDesk

_log = logging.getLogger(__name__)

_TOLD = (
    *("payloads", "held_out_payloads", "scorer", "scorer_weights", "scoring"),
    *("tally", "sampler", "n_trials", "seed", "n_seeds", "n_held_out", "n_finalists"),
    *("compute_dtype", "save_dtype", "max_failures", "on_non_finite"),
    *("pruning", "stopping", "fidelity", "diversity"),
)
"""What the set-up of a study says for every node, whatever is merged there."""

_SPACE = ("ranges", "axes", "methods")
"""What it says for pairs alone."""


class TournamentDesk:
    """Plans, starts and shows tournaments; shared by all open pages.

    Args:
        desk: Runs their studies, so that the page shows them live.
    """

    def __init__(self, desk: StudyDesk) -> None:
        self._desk = desk
        self._thread: threading.Thread | None = None
        self._current: Tournament | None = None
        self._message = ""
        self._fault = ""

    @property
    def is_running(self) -> bool:
        """Whether this process runs one."""
        return self._thread is not None and self._thread.is_alive()

    def names(self) -> list[str]:
        """Every tournament."""
        from lib_merge.autombw.tournaments import list_tournaments

        return [t.name for t in list_tournaments(self._desk.data_dir())]

    def plan(self, settings: StudySettings, models: Sequence[str], kind: str) -> str:
        """What a tournament would do, as HTML; nothing is written.

        Raises:
            MergeError: What is wrong with models or settings.
        """
        from lib_merge.autombw.tournaments import (
            check_tournament,
            lines,
            plan_tournament,
        )

        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "tournaments" / "plan"
            found = plan_tournament(
                place,
                settings.name,
                models,
                **_options(settings, kind),
                folders=(),
            )
            n_nodes = sum(len(one.nodes) for one in found.rounds())
            words = (
                f"{markup.count(n_nodes, 'study').replace('studys', 'studies')} of at "
                f"most {settings.n_trials} trials each. 'Check and time' tells what a "
                "trial takes."
            )
            return markup.notes([*lines(found), *check_tournament(found), words])

    def start(self, settings: StudySettings, models: Sequence[str], kind: str) -> None:
        """Make a tournament and run it.

        Raises:
            InputError: Something else is using the loaded model.
            MergeError: What is wrong with models or settings.
        """
        from lib_merge.autombw.tournaments import check_tournament, create_tournament

        self._desk.check_free()
        made = create_tournament(
            self._desk.data_dir(),
            settings.name,
            models,
            **_options(settings, kind),
        )
        try:
            check_tournament(made)
        except BaseException:
            (made.folder / "tournament.json").unlink()
            raise
        self._run(made)

    def resume(self, name: str) -> None:
        """Go on with a tournament.

        Raises:
            InputError: Something else is using the loaded model.
            StudyError: There is none of this name.
        """
        from lib_merge.autombw.tournaments import find_tournament

        self._desk.check_free()
        self._run(find_tournament(self._desk.data_dir(), name))

    def show(self, name: str | None) -> str:
        """A tournament's plan, and how far it is; "" where there is none."""
        from lib_merge.autombw.tournaments import find_tournament, lines

        found = self._current
        if name and (found is None or found.name != name):
            try:
                folder = self._desk.data_dir()
                found = find_tournament(folder, name)
            except MergeError as fault:
                return markup.errors([str(fault)])
        if found is None:
            return ""
        state = "running" if found.is_running() else "not running"
        title = f'<div class="merge-heading">Tournament {markup.text(found.name)} '
        said = ""
        if found is self._current and not self.is_running:
            said = markup.errors(self._fault.splitlines()) if self._fault else ""
            said = said or (markup.success(self._message) if self._message else "")
        shown = markup.lines(lines(found))
        return f'{title}({state})</div>{said}<div class="merge-note">{shown}</div>'

    def _run(self, tournament: Tournament) -> None:
        self._current = tournament
        self._message = self._fault = ""
        self._desk.reserved_by = f"tournament '{tournament.name}'"

        def work() -> None:
            try:
                result = tournament.run(self._desk.run_and_wait)
                self._message = "Stopped; press Resume beside it to go on."
                if result is not None:
                    output = tournament.last().output
                    self._message = f"Done: the last winner is {output}."
                    self._desk.host.catalog.register(output)
            except MergeError as fault:
                self._fault = str(fault)
            except Exception as fault:
                # The edge of a thread: nobody above could tell the user.
                _log.exception("Tournament '%s' ended.", tournament.name)
                self._fault = describe_bug(fault)
            finally:
                self._desk.reserved_by = ""

        name = f"tournament-{tournament.name}"
        self._thread = threading.Thread(target=work, name=name, daemon=True)
        self._thread.start()


def _options(settings: StudySettings, kind: str) -> dict[str, Any]:
    """What a tournament is told, out of a study's settings."""
    from lib_merge.autombw.tournament import KINDS, TREE

    if kind not in KINDS:
        raise InputError(f"A tournament is a tree or a pool, not '{kind}'.")
    names = (*_TOLD, *_SPACE) if kind == TREE else _TOLD
    told = {name: getattr(settings, name) for name in names}
    return {
        "kind": kind,
        "method": settings.method,
        "payloads": settings.payloads,
        "adapt": lambda node: replace(node, **told),
    }
