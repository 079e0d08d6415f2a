"""Column by column similarity of two models, for the cosine methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib_merge.core.runs import Runs
from lib_merge.methods._ops.columns import add_to_columns, spread_columns, width_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Similarity:
    """How alike two tensors are.

    Attributes:
        columns: 1-D float64: the cosine of each column; 1 where both are zero, 0 where
            one of them is.
        whole: The cosine of the two tensors, by the same rule.
    """

    columns: Tensor
    whole: float


def measure_similarity(runs: Runs) -> Similarity:
    """Read two tensors once.

    Args:
        runs: Of two single inputs.
    """
    import torch

    width = width_of(runs.place.shape)
    sums: Tensor | None = None
    for run in runs:
        a, b = (values.double() for values in run.inputs)
        if sums is None:
            sums = torch.zeros(3, width, dtype=torch.float64, device=a.device)
        for table, values in zip(sums, (a * b, a * a, b * b), strict=True):
            add_to_columns(table, values, run.place.start)
    if sums is None:
        sums = torch.zeros(3, width, dtype=torch.float64)
    return Similarity(_cosines(sums), float(_cosines(sums.sum(dim=1, keepdim=True))))


def _cosines(sums: Tensor) -> Tensor:
    import torch

    dots, *squares = sums
    norm_a, norm_b = (values.sqrt() for values in squares)
    tiny = torch.finfo(sums.dtype).tiny
    cosines: Tensor = dots / norm_a.clamp_min(tiny) / norm_b.clamp_min(tiny)
    cosines = cosines.clamp_(-1.0, 1.0)
    is_both_zero = 1.0 - torch.maximum(norm_a, norm_b).sign()
    return cosines.add_(is_both_zero)


def limits_of(similarities: Tensor) -> tuple[float, float]:
    """The smallest and the largest similarity, without the outermost 1 % at each end.

    One at least is left out at each end where there are three or more, as with numpy's
    percentiles of method "midpoint".

    Args:
        similarities: 1-D, not empty.
    """
    ordered = similarities.sort().values
    n_low = -(-(ordered.numel() - 1) // 100)
    n_high = 99 * (ordered.numel() - n_low - 1) // 100
    return float(ordered[n_low]), float(ordered[n_low + n_high])


def shares_of_a(
    similarities: Tensor, limits: tuple[float, float], alpha: float
) -> Tensor:
    """How much of A each column gets.

    Args:
        similarities: 1-D float64.
        limits: The similarities that count as 0 and as 1.
        alpha: What is taken off; in [0, 1].

    Returns:
        1-D float64 in [0, 1]: the similarity between the limits, less alpha; 1 - alpha
        everywhere where the limits are equal, as there is nothing to tell apart.
    """
    low, high = limits
    if high <= low:
        return similarities.new_full(similarities.shape, 1.0 - alpha)
    stretched = ((similarities - low) / (high - low)).clamp_(0.0, 1.0)
    return stretched.sub_(alpha).clamp_min_(0.0)


def blend(a: Tensor, b: Tensor, shares: Tensor, start: int) -> Tensor:
    """Blend a run of two models by each column's share of A.

    Args:
        a: 1-D run of values of model A.
        b: Of model B.
        shares: 1-D, one number a column.
        start: Index of the run's first value in the flattened tensor.
    """
    spread = spread_columns(shares.to(a), start, a.numel())
    return b.lerp(a, spread)
