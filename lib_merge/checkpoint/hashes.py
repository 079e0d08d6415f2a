"""SHA-256 of checkpoint files, remembered by path, size and time of change."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

from lib_merge.checkpoint import folders
from lib_merge.checkpoint.header import FileState, file_state
from lib_merge.core.ports import Progress
from lib_merge.errors import CheckpointError

BLOCK_BYTES = 1 << 20
_log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Where MergeLab keeps what it can compute again.

    `MERGELAB_CACHE_DIR` names it, else it is the user's cache folder of the system.
    """
    named = os.environ.get("MERGELAB_CACHE_DIR")
    if named:
        return Path(named)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData/Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "mergelab"


class HashCache:
    """Known hashes, in a small JSON file that may be lost at any time.

    Args:
        file: Where they are kept.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._known: dict[str, str] | None = None

    @staticmethod
    def _name(path: Path, state: FileState) -> str:
        return f"{path.resolve()}|{state.n_bytes}|{state.mtime_ns}|{state.inode}"

    def get(self, path: Path, state: FileState) -> str | None:
        """The hash of a file in this state, if it is known."""
        with self._lock:
            return self._load().get(self._name(path, state))

    def put(self, path: Path, state: FileState, sha256: str) -> None:
        """Remember a hash; a cache that cannot be written is no error."""
        with self._lock:
            self._known = self._read()
            self._known[self._name(path, state)] = sha256
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                draft = self.file.with_name(f"{self.file.name}.{os.getpid()}.tmp")
                draft.write_text(json.dumps(self._known, indent=0), encoding="utf-8")
                draft.replace(self.file)
            except OSError as fault:
                _log.debug("The hash cache %s was not written: %s", self.file, fault)

    def _load(self) -> dict[str, str]:
        if self._known is None:
            self._known = self._read()
        return self._known

    def _read(self) -> dict[str, str]:
        known = dict(self._known or {})
        try:
            data: Any = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return known
        if isinstance(data, dict):
            known.update({k: v for k, v in data.items() if isinstance(v, str)})
        return known


_caches: dict[Path, HashCache] = {}


def _cache() -> HashCache:
    file = cache_dir() / "sha256.json"
    return _caches.setdefault(file, HashCache(file))


def known_sha256(path: str | os.PathLike[str]) -> str | None:
    """The hash of a file if it was computed before and the file has not changed.

    Raises:
        CheckpointError: The file is missing or a folder.
    """
    file = Path(path)
    return _cache().get(file, file_state(file))


def remember_sha256(path: str | os.PathLike[str], sha256: str) -> None:
    """Keep a hash that was computed elsewhere (while writing the file, by a host)."""
    file = Path(path)
    _cache().put(file, file_state(file), sha256)


def file_sha256(
    path: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    cache: bool = True,
) -> str:
    """SHA-256 of a whole file; of a model in several files, of their hashes' list.

    Args:
        path: The file, or a folder or index that `read_header` takes.
        progress: Advanced by bytes; asked once a block whether to stop.
        cache: Whether a remembered hash may be returned.

    Returns:
        64 hex digits.

    Raises:
        CheckpointError: Missing, unreadable, or changed while it was read.
        Cancelled: The user asked to stop.
    """
    file = Path(path)
    state = file_state(file)
    known = _cache().get(file, state) if cache else None
    if known is not None:
        if progress is not None:
            progress.advance(state.n_bytes)
        return known
    try:
        sha256 = _hash_model(file, progress)
    except OSError as fault:
        raise CheckpointError(
            f"{file} cannot be read ({fault.strerror}); check its permissions."
        ) from fault
    if file_state(file) != state:
        raise CheckpointError(
            f"{file} changed while it was read; start again when it is complete."
        )
    _cache().put(file, state, sha256)
    return sha256


def _hash_model(path: Path, progress: Progress | None) -> str:
    if not path.is_dir() and not path.name.endswith(folders.INDEX_SUFFIX):
        return _hash_file(path, progress)
    root = path if path.is_dir() else path.parent
    lines = []
    for part in folders.model_parts(path):
        name = part.path.relative_to(root).as_posix()
        lines.append(f"{name} {file_sha256(part.path, progress=progress)}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _hash_file(file: Path, progress: Progress | None) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(BLOCK_BYTES))
    with file.open("rb", buffering=0) as stream:
        while n_read := stream.readinto(buffer):
            if progress is not None:
                progress.check()
                progress.advance(n_read)
            digest.update(buffer[:n_read])
    return digest.hexdigest()
