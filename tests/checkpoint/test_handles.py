"""Any number of files are read with a bounded number of handles."""

from __future__ import annotations

import errno
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from lib_merge.checkpoint.handles import Handles, handle_limit
from lib_merge.checkpoint.header import file_state, read_header
from lib_merge.checkpoint.reader import CheckpointReader
from lib_merge.errors import CheckpointError
from tests.support.checkpoints import write_checkpoint


@pytest.fixture
def files(tmp_path):
    return [
        write_checkpoint(
            tmp_path / f"{i}.safetensors", {"k": torch.full((9,), float(i))}
        )
        for i in range(30)
    ]


def test_readers_share_few_handles_from_many_threads(files):
    handles = Handles(limit=4)
    readers = [CheckpointReader(read_header(path), handles) for path in files]

    def read(turn):
        index = (turn * 7) % len(files)
        assert readers[index].read("k").tolist() == [float(index)] * 9
        return handles.n_open

    with ThreadPoolExecutor(3) as pool:
        counts = list(pool.map(read, range(300)))
    assert handles.n_open <= 4
    assert max(counts) <= 4 + 3
    for reader in readers:
        reader.close()
    assert handles.n_open == 0


def test_file_in_use_is_not_closed(files):
    handles = Handles(limit=1)
    states = [file_state(path) for path in files]
    with (
        handles.use(files[0], states[0]) as first,
        handles.use(files[1], states[1]),
        handles.use(files[2], states[2]),
    ):
        buffer = bytearray(8)
        assert first.read_into(0, memoryview(buffer)) == 8
    assert handles.n_open == 1


def test_file_that_changed_while_its_handle_was_closed_is_refused(files):
    handles = Handles(limit=1)
    readers = [CheckpointReader(read_header(path), handles) for path in files[:2]]
    readers[0].read("k")
    readers[1].read("k")
    write_checkpoint(files[0], {"k": torch.zeros(9)})
    os.utime(files[0], ns=(1, 1))
    with pytest.raises(CheckpointError, match="changed while it was in use"):
        readers[0].read("k")


def test_limit_follows_the_system(monkeypatch):
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    for soft, wanted in ((1024, 512), (256, 128), (6, 4), (1 << 20, 512)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, s=soft: (s, s))
        assert handle_limit() == wanted


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="a flag of Linux")


@linux_only
@pytest.mark.parametrize("fault", [None, errno.EOPNOTSUPP, errno.EINVAL])
def test_files_read_once_give_the_same_where_the_system_keeps_them_anyway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int | None
) -> None:
    """Older systems and other file systems refuse the flag; then it goes without."""
    path = tmp_path / "model.bin"
    path.write_bytes(bytes(range(200)))
    real, asked = os.preadv, []

    def preadv(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        asked.append(flags)
        if flags and fault is not None:
            raise OSError(fault, "no")
        return real(fd, buffers, offset)  # Whatever this system thinks of the flag.

    monkeypatch.setattr(os, "preadv", preadv)
    handles = Handles(is_once=True)
    with handles.use(path, file_state(path)) as file:
        for start in (0, 100):
            buffer = memoryview(bytearray(100))
            assert file.read_into(start, buffer) == 100
            assert bytes(buffer) == bytes(range(start, start + 100))
    handles.close(path)
    assert asked[0] != 0
    assert (asked[-1] == 0) == (fault is not None)
    assert len(asked) == (2 if fault is None else 3)


@linux_only
def test_other_read_faults_are_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing disk is no reason to try once more."""
    path = tmp_path / "model.bin"
    path.write_bytes(b"x" * 10)

    def preadv(*_: object) -> int:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "preadv", preadv)
    handles = Handles(is_once=True)
    with (
        handles.use(path, file_state(path)) as file,
        pytest.raises(OSError, match="broken"),
    ):
        file.read_into(0, memoryview(bytearray(4)))
    handles.close(path)
