"""Whether checkpoint files hold the same tensors, without hashing any of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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
    if one.is_legacy or two.is_legacy or one.parts or two.parts:
        return False
    if dict(one.infos) != dict(two.infos):
        return False
    return _compare(one.path, two.path, states, one.data_start, two.data_start)


def equal_groups(headers: Sequence[Header]) -> list[list[int]]:
    """Which of many files hold the same tensors.

    Each file is sampled once; only files with equal samples are compared.

    Args:
        headers: Of any number of files.

    Returns:
        Positions of two or more files with one content, a list for every content.

    Raises:
        CheckpointError: A file went away.
    """
    by_mark: dict[str, list[int]] = {}
    for position, header in enumerate(headers):
        by_mark.setdefault(_mark(header), []).append(position)
    groups = []
    for positions in by_mark.values():
        while len(positions) > 1:
            first = headers[positions[0]]
            same = [p for p in positions if have_equal_tensors(first, headers[p])]
            if len(same) > 1:
                groups.append(same)
            positions = [p for p in positions if p not in same]
    return sorted(groups)


def _mark(header: Header) -> str:
    """Equal for equal contents, and nearly always different for different ones."""
    state = file_state(header.path)
    if header.is_legacy or header.parts:
        return f"{state.device}:{state.inode}"
    return _sampled_mark(header.path, state, header.data_start)


@lru_cache(maxsize=1024)
def _sampled_mark(path: Path, state: FileState, start: int) -> str:
    n_bytes = state.n_bytes - start
    digest = hashlib.blake2b(str(n_bytes).encode(), digest_size=16)
    try:
        file = PositionalFile(path)
    except OSError as fault:
        raise CheckpointError(
            f"{path} cannot be opened ({fault.strerror}); check that it is still there "
            "and may be read."
        ) from fault
    try:
        for at in range(0, n_bytes, max(1, n_bytes // _N_SAMPLES)):
            digest.update(_read(file, start + at, _SAMPLE_BYTES))
    finally:
        file.close()
    return digest.hexdigest()


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
