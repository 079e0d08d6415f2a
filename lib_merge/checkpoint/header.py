"""Reads a checkpoint's header and checks every claim in it before anybody uses it."""

from __future__ import annotations

import os
import stat as stat_module
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from lib_merge.checkpoint import _kinds, folders
from lib_merge.checkpoint._header_table import Offsets, read_table
from lib_merge.core.blocks import TensorInfo
from lib_merge.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors package; a larger header is hostile or damaged."""

LEGACY_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
"""Pickled checkpoints; see `legacy_ckpt`."""


@dataclass(frozen=True, eq=False)
class Header:
    """What a checkpoint file holds.

    Attributes:
        path: The file.
        infos: Shape and dtype by key, in the order of the file's bytes; one mapping for
            all files with the same.
        offsets: Absolute (start, end) in the file, by key; empty for a pickled file.
        metadata: The strings under `__metadata__`.
        n_bytes: Size of the whole file.
        is_legacy: Whether it is a pickled .ckpt, read through `legacy_ckpt`.
        parts: The files of a folder or of a model in shards, else empty.
        places: By key, which of the parts holds it and under which name.
        is_pipeline: Whether it is a folder with a folder for each component.
        data_start: Where the tensors begin in the file.
    """

    path: Path
    infos: Mapping[str, TensorInfo]
    offsets: Mapping[str, tuple[int, int]]
    metadata: Mapping[str, str]
    n_bytes: int
    is_legacy: bool = False
    parts: tuple[Header, ...] = ()
    places: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    is_pipeline: bool = False
    data_start: int = 0

    def place_of(self, key: str) -> tuple[Header, str]:
        """The file that holds a tensor, and the tensor's name in it."""
        if not self.parts:
            return self, key
        part, name = self.places[key]
        return self.parts[part], name


@dataclass(frozen=True)
class FileState:
    """What tells one state of a file from another without reading it."""

    device: int
    inode: int
    n_bytes: int
    mtime_ns: int


def file_state(path: Path) -> FileState:
    """The present state of a file, or of all files of a model in several.

    Raises:
        CheckpointError: It is missing, a folder without a model, or cannot be looked
            at.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} does not exist; check the spelling or choose another model."
        ) from None
    except OSError as fault:
        raise CheckpointError(
            f"{path} cannot be looked at ({fault.strerror}); check its permissions."
        ) from fault
    if stat_module.S_ISDIR(stat.st_mode):
        if not folders.is_model_folder(path):
            raise CheckpointError(
                f"{path} is a folder; choose a checkpoint file (.safetensors) inside "
                "it, or the folder of a diffusers pipeline."
            )
        return _joint_state(path, stat)
    if path.name.endswith(folders.INDEX_SUFFIX):
        return _joint_state(path, stat)
    return FileState(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _joint_state(path: Path, stat: os.stat_result) -> FileState:
    """A folder's own identity, with the size and the last change of its files."""
    states = [file_state(part.path) for part in folders.model_parts(path)]
    return FileState(
        stat.st_dev,
        stat.st_ino,
        sum(state.n_bytes for state in states),
        max(state.mtime_ns for state in states),
    )


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check the header of a checkpoint; no tensor is read.

    Args:
        path: A .safetensors file, a pickled .ckpt (its tensors are mapped), the folder
            of a diffusers pipeline or of one of its components, or an index of shards.

    Raises:
        CheckpointError: Missing, truncated, hostile or of another kind; the message
            names the file, what is wrong with it and what to do.
    """
    file = Path(path)
    return _read_cached(file, file_state(file))


def _read_parts(path: Path) -> Header:
    """One header for a model that lies in several files."""
    files = folders.model_parts(path)
    parts = tuple(read_header(file.path) for file in files)
    infos: dict[str, TensorInfo] = {}
    places: dict[str, tuple[int, str]] = {}
    for index, (file, part) in enumerate(zip(files, parts, strict=True)):
        for name, info in part.infos.items():
            key = sys.intern(file.prefix + name)
            if key in infos:
                raise CheckpointError(
                    f"{path}: '{name}' is in {parts[places[key][0]].path.name} and in "
                    f"{part.path.name}; download the shards again."
                )
            infos[key] = info
            places[key] = (index, name)
    return Header(
        path=path,
        infos=infos,
        offsets={},
        metadata={},
        n_bytes=sum(part.n_bytes for part in parts),
        parts=parts,
        places=places,
        is_pipeline=folders.is_pipeline(path),
    )


@lru_cache(maxsize=1024)
def _read_cached(path: Path, state: FileState) -> Header:
    if path.is_dir() or path.name.endswith(folders.INDEX_SUFFIX):
        return _read_parts(path)
    try:
        with path.open("rb") as file:
            start = file.read(_kinds.N_MAGIC_BYTES)
            kind = _kinds.kind_of(start)
            if kind is _kinds.Kind.PICKLE and path.suffix.lower() in LEGACY_SUFFIXES:
                return _legacy_header(path, state)
            if kind is not None:
                raise CheckpointError(f"{path} is {kind.value}")
            n_header = _header_length(path, start, state.n_bytes)
            file.seek(8)
            raw = file.read(n_header)
    except OSError as fault:
        raise CheckpointError(
            f"{path} cannot be read ({fault.strerror}); check its permissions."
        ) from fault
    return parse_header(path, raw, state.n_bytes)


def _legacy_header(path: Path, state: FileState) -> Header:
    from lib_merge.checkpoint import legacy_ckpt

    infos = legacy_ckpt.load_infos(path, state)
    return Header(path, infos, {}, {}, state.n_bytes, is_legacy=True)


def _header_length(path: Path, start: bytes, n_bytes: int) -> int:
    if n_bytes < 8 or len(start) < 8:
        raise CheckpointError(
            f"{path} has only {n_bytes} bytes, too few for a safetensors file; "
            "download or save it again."
        )
    n_header = int.from_bytes(start[:8], "little")
    if n_header > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{path} is no safetensors file or is damaged: it claims a header of "
            f"{n_header} bytes, the limit is {MAX_HEADER_BYTES}; download it again."
        )
    if n_header + 8 > n_bytes:
        raise CheckpointError(
            f"{path} is truncated: its header needs {n_header + 8} bytes, the file has "
            f"{n_bytes}; download it again."
        )
    return n_header


def parse_header(path: Path, raw: bytes, n_bytes: int) -> Header:
    """Check the JSON text of a header against the file's size.

    Args:
        path: The file, for messages and the result.
        raw: The header's bytes, without the eight that give its length.
        n_bytes: Size of the whole file.

    Raises:
        CheckpointError: Any claim that does not hold.
    """
    base = 8 + len(raw)
    metadata, table = read_table(path, raw, base, n_bytes)
    return Header(
        path=path,
        infos=table.infos,
        offsets=Offsets(base, table.spans),
        metadata=metadata,
        n_bytes=n_bytes,
        data_start=base,
    )
