"""A study that was interrupted goes on exactly as if it had not been."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lib_merge.autombw.records import COMPLETE, KILLED
from lib_merge.autombw.runner import StudyRunner
from lib_merge.autombw.study import Study, create_study, open_study
from tests.support.fake_scorer import FakeScorer
from tests.support.fake_study_host import FakeStudyHost, fake_settings

ROOT = Path(__file__).parents[2]


class PowerCut(BaseException):
    """Ends a run without a word, as a kill does."""


def history(study: Study) -> list[tuple[int, dict[str, float], float | None]]:
    """What every slot came to."""
    records = open_study(study.folder).records()
    done = [(r.slot, r.point, r.score) for r in records if r.state == COMPLETE]
    return sorted(done, key=lambda entry: entry[0])


def run_with_cuts(
    study: Study, host: FakeStudyHost, cuts: list[int], *, scorer: FakeScorer
) -> int:
    """Run a study to its end, cutting the power ahead of some render calls."""
    n_cut = 0
    calls = 0

    def accident(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls in cuts:
            raise PowerCut

    host.renderer.before_render = accident
    while open_study(study.folder).result() is None:
        runner = StudyRunner(host, open_study(study.folder), scorer, merger=host.merger)
        try:
            runner.run()
        except PowerCut:
            n_cut += 1
    host.renderer.before_render = None
    return n_cut


@pytest.mark.parametrize("sampler", ["gp", "tpe", "cmaes", "random"])
def test_points_after_interruptions_equal_an_uninterrupted_run(
    sampler: str, tmp_path: Path, scorer: FakeScorer
) -> None:
    """Same points and scores in every slot, for each sampler, bit for bit."""
    host = FakeStudyHost(tmp_path)
    settings = fake_settings(sampler=sampler, n_trials=22, n_held_out=1)
    whole = create_study(tmp_path / "whole", settings)
    run_with_cuts(whole, host, [], scorer=scorer)
    cut = create_study(tmp_path / "cut", settings)
    n_cut = run_with_cuts(cut, host, [1, 4, 12, 13, 17, 21, 24], scorer=scorer)
    assert n_cut == 7
    assert history(cut) == history(whole)
    assert len(history(whole)) == 22


def test_lost_attempts_are_kept_as_killed_and_never_scored(
    make_study: Callable[..., Study], host: FakeStudyHost, scorer: FakeScorer
) -> None:
    """An attempt in flight has a record that says so, and its point is tried again."""
    study = make_study()
    run_with_cuts(study, host, [5], scorer=scorer)
    records = open_study(study.folder).records()
    lost = [r for r in records if r.state == KILLED]
    assert [r.slot for r in lost] == [4]
    assert lost[0].score is None
    again = [r for r in records if r.slot == 4 and r.state == COMPLETE]
    assert [r.point for r in again] == [lost[0].point]


def test_record_stored_before_the_kill_is_not_rendered_again(
    make_study: Callable[..., Study],
    host: FakeStudyHost,
    scorer: FakeScorer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kill between storing a record and telling the journal loses nothing."""
    from lib_merge.autombw.ledger import Ledger as Journal

    study = make_study(n_trials=4)
    complete = Journal.close

    def cut(self: Journal, number: int, **more: object) -> bool:
        if number == 2:
            raise PowerCut
        return complete(self, number, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "close", cut)
    with pytest.raises(PowerCut):
        StudyRunner(host, study, scorer, merger=host.merger).run()
    monkeypatch.setattr(Journal, "close", complete)
    assert host.renderer.n_rendered == 9
    run_with_cuts(study, host, [], scorer=scorer)
    records = open_study(study.folder).records()
    assert [r.number for r in records] == [0, 1, 2, 3]
    assert all(r.is_complete for r in records)


def test_torn_journal_line_is_dropped_when_resumed(
    make_study: Callable[..., Study], host: FakeStudyHost, scorer: FakeScorer
) -> None:
    """What a kill left of a line in the journal does not spoil later lines."""
    study = make_study(n_trials=6)
    with pytest.raises(PowerCut):
        _cut_once(study, host, scorer, at=3)
    with study.journal_path.open("ab") as file:
        file.write(b'{"op_code":5,"worker_id":"half a li')
    run_with_cuts(study, host, [], scorer=scorer)
    assert len(history(study)) == 6


def _cut_once(
    study: Study, host: FakeStudyHost, scorer: FakeScorer, *, at: int
) -> None:
    def accident(n_rendered: int) -> None:
        if n_rendered >= at * 3:
            raise PowerCut

    host.renderer.before_render = accident
    try:
        StudyRunner(host, study, scorer, merger=host.merger).run()
    finally:
        host.renderer.before_render = None


@pytest.mark.parametrize("damage", ["deleted", "garbage"])
def test_lost_journal_is_written_again_from_the_records(
    damage: str,
    make_study: Callable[..., Study],
    host: FakeStudyHost,
    scorer: FakeScorer,
) -> None:
    """The records alone are enough to go on, at the same points."""
    twin = make_study(name="twin", n_trials=7)
    run_with_cuts(twin, host, [], scorer=scorer)
    study = make_study(n_trials=7)
    with pytest.raises(PowerCut):
        _cut_once(study, host, scorer, at=4 + host.renderer.n_rendered // 3)
    if damage == "deleted":
        study.journal_path.unlink()
    else:
        study.journal_path.write_bytes(b"no journal\nat all\n")
    run_with_cuts(study, host, [], scorer=scorer)
    assert history(study) == history(twin)


SCRIPT = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from lib_merge.autombw.runner import StudyRunner
    from lib_merge.autombw.study import open_study
    from tests.support.fake_scorer import FakeScorer
    from tests.support.fake_study_host import FakeStudyHost
    host = FakeStudyHost(Path(sys.argv[1]).parent)
    host.renderer.delay_s = float(sys.argv[2])
    StudyRunner(
        host, open_study(Path(sys.argv[1])), FakeScorer(), merger=host.merger
    ).run()
    """
)


def start_process(study: Study, delay_s: float) -> subprocess.Popen[bytes]:
    """Run a study in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, str(study.folder), str(delay_s)]
    return subprocess.Popen(command, env=env, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a POSIX signal")
def test_study_killed_at_random_moments_equals_an_uninterrupted_one(
    tmp_path: Path, scorer: FakeScorer
) -> None:
    """A real process, SIGKILL at random moments, resumed until it ends."""
    settings = fake_settings(sampler="cmaes", n_trials=40, n_held_out=1)
    whole = create_study(tmp_path / "whole", settings)
    host = FakeStudyHost(tmp_path)
    StudyRunner(host, whole, scorer, merger=host.merger).run()
    study = create_study(tmp_path / "killed", settings)
    moments = random.Random(20261124)
    n_killed = 0
    while n_killed < 10:
        n_before = len(history(study))
        process = start_process(study, delay_s=0.02)
        _wait_for_progress(study, n_before)
        time.sleep(moments.uniform(0.0, 0.2))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            n_killed += 1
        process.wait()
        if open_study(study.folder).result() is not None:
            break
    assert n_killed == 10
    assert start_process(study, delay_s=0.0).wait(timeout=120) == 0
    assert history(study) == history(whole)
    lost = [r for r in study.records() if r.state == KILLED]
    assert len(lost) <= n_killed
    lines = [json.loads(line) for line in study.journal_path.open()]
    assert len(lines) > 40


def _wait_for_progress(study: Study, n_before: int) -> None:
    """Wait until the process has scored at least one trial more."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if len(history(study)) > n_before or study.result() is not None:
            return
        time.sleep(0.02)
    raise AssertionError("The study's process made no progress.")
