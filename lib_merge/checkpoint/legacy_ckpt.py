"""Pickled checkpoints (.ckpt, .pt): loaded as plain tensors only, or refused."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.core.blocks import TensorInfo
from lib_merge.core.dtypes import DType
from lib_merge.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from lib_merge.checkpoint.header import FileState

_FAULTS = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
    EOFError,
    OSError,
)
"""What torch.load raises on damaged or refused files, over its versions."""


def load_infos(path: Path, state: FileState) -> dict[str, TensorInfo]:
    """Shape and dtype of every tensor in a pickled checkpoint.

    Raises:
        CheckpointError: It is damaged, holds anything but plain tensors, or none.
    """
    tensors = load_tensors(path, state)
    return {key: _info(path, key, tensor) for key, tensor in tensors.items()}


@lru_cache(maxsize=2)
def load_tensors(path: Path, state: FileState) -> Mapping[str, Tensor]:
    """The tensors of a pickled checkpoint, on the CPU.

    Files in the zip form (torch 1.6 and later) are mapped into memory, so that only
    what is read takes room; the older form is loaded whole.

    Args:
        path: The file.
        state: Its present state; a changed file is loaded anew.

    Raises:
        CheckpointError: As in `load_infos`.
    """
    import torch

    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    try:
        # weights_only unpickles tensors and containers; it never runs code of the file.
        data = torch.load(path, mmap=zipfile.is_zipfile(path), **options)
    except _FAULTS as fault:
        first_line = (str(fault).splitlines() or [""])[0][:160]
        raise CheckpointError(
            f"{path} ({state.n_bytes} bytes) is refused: as a pickle it is damaged or "
            f"holds more than plain tensors ({type(fault).__name__}: {first_line}); "
            "use the .safetensors version of this model."
        ) from fault
    tensors = _tensors_in(data)
    if not tensors:
        raise CheckpointError(
            f"{path} is a pickle without named tensors; choose a whole checkpoint."
        )
    return tensors


def _tensors_in(data: Any) -> dict[str, Tensor]:
    import torch

    if isinstance(data, dict) and isinstance(data.get("state_dict"), dict):
        data = data["state_dict"]
    if not isinstance(data, dict):
        return {}
    return {
        key: tensor
        for key, tensor in data.items()
        if isinstance(key, str) and isinstance(tensor, torch.Tensor)
    }


def _info(path: Path, key: str, tensor: Tensor) -> TensorInfo:
    name = str(tensor.dtype).removeprefix("torch.")
    for dtype in DType:
        if dtype.torch_name == name:
            return TensorInfo(dtype, tuple(tensor.shape))
    raise CheckpointError(
        f"{path}, tensor '{key}': the dtype {name} is not one that MergeLab reads; "
        "convert the file to float16 first."
    )
