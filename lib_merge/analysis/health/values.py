"""Reads tensors of a checkpoint piece by piece, scaled fp8 multiplied out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib_merge.checkpoint.reader import CheckpointReader
from lib_merge.core.blocks import TensorInfo
from lib_merge.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_ELEMENTS = 1 << 22
"""So many values are in memory at a time, in float32."""


@dataclass(frozen=True)
class Piece:
    """Values [start, stop) of a tensor."""

    start: int
    stop: int


def pieces_of(info: TensorInfo) -> Iterator[Piece]:
    """A tensor's values in pieces, in order; none of an empty tensor."""
    n_elements = info.n_elements
    for start in range(0, n_elements, CHUNK_ELEMENTS):
        yield Piece(start, min(start + CHUNK_ELEMENTS, n_elements))


def read_scale(reader: CheckpointReader, key: str) -> float:
    """The number in a scale.

    Raises:
        CheckpointError: It is no finite number.
    """
    import math

    import torch

    value = float(reader.read(key).to(torch.float64)[0])
    if not math.isfinite(value):
        raise CheckpointError(
            f"{reader.header.path}, tensor '{key}': the scale is {value}; the weight "
            "cannot be computed, download the file again."
        )
    return value


def read_piece(
    reader: CheckpointReader, key: str, piece: Piece, scale: float | None = None
) -> Tensor:
    """Values of a tensor, multiplied by its scale where it has one.

    Returns:
        1-D, in the stored dtype, or in float32 where there is a scale.
    """
    import torch

    values = reader.read(key, piece.start, piece.stop)
    if scale is None:
        return values
    return values.to(torch.float32).mul_(scale)
