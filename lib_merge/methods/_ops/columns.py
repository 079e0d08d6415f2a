"""Columns of a tensor that is seen in flat runs: what one place has in every row.

A row is an entry of the first axis that has more than one. Value i of the flattened
tensor lies in column i % width, so that runs may be cut anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def width_of(shape: tuple[int, ...]) -> int:
    """How many columns a tensor has; 1 for 0-D and 1-D ones, never 0."""
    sides = list(shape)
    while sides and sides[0] == 1:
        del sides[0]
    width = 1
    for side in sides[1:]:
        width *= side
    return max(1, width)


def add_to_columns(table: Tensor, values: Tensor, start: int) -> None:
    """Add a run's values to the sums of their columns, in place.

    Args:
        table: 1-D, one sum a column.
        values: 1-D, of the table's dtype.
        start: Index of the first value in the flattened tensor.
    """
    width = table.numel()
    offset = start % width
    n_head = min(values.numel(), (width - offset) % width)
    table[offset : offset + n_head] += values[:n_head]
    n_rows, n_tail = divmod(values.numel() - n_head, width)
    if n_rows:
        body = values[n_head : n_head + n_rows * width]
        table += body.view(n_rows, width).sum(dim=0)
    if n_tail:
        table[:n_tail] += values[values.numel() - n_tail :]


def spread_columns(table: Tensor, start: int, n_elements: int) -> Tensor:
    """One number a column, laid out along a run.

    Args:
        table: 1-D, one number a column.
        start: Index of the run's first value in the flattened tensor.
        n_elements: Length of the run.

    Returns:
        1-D, of the run's length.
    """
    width = table.numel()
    turned = table.roll(-(start % width))
    if n_elements <= width:
        return turned[:n_elements]
    return turned.repeat(-(-n_elements // width))[:n_elements]


def copy_columns(
    target: Tensor, source: Tensor, start: int, *, width: int, first: int, last: int
) -> None:
    """Copy a range of columns of a run, in place.

    Args:
        target: 1-D run that is written.
        source: Run of the same length and place.
        start: Index of its first value in the flattened tensor.
        width: Number of columns.
        first: First column to copy.
        last: The one behind the last.
    """
    n_elements = target.numel()
    offset = start % width
    n_head = min(n_elements, (width - offset) % width)
    low, high = max(first - offset, 0), min(last - offset, n_head)
    if low < high:
        target[low:high] = source[low:high]
    n_rows, n_tail = divmod(n_elements - n_head, width)
    if n_rows:
        body = slice(n_head, n_elements - n_tail)
        rows = target[body].view(n_rows, width)
        rows[:, first:last] = source[body].view(n_rows, width)[:, first:last]
    tail = n_elements - n_tail
    high = tail + min(last, n_tail)
    if tail + first < high:
        target[tail + first : high] = source[tail + first : high]
