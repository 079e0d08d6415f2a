"""Reads what a file holds of a tensor, in pieces, its scale multiplied out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lib_merge.analysis.health.job import FileValues, Span
from lib_merge.analysis.health.values import Piece, read_piece, read_scale
from lib_merge.checkpoint.reader import CheckpointReader
from lib_merge.checkpoint.scaled import scale_keys

if TYPE_CHECKING:
    from torch import Tensor


class Source:
    """A file that values are read from, with the scales of its eight-bit weights.

    Args:
        reader: Of the file, open.
    """

    def __init__(self, reader: CheckpointReader) -> None:
        self.reader = reader
        self._scales = {
            weight: read_scale(reader, key)
            for weight, key in scale_keys(reader.header.infos).items()
        }

    def read(self, values: FileValues, piece: Piece) -> Tensor:
        """A piece of all that is wanted, as stored or in float32."""
        import torch

        if values.turned is not None:
            span = values.spans[0]
            matrix = self._read(span, 0, span.stop - span.start)
            turned = matrix.reshape(values.turned).t().reshape(-1)
            return turned[piece.start : piece.stop]
        found = []
        position = 0
        for span in values.spans:
            n_elements = span.stop - span.start
            start = max(piece.start - position, 0)
            stop = min(piece.stop - position, n_elements)
            if start < stop:
                found.append(self._read(span, start, stop))
            position += n_elements
        if len(found) == 1:
            return found[0]
        return torch.cat([part.to(torch.float32) for part in found])

    def _read(self, span: Span, start: int, stop: int) -> Tensor:
        piece = Piece(span.start + start, span.start + stop)
        return read_piece(self.reader, span.key, piece, self._scales.get(span.key))
