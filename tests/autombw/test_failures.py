"""What goes wrong in a night: every accident is kept, none is a low score."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib_merge.autombw import _files
from lib_merge.autombw._lock import StudyLock
from lib_merge.autombw.records import COMPLETE, FAILED, INTERRUPTED
from lib_merge.autombw.runner import StudyRunner
from lib_merge.autombw.study import Study, open_study
from lib_merge.errors import (
    Cancelled,
    DiskFullError,
    MemoryLimitError,
    NonFiniteError,
    ScorerError,
    StudyError,
)
from tests.support.fake_scorer import FakeScorer
from tests.support.fake_study_host import FakeStudyHost

Make = Callable[..., Study]
Run = Callable[[Study], StudyRunner]


def raising(fault: Exception, at: set[int]) -> Callable[[int], Any]:
    """Raises at some calls, by their number."""
    n_calls = 0

    def accident(_: int) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls in at:
            raise fault

    return accident


@pytest.mark.parametrize(
    "fault",
    [
        NonFiniteError("weights are NaN"),
        MemoryLimitError("out of memory"),
        RuntimeError("CUDA out of memory"),
        MemoryError(),
    ],
    ids=["nan-weights", "memory-limit", "cuda", "memory-error"],
)
def test_merge_that_fails_once_is_retried_and_scored(
    fault: Exception, make_study: Make, host: FakeStudyHost, run: Run
) -> None:
    """The failed attempt keeps its reason; the same point is tried once more."""
    study = make_study()
    host.merger.before_merge = raising(fault, {5})
    run(study)
    failed, again = [r for r in study.records() if r.slot == 4]
    assert (failed.state, failed.score) == (FAILED, None)
    assert type(fault).__name__ in failed.traceback
    assert failed.reason
    assert (again.state, again.attempt) == (COMPLETE, 1)
    assert again.point == failed.point
    assert study.result() is not None


def test_flat_picture_twice_fails_the_point_for_good(
    make_study: Make, host: FakeStudyHost, run: Run
) -> None:
    """A flat picture is never scored, and the search goes on with other points."""
    study = make_study(n_trials=6)
    host.renderer.is_flat = lambda n: n in (10, 13)
    run(study)
    flat = [r for r in study.records() if r.slot == 3]
    assert [r.state for r in flat] == [FAILED, FAILED]
    assert all("flat" in r.reason for r in flat)
    summary = study.summary()
    assert (summary.n_complete, summary.state) == (5, "complete")
    csv = (study.folder / "trials.csv").read_text()
    assert csv.count(",failed,,") == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_score_that_is_not_finite_fails_the_trial(
    value: float, make_study: Make, scorer: FakeScorer, run: Run
) -> None:
    """NaN from a scorer is no score."""
    study = make_study(n_trials=4)
    scorer.accident = lambda n: value if n == 2 else None
    run(study)
    failed = [r for r in study.records() if r.state == FAILED]
    assert len(failed) == 1
    assert "The scorer gave" in failed[0].reason


def test_scorer_that_raises_fails_the_trial_only(
    make_study: Make, scorer: FakeScorer, run: Run
) -> None:
    """The study goes on after a scorer's fault."""
    study = make_study(n_trials=4)
    scorer.accident = raising(ScorerError("no such token"), {2})
    run(study)
    assert [r.state for r in study.records()][:3] == [COMPLETE, FAILED, COMPLETE]
    assert study.summary().n_complete == 4


def test_study_stops_when_everything_fails(
    make_study: Make, host: FakeStudyHost, scorer: FakeScorer, run: Run
) -> None:
    """After max_failures in a row it stops, keeps everything and can be resumed."""
    study = make_study(max_failures=3)
    scorer.accident = raising(ScorerError("the scorer is gone"), set(range(3, 99)))
    with pytest.raises(StudyError, match=r"3 attempts failed .* the scorer is gone"):
        run(study)
    assert host.loader.loaded() == Path("users_own.safetensors")
    scorer.accident = None
    run(study)
    states = [r.state for r in study.records()]
    assert states.count(FAILED) == 3
    assert study.summary().state == "complete"


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the n-th durable write fail as on a full disk."""
    real = os.fsync

    def arrange(at: int) -> None:
        n_calls = 0

        def fsync(handle: int) -> None:
            nonlocal n_calls
            n_calls += 1
            if n_calls >= at:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(handle)

        monkeypatch.setattr(os, "fsync", fsync)

    return arrange


@pytest.mark.parametrize("at", [1, 6, 11, 12, 13, 17, 18, 19, 20, 24])
def test_full_disk_stops_cleanly_and_the_study_resumes(
    at: int,
    make_study: Make,
    host: FakeStudyHost,
    run: Run,
    full_disk: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever it strikes: DiskFullError, nothing torn, resumed to the same end."""
    twin = make_study(name="twin", n_trials=5)
    run(twin)
    study = make_study(n_trials=5)
    full_disk(at)
    with pytest.raises(DiskFullError, match="free some space and resume"):
        run(study)
    monkeypatch.undo()
    assert host.loader.loaded() == Path("users_own.safetensors")
    leftovers = [p for p in study.folder.rglob(".*") if p.is_file()]
    assert leftovers == []
    assert not any(r.state == FAILED for r in study.records())
    run(study)
    got = [(r.slot, r.point, r.score) for r in study.records() if r.is_complete]
    want = [(r.slot, r.point, r.score) for r in twin.records()]
    assert sorted(got, key=lambda r: r[0]) == want


def test_trial_is_not_begun_when_the_disk_is_nearly_full(
    make_study: Make, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The room is checked ahead of every trial."""
    import shutil

    usage = shutil.disk_usage("/")._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    study = make_study()
    with pytest.raises(DiskFullError, match="1 MiB left"):
        run(study)
    assert study.records() == ()


def test_second_runner_of_a_locked_study_is_refused(make_study: Make, run: Run) -> None:
    """The lock of another process (here: another open file) counts."""
    study = make_study()
    with (
        StudyLock(study.lock_path, "fake"),
        pytest.raises(StudyError, match="run by another process"),
    ):
        run(study)
    run(study)
    assert study.summary().state == "complete"


def test_second_study_in_one_process_is_refused(
    make_study: Make, host: FakeStudyHost, scorer: FakeScorer, run: Run
) -> None:
    """A process has one model in memory."""
    first = StudyRunner(host, make_study(), scorer, merger=host.merger)
    host.renderer.delay_s = 0.05
    first.start()
    wait_until(lambda: first.snapshot().image > 0)
    with pytest.raises(StudyError, match="another study runs in this process"):
        run(make_study(name="second"))
    first.stop()
    assert first.wait(10)
    assert first.snapshot().state == "stopped"


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait up to ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_host_interrupt_stops_the_study_and_keeps_it(
    make_study: Make, host: FakeStudyHost, run: Run
) -> None:
    """The user's Interrupt in the host stops the study, which can be resumed."""
    study = make_study()
    host.renderer.before_render = raising(Cancelled("Interrupted in the host."), {4})
    runner = run(study)
    assert runner.snapshot().state == "stopped"
    states = [r.state for r in study.records()]
    assert states.count(INTERRUPTED) == 1
    assert host.loader.loaded() == Path("users_own.safetensors")
    run(study)
    assert study.summary().state == "complete"


def test_model_switched_by_the_user_is_merged_again(
    make_study: Make, host: FakeStudyHost, run: Run
) -> None:
    """A switch ahead of a picture, or under it, changes no score; it is put back."""
    twin = make_study(name="twin")
    run(twin)
    study = make_study()
    chosen = Path("users_other.safetensors")
    start = host.renderer.n_rendered
    host.renderer.after_render = lambda n: n == start + 9 and host.loader.load(chosen)
    run(study)
    assert [r.score for r in study.records()] == [r.score for r in twin.records()]
    assert host.loader.loaded() == chosen
    assert host.loader.weights is None


def test_pause_gives_the_model_back_and_goes_on(
    make_study: Make, host: FakeStudyHost, scorer: FakeScorer, run: Run
) -> None:
    """Paused, the user's own model is loaded; afterwards scores are as without."""
    twin = make_study(name="twin")
    run(twin)
    study = make_study()
    runner = StudyRunner(host, study, scorer, merger=host.merger)
    host.renderer.delay_s = 0.01
    runner.start()
    wait_until(lambda: runner.snapshot().trial >= 2)
    runner.pause()
    wait_until(lambda: runner.snapshot().state == "paused")
    assert host.loader.loaded() == Path("users_own.safetensors")
    assert host.loader.weights is None
    assert host.renderer.lock.acquire(timeout=1)
    host.renderer.lock.release()
    runner.resume()
    assert runner.wait(20)
    assert runner.error is None
    assert [r.score for r in study.records()] == [r.score for r in twin.records()]


def test_stop_while_paused_ends_the_thread(
    make_study: Make, host: FakeStudyHost, scorer: FakeScorer
) -> None:
    """Stopping needs no resuming first."""
    runner = StudyRunner(host, make_study(), scorer, merger=host.merger)
    host.renderer.delay_s = 0.01
    runner.start()
    wait_until(lambda: runner.snapshot().image > 0)
    runner.pause()
    wait_until(lambda: runner.snapshot().state == "paused")
    runner.stop(at_once=True)
    assert runner.wait(10)
    assert runner.snapshot().state == "stopped"
    assert host.jobs.n_interrupts == 1
    assert threading.active_count() < 20


def test_listener_that_shows_nothing_new_does_not_end_the_night(
    make_study: Make, host: FakeStudyHost, scorer: FakeScorer
) -> None:
    """A display that fails is logged, and the study goes on."""
    study = make_study(n_trials=3)

    def listener(_: object) -> None:
        raise RuntimeError("the browser is gone")

    StudyRunner(host, study, scorer, merger=host.merger, listener=listener).run()
    assert study.summary().state == "complete"


def test_scorer_is_closed_and_lock_freed_after_a_fault(
    make_study: Make, scorer: FakeScorer, host: FakeStudyHost, run: Run
) -> None:
    """Whatever ends a study, the scorer's memory and the lock are given back."""
    study = make_study(max_failures=1)
    host.merger.before_merge = raising(RuntimeError("boom"), {1})
    with pytest.raises(StudyError, match="boom"):
        run(study)
    assert scorer.n_closed == 1
    assert not open_study(study.folder).is_running()
    assert _files.is_disk_full(OSError(errno.ENOSPC, ""))


def test_file_is_written_with_the_users_usual_rights(tmp_path: Path) -> None:
    """A report must be readable by whoever may read the user's other files."""
    plain, written = tmp_path / "plain", tmp_path / "written"
    plain.write_bytes(b"x")
    _files.write_bytes(written, b"x")
    assert written.stat().st_mode == plain.stat().st_mode


def test_leftovers_of_a_kill_are_removed_and_nothing_else(tmp_path: Path) -> None:
    """Only temporary files of ours, at any depth."""
    (tmp_path / "trials" / "0003").mkdir(parents=True)
    left = tmp_path / "trials" / "0003" / ".p00_s0.png.0a1b2c3d.mergelab-part"
    users = tmp_path / ".notes.txt"
    for path in (left, users):
        path.write_text("x")
    _files.remove_leftovers(tmp_path)
    assert not left.exists()
    assert users.exists()
