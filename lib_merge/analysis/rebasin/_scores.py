"""The inner products of A's channels with B's, for one permutation at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib_merge.analysis.rebasin._assign import Scores
from lib_merge.analysis.rebasin.pair import A, B, PairReader
from lib_merge.analysis.rebasin.spec import Permutation, PermutationSpec, Slice, bits_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lib_merge.analysis.rebasin.spec import Permutations


@dataclass(frozen=True)
class Arithmetic:
    """Where products are computed, and in what.

    Attributes:
        device: torch device.
        dtype: float32 or float64.
        run_elements: Values of one model that are widened at once.
    """

    device: str
    dtype: torch.dtype
    run_elements: int


def product_cost(spec: PermutationSpec, permutation: Permutation) -> int:
    """Multiplications of one computation of a permutation's scores."""
    cost = 0
    for one in permutation.slices:
        shape = spec.shapes[one.key]
        rest = 1
        for axis, side in enumerate(shape):
            rest *= 1 if axis == one.axis else side
        cost += one.length * one.length * rest
    return cost


def usable(
    spec: PermutationSpec,
    permutation: Permutation,
    settled: Collection[str] | None,
) -> list[tuple[str, int]]:
    """The (key, axis) pairs that say something about a permutation.

    Args:
        spec: The spec.
        permutation: The one in question.
        settled: What is known of the others; a tensor whose other axis follows one
            that is not among them says nothing yet. None trusts all of them.
    """
    touched = permutation.touched()
    if settled is None:
        return list(touched)
    return [
        (key, axis)
        for key, axis in touched
        if all(name in settled for name in spec.names_on(key, axis=1 - axis))
    ]


def score_channels(
    reader: PairReader,
    permutation: Permutation,
    others: Permutations,
    arithmetic: Arithmetic,
    *,
    settled: Collection[str] | None = None,
    check: Callable[[], None],
) -> Scores:
    """Inner products of all channels, over all tensors that follow a permutation.

    Args:
        reader: The pair.
        permutation: What is to be chosen.
        others: What B's other axes are permuted by.
        arithmetic: Where and how it is computed.
        settled: As for `usable`.
        check: Called once a tensor; may raise.
    """
    spec = reader.pair.spec
    table = _Table(permutation, arithmetic)
    for key, axis in usable(spec, permutation, settled):
        check()
        a = _as_matrices(reader.read(A, key, keep=True))
        b = _as_matrices(reader.read(B, key, keep=True))
        index = spec.index(key, 1 - axis, others)
        order = None if index is None else _indices(index)
        for one in permutation.slices_of(key, axis):
            add = table.add_rows if axis == 0 else table.add_columns
            add(a, b, one, order)
    return table.result()


def _as_matrices(tensor: Tensor) -> Tensor:
    """As (axis 0, axis 1, all others), with sides of 1 where there are none."""
    n_rows = tensor.shape[0]
    n_columns = tensor.shape[1] if tensor.ndim > 1 else 1
    return tensor.reshape(n_rows, n_columns, -1)


def _indices(index: object) -> Tensor:
    import torch

    return torch.from_numpy(index)


class _Table:
    """Score matrices in the making, one a part."""

    def __init__(self, permutation: Permutation, arithmetic: Arithmetic) -> None:
        import torch

        self._how = arithmetic
        self._starts = [0]
        for size in permutation.parts:
            self._starts.append(self._starts[-1] + size)
        self._parts = [
            torch.zeros(n, n, dtype=arithmetic.dtype, device=arithmetic.device)
            for n in permutation.parts
        ]
        self._squares = torch.zeros(2, permutation.width, dtype=torch.float64)

    def _wide(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._how.device).to(self._how.dtype)

    def add_rows(self, a: Tensor, b: Tensor, one: Slice, order: Tensor | None) -> None:
        """Add the products of rows; `order` permutes B's columns."""
        matrix, place = self._part(one)
        step = max(1, self._how.run_elements // max(1, a[0].numel()))
        stop = one.start + one.length
        for b_rows in _ranges(one.start, stop, step):
            wide_b = b[b_rows.start : b_rows.stop]
            if order is not None:
                wide_b = bits_of(wide_b).index_select(1, order).view(b.dtype)
            wide_b = self._wide(wide_b).flatten(1)
            self._add_squares(B, wide_b, one, b_rows.start - one.start)
            for a_rows in _ranges(one.start, stop, step):
                wide_a = self._wide(a[a_rows.start : a_rows.stop]).flatten(1)
                if b_rows.start == one.start:
                    self._add_squares(A, wide_a, one, a_rows.start - one.start)
                rows = _shifted(a_rows, place - one.start)
                columns = _shifted(b_rows, place - one.start)
                matrix[rows, columns].addmm_(wide_a, wide_b.T)

    def add_columns(
        self, a: Tensor, b: Tensor, one: Slice, order: Tensor | None
    ) -> None:
        """Add the products of columns; `order` permutes B's rows."""
        matrix, place = self._part(one)
        columns = slice(one.start, one.start + one.length)
        step = max(1, self._how.run_elements // max(1, one.length * a.shape[2]))
        target = matrix[place : place + one.length, place : place + one.length]
        for rows in _ranges(0, len(a), step):
            part_b = b[rows.start : rows.stop, columns]
            if order is not None:
                picked = order[rows.start : rows.stop]
                part_b = bits_of(b)[:, columns].index_select(0, picked).view(b.dtype)
            wide_a = self._columns(a[rows.start : rows.stop, columns])
            wide_b = self._columns(part_b)
            self._add_squares(A, wide_a, one, 0)
            self._add_squares(B, wide_b, one, 0)
            target.addmm_(wide_a, wide_b.T)

    def _columns(self, part: Tensor) -> Tensor:
        """(column, everything else) of some rows, a view where that is possible."""
        wide = self._wide(part)
        if wide.shape[2] == 1:
            return wide[:, :, 0].T
        return wide.transpose(0, 1).flatten(1)

    def _part(self, one: Slice) -> tuple[Tensor, int]:
        """The matrix that a slice adds to, and where in it the slice begins."""
        number = max(i for i, at in enumerate(self._starts[:-1]) if at <= one.offset)
        return self._parts[number], one.offset - self._starts[number]

    def _add_squares(self, model: int, wide: Tensor, one: Slice, skipped: int) -> None:
        at = one.offset + skipped
        squares = wide.square().sum(dim=1).double().cpu()
        self._squares[model, at : at + len(wide)] += squares

    def result(self) -> Scores:
        """What was added up."""
        norms = self._squares.sqrt().numpy()
        matrices = tuple(part.cpu().numpy() for part in self._parts)
        return Scores(matrices, norms[A], norms[B])


def _ranges(start: int, stop: int, step: int) -> Iterator[slice]:
    for at in range(start, stop, step):
        yield slice(at, min(at + step, stop))


def _shifted(rows: slice, shift: int) -> slice:
    return slice(rows.start + shift, rows.stop + shift)


@contextmanager
def full_precision() -> Iterator[None]:
    """Products of float32 in float32, whatever the program around has chosen."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
