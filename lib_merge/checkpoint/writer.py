"""Writes a checkpoint: layout first, then values in any order, then the rename."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_merge.checkpoint._positional import PositionalFile
from lib_merge.checkpoint.header import read_header
from lib_merge.checkpoint.journal import journal_of, remove_leftovers, remove_partial
from lib_merge.core.blocks import TensorInfo
from lib_merge.errors import DiskFullError, OutputError, ResourceError


@dataclass(frozen=True)
class Layout:
    """Where every tensor lies in a file that is to be written.

    Attributes:
        infos: Shape and dtype by key, in the order of the bytes.
        starts: Offset of each tensor behind the header, by key.
        n_tensor_bytes: All tensors together.
    """

    infos: Mapping[str, TensorInfo]
    starts: Mapping[str, int]
    n_tensor_bytes: int

    def header_bytes(self, metadata: Mapping[str, str], n_bytes: int = 0) -> bytes:
        """The header with its eight length bytes, padded so that tensors are aligned.

        Args:
            metadata: Strings.
            n_bytes: Pad to this size, which was found with metadata of no less text.
        """
        entries: dict[str, object] = {"__metadata__": dict(metadata)}
        for key, info in self.infos.items():
            start = self.starts[key]
            entries[key] = {
                "dtype": info.dtype.code,
                "shape": list(info.shape),
                "data_offsets": [start, start + info.n_bytes],
            }
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * max(-len(text) % 8, n_bytes - 8 - len(text))
        assert n_bytes in (0, len(text) + 8)
        return len(text).to_bytes(8, "little") + text


def layout_of(tensors: Sequence[tuple[str, TensorInfo]]) -> Layout:
    """Place tensors: wide element types first, so that each is aligned to its size.

    Args:
        tensors: (key, shape and dtype), in the order wanted within one element size.
    """
    infos = dict(sorted(tensors, key=lambda item: -item[1].dtype.size))
    starts = {}
    position = 0
    for key, info in infos.items():
        starts[key] = position
        position += info.n_bytes
    return Layout(infos, starts, position)


class PendingFile:
    """A file that grows beside its target and becomes it only when it is whole.

    Args:
        target: What it will be called in the end.
        n_bytes: Its final size; the room is taken at once.
        partial: A partial file of the same merge to go on with; it is renamed, so that
            its name tells of this process.

    Raises:
        DiskFullError: There is not enough room; nothing is left behind.
        OutputError: The folder cannot be written to.
    """

    def __init__(
        self, target: Path, n_bytes: int, *, partial: Path | None = None
    ) -> None:
        self.target = target
        self.n_bytes = n_bytes
        name = f".{target.name}.{os.getpid()}-{threading.get_ident()}.tmp"
        self.path = target.with_name(name)
        if partial is None:
            remove_leftovers(target)
        try:
            if partial is not None:
                partial.replace(self.path)
                journal_of(partial).unlink(missing_ok=True)
            self._file = PositionalFile(
                self.path, is_new=partial is None, is_writable=True
            )
        except OSError as fault:
            raise OutputError(
                f"{target.parent} cannot be written to ({fault.strerror}); choose "
                "another folder or change its permissions."
            ) from fault
        try:
            self._file.allocate(n_bytes)
        except OSError as fault:
            self.discard()
            raise _write_fault(fault, target, n_bytes) from fault
        except BaseException:
            self.discard()
            raise

    def write_at(self, offset: int, data: memoryview | bytes) -> None:
        """Write bytes at an offset; safe from any thread.

        Raises:
            DiskFullError: The disk filled up.
            ResourceError: The disk failed.
        """
        try:
            self._file.write_at(offset, data)
        except OSError as fault:
            raise _write_fault(fault, self.target, self.n_bytes) from fault

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Read back what was written."""
        return self._file.read_into(offset, buffer)

    def sync(self) -> None:
        """Wait until all of it is on the disk.

        Raises:
            DiskFullError: The disk filled up.
            ResourceError: The disk failed.
        """
        try:
            self._file.sync()
        except OSError as fault:
            raise _write_fault(fault, self.target, self.n_bytes) from fault

    def commit(self, layout: Layout) -> None:
        """Check the whole file and give it its name.

        Raises:
            ResourceError: What is on the disk is not what was written.
            OutputError: The rename was refused.
        """
        self._file.close()
        header = read_header(self.path)
        if header.n_bytes != self.n_bytes or dict(header.infos) != dict(layout.infos):
            raise ResourceError(
                f"{self.path} does not read back as it was written ({header.n_bytes} "
                f"bytes, {self.n_bytes} wanted); check the disk and merge again."
            )
        try:
            self.path.replace(self.target)
        except OSError as fault:
            raise OutputError(
                f"{self.target} cannot be replaced ({fault.strerror}); another program "
                "may have it open. Close that, or choose another name."
            ) from fault
        journal_of(self.path).unlink(missing_ok=True)
        _sync_folder(self.target.parent)

    def discard(self) -> None:
        """Remove it; safe to call at any time, also twice or after `commit`."""
        self._file.close()
        remove_partial(self.path)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be synced."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as fault:
        # Network file systems refuse this; the rename itself has happened.
        if fault.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            raise
    finally:
        os.close(handle)


def _write_fault(fault: OSError, target: Path, n_bytes: int) -> ResourceError:
    if fault.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return DiskFullError(
            f"The disk of {target.parent} has no room for {target.name} "
            f"({n_bytes / 1e9:.2f} GB); free some or choose another folder."
        )
    if fault.errno == errno.EFBIG:
        return DiskFullError(
            f"The file system of {target.parent} takes no file of {n_bytes / 1e9:.2f} "
            "GB (FAT32 stops at 4 GB, or a limit is set); choose another disk."
        )
    return ResourceError(
        f"Writing {target.name} in {target.parent} failed ({fault.strerror}); "
        "check the disk and merge again."
    )
