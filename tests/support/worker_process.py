"""A worker of a study on the fake host, in a process of its own.

    python -m tests.support.worker_process STUDY_FOLDER DELAY_S [GO_FILE]

With a GO_FILE it runs a small study first, says "ready" and waits for the file, so that
start-up and imports cost no time that is measured. Heartbeats are fast, so that tests
need not wait for a death.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]


def start_worker(
    folder: Path, *, delay_s: float, go: Path | None = None, is_helper: bool = True
) -> subprocess.Popen[str]:
    """Start one and wait until it is ready."""
    words = [sys.executable, "-m", "tests.support.worker_process", str(folder)]
    words += [str(delay_s), str(go or ""), str(int(is_helper))]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        words, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def main() -> None:
    """Run."""
    from lib_merge.autombw import presence
    from lib_merge.autombw.runner import StudyRunner
    from lib_merge.autombw.study import create_study, open_study
    from tests.support.fake_scorer import FakeScorer
    from tests.support.fake_study_host import FakeStudyHost, fake_settings

    presence.BEAT_S, presence.DEAD_AFTER_S = 0.1, 2.0
    folder, delay_s, go, is_helper = sys.argv[1:]
    host = FakeStudyHost(Path(folder).parent)
    if go:
        with TemporaryDirectory() as place:
            small = create_study(Path(place), fake_settings(n_trials=12, n_held_out=1))
            StudyRunner(host, small, FakeScorer(), merger=host.merger).run()
    host.renderer.delay_s = float(delay_s)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while go and not Path(go).exists():
        time.sleep(0.001)
    StudyRunner(
        host,
        open_study(Path(folder)),
        FakeScorer(),
        merger=host.merger,
        is_helper=bool(int(is_helper)),
    ).run()


if __name__ == "__main__":
    main()
