"""What a LoRA changes in one tensor, in the tensor's own layout, part by part."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from lib_merge.checkpoint.handles import Handles
from lib_merge.checkpoint.header import FileState
from lib_merge.checkpoint.reader import CheckpointReader
from lib_merge.errors import CheckpointError, NonFiniteError
from lib_merge.lora.change import (
    Change,
    Dense,
    Factors,
    Product,
    change_from_base,
    change_of,
    panel_bounds,
)
from lib_merge.lora.file import LoraModule, read_lora
from lib_merge.lora.fit import Placed, bind, matrix_sides

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_CACHE_BYTES = 64 << 20
_N_PANELS = 2


@dataclass(frozen=True)
class Piece:
    """A module's part in a tensor's change.

    Attributes:
        placed: The module, and what it means.
        factors: Its tensors in the working dtype.
        change: Rows of the change as the tensor has them; None where the change
            depends on the weight.
        first: The first of the tensor's rows that it changes.
        last: The row behind the last.
    """

    placed: Placed
    factors: Factors
    change: Change | None
    first: int
    last: int

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return sum(factor.nbytes for factor in self.factors.values())


@dataclass(frozen=True)
class FittedChange:
    """What a LoRA adds to one tensor at strength 1; safe from any thread.

    Attributes:
        pieces: What the modules contribute.
        n_rows: Of the tensor.
        n_columns: Of the tensor, all but its first axis.
    """

    pieces: tuple[Piece, ...]
    n_rows: int
    n_columns: int

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return sum(piece.n_bytes for piece in self.pieces)

    def panel(self, first: int, last: int) -> Tensor:
        """Rows [first, last) of the change; not to be written to."""
        import torch

        only = self.pieces[0]
        if len(self.pieces) == 1 and only.last - only.first == self.n_rows:
            assert only.change is not None
            return only.change.rows(first, last)
        some = next(iter(only.factors.values()))
        out = torch.zeros(
            last - first, self.n_columns, dtype=some.dtype, device=some.device
        )
        for piece in self.pieces:
            start, stop = max(first, piece.first), min(last, piece.last)
            if start < stop:
                assert piece.change is not None
                rows = piece.change.rows(start - piece.first, stop - piece.first)
                out[start - first : stop - first] += rows
        return out

    def add_panel(self, values: Tensor, start: int, stop: int, factor: float) -> None:
        """Add whole rows of the change, times a factor, to a run of values.

        Args:
            values: Flat; written to.
            start: Index of their first in the tensor; where a row begins.
            stop: Index behind the last; where a row ends.
            factor: Of the change.
        """
        first, last = start // self.n_columns, stop // self.n_columns
        rows = values.view(last - first, self.n_columns)
        only = self.pieces[0]
        if len(self.pieces) == 1 and isinstance(only.change, Product):
            start, stop = max(first, only.first), min(last, only.last)
            if start < stop:
                up = only.change.up[start - only.first : stop - only.first]
                part = rows[start - first : stop - first]
                part.addmm_(up, only.change.down, alpha=factor)
            return
        rows.add_(self.panel(first, last), alpha=factor)

    def whole(self, base: Tensor) -> Tensor:
        """All of the change, for a weight that it may depend on.

        Args:
            base: The weight, flat, in the working dtype; not written to.

        Returns:
            Flat, of the base's size.
        """
        import torch

        matrix = base.reshape(self.n_rows, self.n_columns)
        out = torch.zeros_like(matrix)
        for piece in self.pieces:
            part = matrix[piece.first : piece.last]
            rows = piece.change
            if rows is None:
                out[piece.first : piece.last] += _from_base(piece, part)
            else:
                out[piece.first : piece.last] += rows.rows(0, rows.n_rows)
        return out.reshape(-1)


def _from_base(piece: Piece, part: Tensor) -> Tensor:
    target = piece.placed.target
    if target.is_transposed:
        part = part.transpose(0, 1)
    if target.is_rotated:
        part = part.roll(part.shape[0] // 2, 0)
    change = change_from_base(piece.placed.module, piece.factors, part)
    return _as_stored(piece.placed, change)


def _as_stored(placed: Placed, change: Tensor) -> Tensor:
    """A change as trainers see it, in the checkpoint's layout."""
    if placed.target.is_rotated:
        change = change.roll(change.shape[0] // 2, 0)
    return change.transpose(0, 1) if placed.target.is_transposed else change


class ChangeWindow:
    """Runs of a change's flattened values, computed in blocks of rows.

    Args:
        change: What is computed; without pieces that depend on the weight.
    """

    def __init__(self, change: FittedChange) -> None:
        self._change = change
        self._held: OrderedDict[int, Tensor] = OrderedDict()

    def values(self, start: int, stop: int) -> Tensor:
        """Values [start, stop), 1-D; not to be written to."""
        import torch

        n_columns = self._change.n_columns
        parts = []
        at = start
        while at < stop:
            first, last = panel_bounds(self._change.n_rows, n_columns, at // n_columns)
            end = min(stop, last * n_columns)
            panel = self._panel(first, last).reshape(-1)
            parts.append(panel[at - first * n_columns : end - first * n_columns])
            at = end
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _panel(self, first: int, last: int) -> Tensor:
        held = self._held.get(first)
        if held is None:
            while len(self._held) >= _N_PANELS:
                self._held.popitem(last=False)
            held = self._held[first] = self._change.panel(first, last)
        return held


_Entry: TypeAlias = "tuple[FileState, str, str, tuple[int, ...], torch.dtype, str]"


class LoraStore:
    """Open LoRA files, with the factors of the tensors used last; safe from any thread.

    Args:
        handles: Shared with other open files.
    """

    def __init__(self, handles: Handles) -> None:
        self._handles = handles
        self._lock = threading.Lock()
        self._readers: dict[FileState, CheckpointReader] = {}
        self._held: OrderedDict[_Entry, FittedChange] = OrderedDict()
        self._n_held = 0

    def keep_only(self, states: Collection[FileState]) -> None:
        """Close files, and forget what was read of them, that are not used now.

        Args:
            states: Of the files that are; a file that changed has another.
        """
        with self._lock:
            for state in [s for s in self._readers if s not in states]:
                self._readers.pop(state).close()
            for entry in [e for e in self._held if e[0] not in states]:
                self._n_held -= self._held.pop(entry).n_bytes

    def change(
        self,
        path: str,
        state: FileState,
        arch_id: str,
        *,
        key: str,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: str,
    ) -> FittedChange:
        """What a file adds to a tensor.

        Args:
            path: The LoRA file.
            state: What it was when it was opened.
            arch_id: The architecture that its names are read for.
            key: The tensor.
            shape: The tensor's.
            dtype: What is computed in.
            device: Where.

        Raises:
            CheckpointError: The file changed, or does not fit.
            NonFiniteError: A factor is NaN or infinite.
        """
        entry = (state, arch_id, key, shape, dtype, device)
        with self._lock:
            found = self._held.get(entry)
            if found is not None:
                self._held.move_to_end(entry)
                return found
            reader = self._reader(path, state)
        placed = bind(read_lora(path), arch_id).at(key)
        pieces = [self._piece(p, reader, shape, dtype, device) for p in placed]
        n_columns = 1
        for side in shape[1:]:
            n_columns *= side
        n_rows = shape[0] if shape else 1
        made = FittedChange(tuple(pieces), n_rows, n_columns)
        self._keep(entry, made)
        return made

    def _reader(self, path: str, state: FileState) -> CheckpointReader:
        reader = self._readers.get(state)
        if reader is None:
            header = read_lora(path).header
            reader = self._readers[state] = CheckpointReader(header, self._handles)
        return reader

    def _keep(self, entry: _Entry, made: FittedChange) -> None:
        with self._lock:
            if entry in self._held:
                return
            self._held[entry] = made
            self._n_held += made.n_bytes
            while self._n_held > _CACHE_BYTES and len(self._held) > 1:
                self._n_held -= self._held.popitem(last=False)[1].n_bytes

    def _piece(
        self,
        placed: Placed,
        reader: CheckpointReader,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: str,
    ) -> Piece:
        factors = read_factors(placed.module, reader, dtype, device)
        n_rows = shape[0] if shape else 1
        first, last = placed.target.rows.span(n_rows)
        if placed.target.is_transposed:
            first, last = 0, n_rows
        if placed.module.needs_base:
            return Piece(placed, factors, None, first, last)
        change = change_of(placed.module, factors)
        sides = matrix_sides(placed.target, shape)
        if (change.n_rows, change.n_columns) != sides:
            raise CheckpointError(
                f"{reader.header.path} no longer fits in '{placed.module.name}'; plan "
                "the merge again."
            )
        if placed.target.is_transposed or placed.target.is_rotated:
            stored = _as_stored(placed, change.rows(0, change.n_rows))
            change = Dense(stored.contiguous())
        return Piece(placed, factors, change, first, last)

    def close(self) -> None:
        """Close every file and forget what was read."""
        with self._lock:
            for reader in self._readers.values():
                reader.close()
            self._readers.clear()
            self._held.clear()
            self._n_held = 0


def read_factors(
    module: LoraModule,
    reader: CheckpointReader,
    dtype: torch.dtype,
    device: str = "cpu",
) -> dict[str, Tensor]:
    """The tensors of a module, by the part that they play.

    Raises:
        NonFiniteError: One of them holds NaN or infinity.
    """
    import torch

    shapes = dict(module.shapes)
    factors = {}
    for role, name in module.tensors:
        values = reader.read(name).to(dtype)
        # The sum of finite values may overflow: only then is each one looked at.
        is_suspect = not math.isfinite(float(values.sum()))
        if is_suspect and not bool(torch.isfinite(values).all()):
            raise NonFiniteError(
                f"{reader.header.path}, tensor '{name}', holds NaN or infinity; the "
                "LoRA is damaged, choose another file or an earlier save of it."
            )
        factors[role] = values.reshape(shapes[role]).to(device)
    return factors
