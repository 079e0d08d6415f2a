"""Files that are whole or absent: atomic writes, and a full disk by its own name."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lib_merge.errors import DiskFullError, OutputError

_TEMPORARY = ".mergelab-part"
_FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})


def is_disk_full(fault: BaseException) -> bool:
    """Whether this exception, or one it came from, says that the disk is full."""
    seen: BaseException | None = fault
    while seen is not None:
        is_full = isinstance(seen, OSError) and seen.errno in _FULL
        if is_full or isinstance(seen, DiskFullError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


@contextmanager
def named_disk_faults(place: Path) -> Iterator[None]:
    """Turn a full disk into `DiskFullError` that names the place.

    Raises:
        DiskFullError: The block ran into a full disk or quota.
    """
    try:
        yield
    except OSError as fault:
        if fault.errno not in _FULL:
            raise
        raise DiskFullError(
            f"The disk of {place} is full. Nothing that was stored is lost; free some "
            "space and resume the study."
        ) from fault


def write_bytes(
    path: Path, data: bytes, *, is_durable: bool = True, is_alone: bool = True
) -> None:
    """Write a whole file: under a temporary name first, then renamed over `path`.

    Args:
        path: Where it ends up; the folder must exist.
        data: All of it.
        is_durable: Whether to wait until it is on the disk (fsync).
        is_alone: False when another durable file follows in the same folder, whose
            own fsync of the folder serves both.

    Raises:
        DiskFullError: No room; `path` is as it was before.
    """
    with named_disk_faults(path.parent):
        # Not mkstemp: its files are the owner's alone, whatever the umask says.
        name = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_TEMPORARY}")
        try:
            with name.open("xb") as file:
                file.write(data)
                file.flush()
                if is_durable:
                    os.fsync(file.fileno())
            _replace(name, path)
        except BaseException:
            with suppress(OSError):
                name.unlink()
            raise
        if is_durable and is_alone:
            _sync_folder(path.parent)


def _replace(name: Path, path: Path) -> None:
    """Rename; on Windows a reader can hold the target open for a moment."""
    for _ in range(20):
        try:
            os.replace(name, path)  # noqa: PTH105 - tests make this very call fail
            return
        except PermissionError:
            if os.name != "nt":
                raise
            _wait_for_reader()
    os.replace(name, path)  # noqa: PTH105


def _wait_for_reader() -> None:
    import time

    time.sleep(0.05)


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself durable, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, data: Any, *, is_durable: bool = True) -> None:
    """Write a JSON file as `write_bytes` does; NaN and infinity are refused."""
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, text.encode("utf-8"), is_durable=is_durable)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no JSON.
    """
    return json.loads(path.read_text(encoding="utf-8"))


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files that a killed process left anywhere in this folder."""
    for path in folder.rglob(f".*{_TEMPORARY}"):
        with suppress(OSError):
            path.unlink()


def folder_name(name: str) -> str:
    """A study's name as a folder name that every system takes.

    Raises:
        OutputError: Nothing usable is left of it.
    """
    safe = re.sub(r"[^\w.+-]+", "_", name.strip()).strip("._")[:100]
    if not safe:
        raise OutputError(
            f"'{name}' cannot name a study; use letters, digits, '-', '_' or '.'."
        )
    return safe
