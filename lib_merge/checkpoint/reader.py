"""Reads tensors, or runs of them, out of a checkpoint from any number of threads."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from lib_merge.checkpoint._positional import PositionalFile
from lib_merge.checkpoint.header import Header, file_state
from lib_merge.core.dtypes import DType
from lib_merge.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def torch_dtype(dtype: DType) -> torch.dtype:
    """The torch type of one of ours.

    Raises:
        CheckpointError: This torch is too old to have it.
    """
    import torch

    found = getattr(torch, dtype.torch_name, None)
    if isinstance(found, torch.dtype):
        return found
    raise CheckpointError(
        f"torch {torch.__version__} has no {dtype.torch_name}; update torch."
    )


class CheckpointReader:
    """A checkpoint opened for reading; a context manager, safe from any thread.

    Reads with pread into memory of the caller's: a file that shrinks under us is an
    error here, where a memory map would kill the process.

    Args:
        header: What `read_header` gave.

    Raises:
        CheckpointError: The file is gone or has another size than when it was read.
    """

    def __init__(self, header: Header) -> None:
        self.header = header
        self._file: PositionalFile | None = None
        self._tensors: Any = None
        if header.is_legacy:
            from lib_merge.checkpoint import legacy_ckpt

            state = file_state(header.path)
            self._tensors = legacy_ckpt.load_tensors(header.path, state)
            return
        try:
            self._file = PositionalFile(header.path)
        except OSError as fault:
            raise CheckpointError(
                f"{header.path} cannot be opened ({fault.strerror}); check that it is "
                "still there and may be read."
            ) from fault
        if self._file.size() != header.n_bytes:
            self._file.close()
            raise CheckpointError(
                f"{header.path} changed while it was in use (now {self._file_size()} "
                f"bytes, before {header.n_bytes}); start again when it is complete."
            )

    def _file_size(self) -> int:
        return file_state(self.header.path).n_bytes

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Tensor:
        """A run of one tensor's values.

        Args:
            key: The tensor's name in the file.
            start: Index of the first value in the flattened tensor.
            stop: Index behind the last; None means to the end.

        Returns:
            1-D, in the stored dtype, in memory of its own.

        Raises:
            CheckpointError: The file ended early.
        """
        import torch

        info = self.header.infos[key]
        stop = info.n_elements if stop is None else stop
        values = torch.empty(stop - start, dtype=torch_dtype(info.dtype))
        if stop > start:
            self.read_into(key, start, stop, values.view(torch.uint8).numpy().data)
        return values

    def read_into(self, key: str, start: int, stop: int, buffer: memoryview) -> None:
        """Read the bytes of values [start, stop) of a tensor into a buffer.

        Args:
            key: The tensor's name in the file.
            start: Index of the first value in the flattened tensor.
            stop: Index behind the last.
            buffer: Writable bytes, exactly as many as the values need.

        Raises:
            CheckpointError: The file ended early or could not be read.
        """
        if self._file is None:
            self._copy_legacy(key, start, stop, buffer)
            return
        size = self.header.infos[key].dtype.size
        offset = self.header.offsets[key][0] + start * size
        try:
            n_read = self._file.read_into(offset, buffer)
        except OSError as fault:
            raise CheckpointError(
                f"{self.header.path}, tensor '{key}': reading failed "
                f"({fault.strerror}); check the disk."
            ) from fault
        if n_read != len(buffer):
            raise CheckpointError(
                f"{self.header.path}, tensor '{key}': the file ended {len(buffer)} "
                f"minus {n_read} bytes early; it was changed while in use, try again."
            )

    def _copy_legacy(self, key: str, start: int, stop: int, buffer: memoryview) -> None:
        import torch

        values = self._tensors[key].detach().reshape(-1)[start:stop].contiguous()
        buffer[:] = values.view(torch.uint8).numpy().data

    def will_read(self, key: str) -> None:
        """Tell the system that this tensor is wanted soon; a hint only."""
        if self._file is not None:
            start, end = self.header.offsets[key]
            self._file.will_read(start, end - start)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._tensors = None
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> CheckpointReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
