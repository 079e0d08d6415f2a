"""Reads tensors, or runs of them, out of a checkpoint from any number of threads."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lib_merge.checkpoint.handles import Handles
from lib_merge.checkpoint.header import FileState, Header, file_state
from lib_merge.core.dtypes import DType
from lib_merge.core.layouts import Stored, cut_runs
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
        self._states: dict[Path, FileState] = {}
        for part in header.parts or (header,):
            self._open(part)

    def _open(self, part: Header) -> None:
        state = self._states[part.path] = file_state(part.path)
        if state.n_bytes != part.n_bytes:
            raise CheckpointError(
                f"{part.path} changed while it was in use (now {state.n_bytes} bytes, "
                f"before {part.n_bytes}); start again when it is complete."
            )
        with self._handles.use(part.path, state):
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
        part, name = self.header.place_of(key)
        offset = part.offsets[name][0] + start * part.infos[name].dtype.size
        try:
            with self._handles.use(part.path, self._states[part.path]) as file:
                n_read = file.read_into(offset, buffer)
        except OSError as fault:
            raise CheckpointError(
                f"{part.path}, tensor '{key}': reading failed "
                f"({fault.strerror}); check the disk."
            ) from fault
        if n_read != len(buffer):
            raise CheckpointError(
                f"{part.path}, tensor '{key}': the file ended {len(buffer)} "
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
        part, name = self.header.place_of(key)
        size = part.infos[name].dtype.size
        offset = part.offsets[name][0] + start * size
        with self._handles.use(part.path, self._states[part.path]) as file:
            advise = file.will_read if is_wanted else file.was_read
            advise(offset, (stop - start) * size)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._tensors = None
        for part in self.header.parts or (self.header,):
            self._handles.close(part.path)

    def __enter__(self) -> CheckpointReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_stored(
    reader: CheckpointReader, stored: Stored, start: int = 0, stop: int | None = None
) -> Tensor:
    """Values of a tensor that a file may hold in parts, turned, or with less channels.

    Args:
        reader: The file.
        stored: Where it holds the tensor.
        start: Index of the first value in the flattened tensor.
        stop: Index behind the last; None means to the end.

    Returns:
        1-D, in the type of `stored.info`, in memory of its own.

    Raises:
        CheckpointError: The file ended early.
    """
    import torch

    stop = stored.info.n_elements if stop is None else stop
    dtype = torch_dtype(stored.info.dtype)
    if not stored.is_direct:
        return _whole(reader, stored)[start:stop].to(dtype)
    runs = cut_runs(stored, start, stop)
    parts = [reader.read(run.key, run.start, run.stop).to(dtype) for run in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts or [torch.empty(0)])


def _whole(reader: CheckpointReader, stored: Stored) -> Tensor:
    """A tensor that is turned, or gets zeros for input channels that it lacks."""
    import torch

    run = stored.runs[0]
    values = reader.read(run.key).view(reader.header.infos[run.key].shape)
    if stored.n_channels is not None:
        wide = torch.zeros(stored.info.shape, dtype=values.dtype)
        wide[:, : stored.n_channels] = values
        return wide.reshape(-1)
    return values.t().contiguous().reshape(-1)
