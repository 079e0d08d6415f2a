"""Ctrl-C in the middle of a real merge leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.checkpoints import names_in, tiny_part, write_checkpoint

ROOT = Path(__file__).resolve().parents[2]

SLOW_MERGE = """
import os, sys, time
from lib_merge.cli import main
from lib_merge.engine import save

write = save.FileSink.write

def slow(self, key, start, values):
    os.write(1, b"writing\\n")
    time.sleep(0.3)
    write(self, key, start, values)

save.FileSink.write = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX systems")
@pytest.mark.parametrize("n_threads", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_merge_leaves_nothing_when_a_signal_stops_it(tmp_path, number, n_threads):
    for seed, name in enumerate("ab"):
        write_checkpoint(tmp_path / f"{name}.safetensors", tiny_part(seed))
    (tmp_path / "o.safetensors").write_text("precious")
    words = ["merge", "weighted_sum", "a.safetensors", "b.safetensors", "--overwrite"]
    words += ["--out", "o.safetensors", "--threads", n_threads]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_MERGE, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    assert any(name.endswith(".tmp") for name in names_in(tmp_path))
    process.send_signal(number)
    time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Stopped." in errors
    assert "Traceback" not in errors
    assert names_in(tmp_path) == ["a.safetensors", "b.safetensors", "o.safetensors"]
    assert (tmp_path / "o.safetensors").read_text() == "precious"
