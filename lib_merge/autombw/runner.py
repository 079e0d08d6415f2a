"""The runner: ask, merge, render, score, store, tell; and leave everything as found."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from lib_merge.autombw import snapshot as states
from lib_merge.autombw._board import Board, Listener
from lib_merge.autombw._control import Control
from lib_merge.autombw._lock import StudyLock
from lib_merge.autombw._scorer_progress import ScorerProgress
from lib_merge.autombw._trials import TrialLoop
from lib_merge.autombw.crew import Crew
from lib_merge.autombw.estimate import Estimate, time_picture
from lib_merge.autombw.finals import Finals
from lib_merge.autombw.manage import check_own
from lib_merge.autombw.objective import LivePoint, Merger, Objective
from lib_merge.autombw.panel import Panel, find_scorer
from lib_merge.autombw.payload_report import host_notes
from lib_merge.autombw.presence import new_worker_id
from lib_merge.autombw.rescoring import ScoreKeeper
from lib_merge.autombw.results import StudyResult
from lib_merge.autombw.snapshot import Snapshot
from lib_merge.autombw.study import Study
from lib_merge.core.ports import Host, Progress, Scorer
from lib_merge.core.recipe import Recipe
from lib_merge.errors import Cancelled, StudyError

_log = logging.getLogger(__name__)

_ONE_RUN = threading.Lock()
"""A process has one model in memory, so it runs one study at a time."""

MODEL_CACHE_BYTES = 1 << 30
"""Model values kept in memory between trials; what does not fit is read again, which
the system's own file cache serves."""


class StudyRunner:
    """Runs or resumes one study.

    Args:
        host: Where it renders.
        study: A created or opened study.
        scorer: How pictures are judged; by default the registered one that the
            settings name.
        merger: How points are written into the loaded model; by default
            `engine.live.LiveMerger` on the host's loader.
        listener: Called with every new snapshot, in the runner's thread.
        is_helper: Whether it joins a study that another worker may be running now.
        is_timed: Whether a picture is timed before the first trial, so that a new
            study says how long it will take.
    """

    def __init__(
        self,
        host: Host,
        study: Study,
        scorer: Scorer | None = None,
        *,
        merger: Merger | None = None,
        listener: Listener | None = None,
        is_helper: bool = False,
        is_timed: bool = False,
        scorer_device: str | None = None,
    ) -> None:
        self.study = study
        self._worker = new_worker_id()
        self._is_helper = is_helper
        self._is_timed = is_timed
        self._scorer_device = scorer_device
        self.error: BaseException | None = None
        self._host = host
        self._scorer = scorer
        self._merger = merger
        self._said = study.live_path
        if is_helper:
            self._said = study.workers_dir / f"{self._worker}.json"
        self._board = Board(study, listener, path=self._said)
        self._control = Control()
        self._thread: threading.Thread | None = None

    # From any thread

    def snapshot(self) -> Snapshot:
        """What it is doing now."""
        return self._board.snapshot()

    def pause(self) -> None:
        """Wait after the picture that is being rendered; give the model back."""
        self._control.pause()

    def resume(self) -> None:
        """Go on after a pause."""
        self._control.resume()

    def stop(self, *, at_once: bool = False) -> None:
        """Stop after the picture that is being rendered; the study can be resumed.

        Args:
            at_once: Interrupt that picture too, through the host. Whatever else the
                host renders just then is interrupted with it.
        """
        self._control.stop()
        if at_once:
            self._host.jobs.interrupt()

    def start(self, progress: Progress | None = None) -> None:
        """Run in a thread of its own; see `wait`, `snapshot` and `error`."""

        def work() -> None:
            try:
                self.run(progress)
            except Exception as fault:
                self.error = fault
                _log.exception("Study '%s' ended.", self.study.settings.name)

        name = f"autombw-{self.study.settings.name}"
        self._thread = threading.Thread(target=work, name=name, daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread of `start` is still at work."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the thread of `start`; whether it has ended."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return not self.is_alive

    # The work

    def run(self, progress: Progress | None = None) -> StudyResult | None:
        """Run the study to its end, from wherever it stands.

        Returns:
            The result, or None when it was stopped (resume it by running again).

        Raises:
            StudyError: It runs elsewhere, or too many attempts failed in a row.
            DiskFullError: The disk is full; everything stored so far is whole.
            MergeError: The scorer could not be loaded, or what else was wrong before
                the first trial.
        """
        check_own(self.study.settings, "run")
        with ExitStack() as stack:
            stack.enter_context(self._only_run())
            if self._is_helper:
                self._said.parent.mkdir(parents=True, exist_ok=True)
                stack.callback(self._said.unlink, missing_ok=True)
            else:
                stack.enter_context(StudyLock(self.study.lock_path, self._name))
            return self._run_locked(progress)

    def time_one(self) -> Estimate:
        """Merge once and render one picture; what the whole study would take.

        Raises:
            StudyError: It, or another study of this process, is running.
            MergeError: Whatever merging, rendering or scoring raise.
        """
        with self._only_run(), StudyLock(self.study.lock_path, self._name):
            panel = self._panel()
            keeper = ScoreKeeper(self.study, panel.ranges)
            with self._open(panel, keeper) as (objective, _):
                self._board.begin_trial(1, "Timing one picture.")
                return time_picture(objective, self.study)

    @contextmanager
    def _only_run(self) -> Iterator[None]:
        if not _ONE_RUN.acquire(blocking=False):
            raise StudyError(
                f"Study '{self._name}' cannot start: another study runs in this "
                "process; stop it first, or wait until it ends."
            )
        try:
            yield
        finally:
            _ONE_RUN.release()

    @property
    def _name(self) -> str:
        return self.study.settings.name

    def _run_locked(self, progress: Progress | None) -> StudyResult | None:
        try:
            self._board.say(state=states.STARTING, message="Starting.")
            with Crew(self.study, self._worker) as crew:
                result = self._work(crew, progress)
        except Cancelled as stopped:
            self._board.say(state=states.STOPPED, message=str(stopped), eta_s=None)
            return None
        except BaseException as fault:
            text = str(fault) or type(fault).__name__
            self._board.say(state=states.FAILED, message=text, eta_s=None)
            raise
        self._board.show_search_again(states.COMPLETE, f"Winner: {result.winner}.")
        self._board.say(eta_s=0.0)
        return result

    def _work(self, crew: Crew, progress: Progress | None) -> StudyResult:
        study = self.study
        panel = self._panel()
        keeper = ScoreKeeper(study, panel.ranges)
        crew.sync()
        keeper.settle()
        keeper.correct()
        table = study.table()
        n_decided = len(table.decided())
        self._board.begin(progress, n_decided)
        self._board.show_slots(table)
        result = study.result()
        is_over = crew.ending() is not None or n_decided >= study.settings.n_trials
        if result is not None and is_over and not crew.others():
            return result
        with self._open(panel, keeper) as (objective, gate):
            if self._is_timed and not table.records():
                self._time_picture(objective)
            loop = TrialLoop(crew, table, objective, board=self._board, gate=gate)
            ending = loop.run()
            finals = Finals(crew, objective, board=self._board, gate=gate)
            return finals.run(ending, progress)

    def _time_picture(self, objective: Objective) -> None:
        self._board.say(message="Timing one picture.")
        found = time_picture(objective, self.study)
        self._board.say(message=found.sentence(), eta_s=found.total_s)

    @contextmanager
    def _open(
        self, panel: Panel, keeper: ScoreKeeper
    ) -> Iterator[tuple[Objective, Callable[[], None]]]:
        """Load the scorers, and put everything back at the end, whatever happens."""
        merger = self._merger or _CachingMerger(self._host)
        live = LivePoint(self._host, merger, self.study.settings)
        panel.progress = ScorerProgress(self._board, lambda: self._gate(live))
        try:
            self._tell_limits()
            self._board.say(message=f"Loading {panel.label}.")
            panel.warm_up()
            self._board.say(state=states.RUNNING, message="Searching.")
            objective = Objective(
                self._host,
                live,
                panel,
                keeper,
                gate=lambda: self._gate(live),
                on_image=self._board.show_image,
            )
            yield objective, lambda: self._gate(live)
        finally:
            with _logged_faults("The scorers could not be unloaded"):
                panel.unload()
            with _logged_faults("The earlier model could not be put back"):
                live.put_back()

    def _tell_limits(self) -> None:
        """Log what of the payloads this host cannot do."""
        settings = self.study.settings
        payloads = (*settings.payloads, *settings.held_out_payloads)
        asked = ((payload.name, payload.requests()) for payload in payloads)
        for note in host_notes(asked, self._host.renderer):
            _log.warning("%s", note)

    def _panel(self) -> Panel:
        judges = self.study.settings.judges
        given = self._scorer

        def find(scorer_id: str) -> Scorer:
            if given is not None and (len(judges) == 1 or given.id == scorer_id):
                return given
            return find_scorer(scorer_id)

        return Panel(
            judges,
            device=self._scorer_device or self._host.devices.device(),
            memory=self.study.settings.scoring.memory,
            home=self.study.folder,
            find=find,
        )

    def _gate(self, live: LivePoint) -> None:
        def on_pause() -> None:
            live.put_back()
            self._board.on_pause()

        self._board.check_progress()
        self._control.gate(on_pause=on_pause, on_go=self._board.on_go)


@contextmanager
def _logged_faults(what: str) -> Iterator[None]:
    """Let clean-up go on: a fault in it must not hide why the study ended."""
    try:
        yield
    except Exception:
        _log.exception("%s.", what)


class _CachingMerger:
    """`LiveMerger` that keeps models in memory between trials."""

    def __init__(self, host: Host) -> None:
        from lib_merge.engine.live import LiveMerger
        from lib_merge.engine.run import RunOptions

        self._merger = LiveMerger(host.loader)
        self._options = RunOptions(cache_bytes=MODEL_CACHE_BYTES)

    def merge(self, recipe: Recipe) -> object:
        """Write a recipe's result into the loaded model."""
        return self._merger.merge(recipe, options=self._options)

    def restore(self) -> None:
        """Bring the loaded file's own values back."""
        self._merger.restore()

    def recipe(self) -> Recipe | None:
        """What the loaded model holds by this merger."""
        return self._merger.recipe()
