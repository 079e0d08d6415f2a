"""Top-k tensor sum: some of A's values, by magnitude, put in the order of B's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.runs import Over
from lib_merge.core.spaces import Weight

if TYPE_CHECKING:
    from torch import Tensor


_BLOCK = 1 << 20


def _workspace(shape: tuple[int, ...], n_bytes: int) -> float:
    # First B's order is found, with 64-bit indices and half as much again to sort in;
    # then A's sorted values lie beside the order in 32 bits.
    return math.prod(shape) * max(12.0 - n_bytes, 4.0 + n_bytes)


@merge_method(
    label="Top-k tensor sum",
    formula="A's j-th smallest value where B has its j-th smallest, for the magnitudes "
    "of A from rank beta * n up to rank (alpha + beta) * n; A elsewhere",
    source="s1dlx, meh, 2023, https://github.com/s1dlx/meh",
    over=Over.TENSOR,
    workspace=_workspace,
)
def top_k_tensor_sum(
    a: Weight,
    b: Weight,
    *,
    alpha: Annotated[
        float,
        Param(
            0.0,
            1.0,
            0.01,
            help="share of the values that are put in B's order: 0 gives A, 1 puts all",
        ),
    ] = 0.5,
    beta: Annotated[
        float,
        Param(
            0.0,
            1.0,
            0.01,
            help="where the share begins: 0 takes the smallest magnitudes, 1 - alpha "
            "the largest; a share over the end goes on at the smallest",
        ),
    ] = 0.0,
) -> Weight:
    """Rearrange some of A's values, chosen by magnitude, as B's are arranged.

    Formula: let both tensors be sorted. Where B has its j-th smallest value the result
    is A's j-th smallest value, if the magnitude of that has a rank above
    round(beta * n) and up to round((alpha + beta) * n) among A's n magnitudes;
    elsewhere it is A. Where alpha + beta is above 1 the window goes on at the smallest
    magnitudes. With alpha 1 the result has exactly the values of A in the order of B.

    Shapes: any, equal; order is over the whole tensor, which is held. Returns the
    inputs' dtype (float32 or float64); nothing is computed, values are only moved. It
    is the one method that needs more than 2 GB for SDXL's largest tensor in float64.

    Args:
        a: Values of model A.
        b: Values of model B, of which only the order matters.
        alpha: Share of A's magnitudes that are put in B's order. At 0 the result is A,
            at 1 all of A's values are.
        beta: Begin of that share. At 0 it begins at the smallest magnitudes, at
            1 - alpha it ends at the largest; at 1 it begins anew at the smallest.

    Degenerate inputs: equal models come back as they are, exactly; equal values of B
    count in order of place, so where B is constant (or zero) A's values come sorted;
    A's equal magnitudes at an end of the window are all in (upper end) or all out
    (lower end); B opposite to A puts A's values in reverse order; one element is A's;
    empty stays empty.

    Source: s1dlx, meh (`top_k_tensor_sum`), 2023, https://github.com/s1dlx/meh; also in
    sd-mecha. The lower end is not in the window, as in meh; in sd-mecha it is, so that
    one value more is moved there and a share of 0 moves one.
    """
    windows = _windows(a.numel(), alpha, beta)
    if not windows:
        return a.clone()
    places = _ascending(b.reshape(-1))
    ordered = _sorted(a.reshape(-1))
    merged = a.clone().reshape(-1)
    for window in windows:
        for first, last in _spans(ordered, *window):
            for start in range(first, last, _BLOCK):
                stop = min(start + _BLOCK, last)
                merged[places[start:stop].long()] = ordered[start:stop]
    return merged.reshape(a.shape)


def _ascending(values: Tensor) -> Tensor:
    """Places (int32) of values in ascending order, equal ones in order of place."""
    import torch

    if values.device.type != "cpu":
        return values.argsort(stable=True).int()
    # numpy sorts in half the memory that torch takes, and in a third of the time.
    places = values.detach().numpy().argsort(kind="stable")
    return torch.from_numpy(places.astype("int32"))


def _sorted(values: Tensor) -> Tensor:
    """Values in ascending order, in memory of their own."""
    import torch

    if values.device.type != "cpu":
        return values.sort().values
    array = values.detach().numpy().copy()
    array.sort()
    return torch.from_numpy(array)


def _windows(n: int, alpha: float, beta: float) -> list[tuple[int, int]]:
    """Ranks of magnitudes, from (excluded) and up to (included), counted from 1."""
    end = alpha + beta
    windows = [(round(n * beta), round(n * min(1.0, end)))]
    if end > 1.0:
        windows.append((0, round(n * (end - 1.0))))
    return [(low, high) for low, high in windows if low < high]


def _spans(ordered: Tensor, low: int, high: int) -> Iterator[tuple[int, int]]:
    """Where values with magnitudes of some ranks lie in the sorted tensor."""
    import torch

    largest = _magnitude(ordered, high)
    ends = [-largest, largest]
    if low:
        smallest = _magnitude(ordered, low)
        ends = [-largest, -smallest, smallest, largest]
    limits = torch.stack(ends)
    half = len(ends) // 2
    below = torch.searchsorted(ordered, limits[:half]).tolist()
    above = torch.searchsorted(ordered, limits[half:], right=True).tolist()
    places = below + above
    yield from zip(places[::2], places[1::2], strict=True)


def _magnitude(ordered: Tensor, rank: int) -> Tensor:
    """The magnitude of a rank, counted from 1, of values in ascending order.

    Magnitudes ascend from the first positive value up and from the last negative one
    down; so many of the negative ones are among the smallest as the search finds.
    """
    import torch

    n_negative = int(torch.searchsorted(ordered, ordered.new_zeros(())))
    down, up = ordered[:n_negative], ordered[n_negative:]
    least, most = max(0, rank - len(up)), min(rank, len(down))
    while least < most:
        n_down = (least + most) // 2
        if -down[-1 - n_down] < up[rank - n_down - 1]:
            least = n_down + 1
        else:
            most = n_down
    last = [-down[-least]] if least else []
    last += [up[rank - least - 1]] if rank > least else []
    return torch.stack(last).max()
