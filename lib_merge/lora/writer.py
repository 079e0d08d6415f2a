"""Writes a LoRA file tensor by tensor, whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

from lib_merge.checkpoint.outputs import check_disk
from lib_merge.checkpoint.reader import torch_dtype
from lib_merge.checkpoint.writer import Layout, PendingFile, layout_of
from lib_merge.core.blocks import TensorInfo
from lib_merge.core.dtypes import DType
from lib_merge.errors import MergeError, NonFiniteError, ResourceError

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 16 << 20


class LoraWriter:
    """A LoRA file in the making; a context manager.

    Ranks are known only when they were computed, and with them where each tensor lies.
    So tensors wait in a nameless file beside the target, which the system removes when
    this process ends however it ends.

    Args:
        target: The file to be; its place was looked at already.
        dtype: What factors are stored as; alphas are float32.
    """

    def __init__(self, target: Path, dtype: DType) -> None:
        self._target = target
        self._dtype = dtype
        self._infos: dict[str, TensorInfo] = {}
        self._starts: dict[str, int] = {}
        self._spool: IO[bytes] | None = None

    def __enter__(self) -> LoraWriter:
        try:
            self._spool = tempfile.TemporaryFile(dir=self._target.parent)
        except OSError as fault:
            raise ResourceError(
                f"{self._target.parent} cannot be written to ({fault.strerror}); "
                "choose another folder or change its permissions."
            ) from fault
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._spool is not None:
            self._spool.close()

    @property
    def n_tensors(self) -> int:
        """Tensors so far."""
        return len(self._infos)

    def add(self, name: str, values: Tensor) -> None:
        """Take a tensor.

        Raises:
            NonFiniteError: It does not fit the type.
        """
        import torch

        is_alpha = name.endswith(".alpha")
        dtype = DType.F32 if is_alpha else self._dtype
        stored = values.detach().to("cpu", torch_dtype(dtype)).contiguous()
        if not bool(torch.isfinite(stored.to(torch.float32)).all()):
            raise NonFiniteError(
                f"'{name}' does not fit {dtype.torch_name}; save in a wider type "
                "(--dtype float32 or bfloat16)."
            )
        assert self._spool is not None
        self._infos[name] = TensorInfo(dtype, tuple(stored.shape))
        self._starts[name] = self._spool.tell()
        data = stored.reshape(-1).view(torch.uint8).numpy().data
        try:
            self._spool.write(data)
        except OSError as fault:
            raise self._fault(fault) from fault

    def add_pair(self, module: str, up: Tensor, down: Tensor) -> None:
        """Take the factors of a module; their product is the change as it is."""
        import torch

        self.add(f"{module}.lora_up.weight", up)
        self.add(f"{module}.lora_down.weight", down)
        self.add(f"{module}.alpha", torch.tensor(float(up.shape[1])))

    def finish(self, metadata: Mapping[str, str]) -> Path:
        """Write the file.

        Args:
            metadata: Strings for its header.

        Raises:
            DiskFullError: There is no room.
            ResourceError: The disk failed.
        """
        layout = layout_of(list(self._infos.items()))
        header = layout.header_bytes(metadata)
        n_bytes = len(header) + layout.n_tensor_bytes
        check_disk(self._target, n_bytes)
        pending = PendingFile(self._target, n_bytes)
        try:
            pending.write_at(0, header)
            self._copy(pending, layout, len(header))
            pending.sync()
            pending.commit(layout)
        finally:
            pending.discard()
        return self._target

    def _copy(self, pending: PendingFile, layout: Layout, n_header: int) -> None:
        assert self._spool is not None
        for name, info in layout.infos.items():
            self._spool.seek(self._starts[name])
            at, left = n_header + layout.starts[name], info.n_bytes
            while left:
                try:
                    data = self._spool.read(min(left, _BLOCK))
                except OSError as fault:
                    raise self._fault(fault) from fault
                pending.write_at(at, data)
                at, left = at + len(data), left - len(data)

    def _fault(self, fault: OSError) -> MergeError:
        return ResourceError(
            f"The disk of {self._target.parent} failed or is full ({fault.strerror}); "
            "free some room or choose another folder."
        )
