"""A save removes what a killed save of the same file left, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lib_merge.checkpoint.writer import PendingFile

posix_only = pytest.mark.skipif(
    os.name == "nt", reason="Windows cannot ask after a process without ending it"
)


def _dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def _left(folder: Path, name: str, pid: int, *, age_s: float) -> Path:
    path = folder / f".{name}.{pid}-7.tmp"
    path.write_bytes(b"half a file")
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


@posix_only
def test_partial_file_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    left = _left(tmp_path, "o.safetensors", _dead_pid(), age_s=3600)
    PendingFile(tmp_path / "o.safetensors", 16).discard()
    assert not left.exists()


@pytest.mark.parametrize(
    ("name", "pid", "age_s"),
    [
        ("o.safetensors", os.getpid(), 3600),
        ("o.safetensors", None, 5),
        ("other.safetensors", None, 3600),
    ],
    ids=["process runs", "just written", "other target"],
)
def test_partial_file_that_may_be_in_use_stays(
    tmp_path: Path, name: str, pid: int | None, age_s: float
) -> None:
    left = _left(tmp_path, name, pid or _dead_pid(), age_s=age_s)
    PendingFile(tmp_path / "o.safetensors", 16).discard()
    assert left.exists()
