"""Whether two checkpoint files hold the same tensors, without hashing either."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from lib_merge.checkpoint._positional import PositionalFile
from lib_merge.checkpoint.header import FileState, Header, file_state
from lib_merge.errors import CheckpointError

_SAMPLE_BYTES = 4096
_N_SAMPLES = 32
_BLOCK_BYTES = 1 << 20


def have_equal_tensors(one: Header, two: Header) -> bool:
    """Whether two files are the same file, or copies but for their metadata.

    Different models differ in the first few samples; only true copies are read whole.

    Raises:
        CheckpointError: A file went away.
    """
    states = file_state(one.path), file_state(two.path)
    if states[0] == states[1]:
        return True
    if one.is_legacy or two.is_legacy or dict(one.infos) != dict(two.infos):
        return False
    return _compare(one.path, two.path, states, _first_byte(one), _first_byte(two))


def _first_byte(header: Header) -> int:
    return min(start for start, _ in header.offsets.values())


@lru_cache(maxsize=256)
def _compare(
    path_one: Path,
    path_two: Path,
    states: tuple[FileState, FileState],
    start_one: int,
    start_two: int,
) -> bool:
    n_bytes = states[0].n_bytes - start_one
    if n_bytes != states[1].n_bytes - start_two:
        return False
    try:
        one, two = PositionalFile(path_one), PositionalFile(path_two)
    except OSError as fault:
        raise CheckpointError(
            f"{path_one} or {path_two} cannot be opened ({fault.strerror}); "
            "check that both are still there and may be read."
        ) from fault
    try:
        step = max(1, n_bytes // _N_SAMPLES)
        samples = [(at, _SAMPLE_BYTES) for at in range(0, n_bytes, step)]
        whole = [(at, _BLOCK_BYTES) for at in range(0, n_bytes, _BLOCK_BYTES)]
        return all(
            _read(one, start_one + at, size) == _read(two, start_two + at, size)
            for at, size in (*samples, *whole)
        )
    finally:
        one.close()
        two.close()


def _read(file: PositionalFile, offset: int, size: int) -> bytes:
    buffer = bytearray(size)
    n_read = file.read_into(offset, memoryview(buffer))
    return bytes(buffer[:n_read])
