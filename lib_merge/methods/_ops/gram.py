"""Inner products of whole tensors: every model with every other, run by run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from lib_merge.core.runs import Place, Run, Runs

if TYPE_CHECKING:
    from torch import Tensor

Transform = Callable[["list[Tensor]", Place], "Sequence[Tensor]"]
"""Maps the models' values of one run (and where it lies) to those to be multiplied."""

# So many products are summed in one go; then the sums of the pieces are added in pairs.
_PIECE = 4096
# Of the symmetric result, rows are computed so many at a time, up to the diagonal.
_ROWS = 64


def gram_of(
    runs: Runs, transform: Transform | None = None, *, is_relative: bool = False
) -> Tensor:
    """Inner products of a pool's models over a whole tensor, in one pass.

    Products and sums are in float64, over fixed pieces in a fixed order: the same bits
    for every memory budget and any number of merging threads, as each of those computes
    alone. (Where one thread lets torch use several, the last bits may differ.)

    Args:
        runs: Whose last input is the pool.
        transform: Applied to the pool of each run first; gives as many tensors, of
            the same length.
        is_relative: Whether to measure the models less the first of them (in float64),
            so that the small distances of close models keep their digits.

    Returns:
        Float64 N x N, symmetric, on the runs' device (the CPU for an empty tensor,
        whose products are all 0).
    """

    def rows(run: Run) -> Iterable[Tensor]:
        pool: Iterable[Tensor] = run.inputs[-1]
        return pool if transform is None else transform(list(pool), run.place)

    n_models = len(runs.place.models)
    return gram_of_rows(runs, rows, n_rows=n_models, is_relative=is_relative)


def gram_of_rows(
    runs: Runs,
    rows: Callable[[Run], Iterable[Tensor]],
    *,
    n_rows: int,
    is_relative: bool = False,
) -> Tensor:
    """Inner products of whatever `rows` makes of each run; see `gram_of`.

    Args:
        runs: Of one tensor.
        rows: Called once a run; gives `n_rows` 1-D tensors of the run's length, which
            are read one after the other.
        n_rows: Their number.
        is_relative: Whether the first row is taken from all of them.
    """
    import torch

    total: Tensor | None = None
    pieces: Tensor | None = None
    for run in runs:
        pieces = _fill(pieces, rows(run), n_rows)
        if is_relative:
            _subtract_first(pieces)
        part = _products(pieces)
        total = part if total is None else total.add_(part)
    if total is None:
        return torch.zeros((n_rows, n_rows), dtype=torch.float64)
    return total


def _fill(spare: Tensor | None, rows: Iterable[Tensor], n_rows: int) -> Tensor:
    """Rows as float64 (pieces, rows, values of a piece), filled up with zeros."""
    import torch

    source = iter(rows)
    first = next(source)
    n_elements = first.numel()
    width = min(_PIECE, n_elements)
    n_full, n_rest = divmod(n_elements, width)
    shape = (n_full + (n_rest > 0), n_rows, width)
    if spare is None or spare.shape != shape:
        spare = torch.empty(shape, dtype=torch.float64, device=first.device)
    if n_rest:
        spare[n_full, :, n_rest:] = 0.0
    for i, row in zip(range(n_rows), chain([first], source), strict=True):
        cut = n_full * width
        spare[:n_full, i].copy_(row[:cut].view(n_full, width))
        if n_rest:
            spare[n_full, i, :n_rest].copy_(row[cut:])
    return spare


def _subtract_first(pieces: Tensor) -> None:
    first = pieces[:, 0]
    for i in range(1, pieces.shape[1]):
        pieces[:, i].sub_(first)
    first.zero_()


def _products(pieces: Tensor) -> Tensor:
    n_rows = pieces.shape[1]
    gram = pieces.new_empty((n_rows, n_rows))
    for start in range(0, n_rows, _ROWS):
        stop = min(start + _ROWS, n_rows)
        others = pieces[:, :stop].transpose(1, 2)
        gram[start:stop, :stop] = _sum_pieces(pieces[:, start:stop].bmm(others))
    lower = gram.tril()
    return lower + lower.tril(-1).T


def _sum_pieces(parts: Tensor) -> Tensor:
    """The sum over the first axis, in halves: one order, few steps."""
    n_parts = parts.shape[0]
    while n_parts > 1:
        half = n_parts // 2
        parts[:half].add_(parts[n_parts - half : n_parts])
        n_parts -= half
    return parts[0]
