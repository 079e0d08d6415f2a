"""Hashes of files: right, remembered, and forgotten when the file changes."""

from __future__ import annotations

import hashlib
import os

import pytest

from lib_merge.checkpoint import hashes
from lib_merge.checkpoint.stream_hash import StreamHash
from lib_merge.engine.progress import JobProgress
from lib_merge.errors import Cancelled, CheckpointError


@pytest.mark.parametrize("n_bytes", [0, 1, hashes.BLOCK_BYTES, hashes.BLOCK_BYTES + 7])
def test_file_sha256_equals_hashlib_when_size_is(tmp_path, n_bytes):
    path = tmp_path / "x"
    path.write_bytes(os.urandom(n_bytes))
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert hashes.known_sha256(path) is None
    assert hashes.file_sha256(path) == expected
    assert hashes.known_sha256(path) == expected


def test_file_sha256_is_computed_anew_when_file_changes(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"one")
    first = hashes.file_sha256(path)
    path.write_bytes(b"other")
    assert hashes.known_sha256(path) is None
    assert hashes.file_sha256(path) != first


def test_known_sha256_survives_when_the_process_is_new(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"one")
    sha256 = hashes.file_sha256(path)
    monkeypatch.setattr(hashes, "_caches", {})
    assert hashes.known_sha256(path) == sha256


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}'], ids=repr)
def test_file_sha256_works_when_the_cache_file_is_damaged(
    tmp_path, cache_of_its_own, content
):
    (cache_of_its_own / "sha256.json").write_text(content)
    path = tmp_path / "x"
    path.write_bytes(b"one")
    assert hashes.file_sha256(path) == hashlib.sha256(b"one").hexdigest()
    assert hashes.known_sha256(path) is not None


def test_file_sha256_works_when_the_cache_cannot_be_written(tmp_path, monkeypatch):
    blocker = tmp_path / "a file"
    blocker.write_text("")
    monkeypatch.setenv("MERGELAB_CACHE_DIR", str(blocker / "below"))
    path = tmp_path / "x"
    path.write_bytes(b"one")
    assert hashes.file_sha256(path) == hashlib.sha256(b"one").hexdigest()


def test_file_sha256_stops_when_cancelled(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"one")
    progress = JobProgress()
    progress.cancel()
    with pytest.raises(Cancelled, match="stopped as asked"):
        hashes.file_sha256(path, progress=progress)
    assert hashes.known_sha256(path) is None


def test_file_sha256_refuses_when_file_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        hashes.file_sha256(tmp_path / "x")


def _stream(content: bytes) -> StreamHash:
    def read_into(offset: int, buffer: memoryview) -> int:
        part = content[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        return len(part)

    return StreamHash(read_into, len(content))


def test_stream_hash_equals_hashlib_when_parts_come_in_any_order():
    content = os.urandom(5_000_000)
    stream = _stream(content)
    step = 300_000
    starts = list(range(0, len(content), step))
    for start in [*starts[1::2], *starts[::2]]:
        stream.mark(start, min(start + step, len(content)))
    assert stream.result() == hashlib.sha256(content).hexdigest()


def test_stream_hash_gives_none_when_stopped_early():
    stream = _stream(bytes(1000))
    stream.mark(0, 10)
    stream.stop()
    assert stream.result() is None
