"""The demo command on the committed models: killed, continued, shown again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lib_merge.autombw.study import Study, open_study
from lib_merge.cli import demo, main

ROOT = Path(__file__).parents[2]

pytest.importorskip("diffusers")
pytestmark = pytest.mark.slow


def wait_for_record(study_dir: Path, process: subprocess.Popen[bytes]) -> Study:
    """The study, once its first trial is stored."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if (study_dir / "settings.json").is_file():
            study = open_study(study_dir)
            if study.records():
                return study
        time.sleep(0.05)
    raise AssertionError("The demo's process stored no trial.")


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a POSIX signal")
def test_demo_killed_in_the_middle_continues_the_same_study(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """SIGKILL, the same command again, then once more: continued, then shown."""
    words = ["demo", "--seed", "5", "--trials", "4", "--out", str(tmp_path)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    script = (
        "from lib_merge.cli import demo, main; import sys; "
        "demo.N_HELD_OUT = 1; demo.N_SEEDS = 1; sys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words], cwd=ROOT, env=env
    )
    study_dir = tmp_path / "studies" / "demo-seed5"
    before = wait_for_record(study_dir, process).records()
    process.send_signal(signal.SIGKILL)
    process.wait()
    monkeypatch.setattr(demo, "N_HELD_OUT", 1)
    monkeypatch.setattr(demo, "N_SEEDS", 1)
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "Going on after" in said
    study = open_study(study_dir)
    assert study.records()[: len(before)] == before
    assert study.summary().n_complete == 4
    result = study.result()
    assert result is not None
    assert result.checkpoint is not None
    for path in (result.checkpoint, study.recipe_path, study.report_path):
        assert Path(path).is_file()
        assert Path(path).name in said
    started = time.monotonic()
    assert main(words) == 0
    assert "This study is complete" in capsys.readouterr().out
    assert time.monotonic() - started < 10


def test_demo_of_other_settings_asks_for_fresh(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study that an earlier version made is not continued by accident."""
    study_dir = tmp_path / "studies" / "demo-seed0"
    study_dir.mkdir(parents=True)
    from lib_merge.autombw._files import write_json
    from tests.support.fake_study_host import fake_settings

    settings = fake_settings(name="demo-seed0")
    write_json(study_dir / "settings.json", settings.to_json())
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "run the demo with --fresh" in capsys.readouterr().err
