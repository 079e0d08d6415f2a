"""Reads tensors, or runs of them, out of a checkpoint from any number of threads."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from lib_merge.checkpoint.handles import Handles
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
        handles: Shared with other readers, so that together they keep to a bound.

    Raises:
        CheckpointError: The file is gone or has another size than when it was read.
    """

    def __init__(self, header: Header, handles: Handles | None = None) -> None:
        self.header = header
        self._handles = handles or Handles()
        self._tensors: Any = None
        if header.is_legacy:
            from lib_merge.checkpoint import legacy_ckpt

            state = file_state(header.path)
            self._tensors = legacy_ckpt.load_tensors(header.path, state)
            return
        self._state = file_state(header.path)
        if self._state.n_bytes != header.n_bytes:
            raise CheckpointError(
                f"{header.path} changed while it was in use (now "
                f"{self._state.n_bytes} bytes, before {header.n_bytes}); start again "
                "when it is complete."
            )
        with self._handles.use(header.path, self._state):
            pass

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
        if self.header.is_legacy:
            self._copy_legacy(key, start, stop, buffer)
            return
        size = self.header.infos[key].dtype.size
        offset = self.header.offsets[key][0] + start * size
        try:
            with self._handles.use(self.header.path, self._state) as file:
                n_read = file.read_into(offset, buffer)
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

    def will_read(self, key: str, start: int, stop: int) -> None:
        """Tell the system that these values are wanted soon; a hint only."""
        self._advise(key, start, stop, is_wanted=True)

    def was_read(self, key: str, start: int, stop: int) -> None:
        """Tell the system that these values are not wanted again; a hint only."""
        self._advise(key, start, stop, is_wanted=False)

    def _advise(self, key: str, start: int, stop: int, *, is_wanted: bool) -> None:
        if self.header.is_legacy:
            return
        size = self.header.infos[key].dtype.size
        offset = self.header.offsets[key][0] + start * size
        with self._handles.use(self.header.path, self._state) as file:
            advise = file.will_read if is_wanted else file.was_read
            advise(offset, (stop - start) * size)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._tensors = None
        self._handles.close(self.header.path)

    def __enter__(self) -> CheckpointReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
