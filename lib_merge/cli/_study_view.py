"""A study on a terminal: a line a trial, a table at the end; Ctrl-C stops politely."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from lib_merge.autombw.report import verdict
from lib_merge.autombw.results import Candidate, StudyResult
from lib_merge.autombw.snapshot import HELD_OUT, RUNNING, Snapshot
from lib_merge.autombw.study import Study
from lib_merge.cli._progress import format_seconds

if TYPE_CHECKING:
    from lib_merge.autombw.runner import StudyRunner


def settle_libraries() -> None:
    """Choose how libraries behave that read their settings when they are imported.

    Threads wait asleep: spinning ones make a busy machine crawl (measured: over 200 s
    instead of 13 s for the pictures of one demo trial). And transformers keeps to
    errors: without torchvision it warns at every load of things that change nothing.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


class TrialLines:
    """Prints one line for every decided trial and measured candidate."""

    def __init__(self) -> None:
        self._shown: tuple[str, int] | None = None
        self._n_failed = 0
        self._is_told = False

    def __call__(self, now: Snapshot) -> None:
        """Print what is new in a snapshot."""
        if now.message.startswith("One picture takes") and not self._is_told:
            self._is_told = True
            print(now.message, flush=True)
        if now.n_failed > self._n_failed:
            self._n_failed = now.n_failed
            print(f"  an attempt failed ({now.n_failed} so far); its reason is kept")
        if (now.state, now.trial) == self._shown or now.state not in (
            RUNNING,
            HELD_OUT,
        ):
            return
        is_first = self._shown is None or self._shown[0] != now.state
        self._shown = (now.state, now.trial)
        if is_first:
            self._open(now)
        elif now.state == RUNNING:
            print(_trial_line(now), flush=True)
        else:
            print(f"held-out {now.trial}/{now.n_trials}{_left(now)}", flush=True)

    def _open(self, now: Snapshot) -> None:
        if now.state == HELD_OUT:
            print(f"Scoring {now.n_trials} candidates on held-out seeds.", flush=True)
        elif now.trial:
            best = "" if now.best_score is None else f", best {now.best_score:.4f}"
            print(f"Going on after {now.trial} trials{best}.", flush=True)


def _trial_line(now: Snapshot) -> str:
    score = now.scores[-1] if now.scores else None
    shown = "failed" if score is None else f"{score:.4f}"
    best = ""
    if now.best_score is not None:
        best = f"  best {now.best_score:.4f} (trial {now.best_trial})"
    return f"trial {now.trial}/{now.n_trials}  score {shown}{best}{_left(now)}"


def _left(now: Snapshot) -> str:
    return "" if now.eta_s is None else f"  {format_seconds(now.eta_s)} left"


@contextmanager
def stopping_politely(runner: StudyRunner) -> Iterator[None]:
    """The first Ctrl-C stops the study between or within pictures; the next is rude."""

    def stop(number: int, frame: FrameType | None) -> None:
        print("\nStopping; the study is kept and can be resumed.", flush=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        runner.stop(at_once=True)

    try:
        before = signal.signal(signal.SIGINT, stop)
    except ValueError:
        # Only the main thread may choose; elsewhere whoever started us does.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def show_result(study: Study, result: StudyResult) -> None:
    """Print every candidate's held-out score as it is, and what it means."""
    n_images = len(result.best.images)
    print(f"\nHeld-out scores ({n_images} pictures each, seeds the search never saw):")
    width = max(len(c.label) for c in result.candidates) + 2
    print(f"  {'model':<{width}}{'score':>8}  {'error':>9}  {'in the search':>14}")
    for one in sorted(result.candidates, key=lambda c: -c.score):
        print(f"  {_row(one, width)}{'  <- winner' if one is result.best else ''}")
    print()
    for rival in result.differences:
        print(verdict(result, rival.rival))
    if result.ending:
        print(result.ending)
    if result.note:
        print(f"Note: {result.note}")
    print()
    if result.checkpoint:
        print(f"checkpoint  {_short(Path(result.checkpoint))}")
        print(f"            sha256 {result.checkpoint_sha256}")
    print(f"recipe      {_short(study.recipe_path)}")
    print(f"report      {_short(study.report_path)}")
    print(f"pictures    {_short(study.folder / 'trials')}")


def _row(one: Candidate, width: int) -> str:
    error = one.standard_error
    spread = "" if error is None else f"± {error:.4f}"
    search = "" if one.search_score is None else f"{one.search_score:.4f}"
    return f"{one.label:<{width}}{one.score:>8.4f}  {spread:>9}  {search:>14}"


def _short(path: Path) -> str:
    """Relative to the working folder where that is shorter."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)
