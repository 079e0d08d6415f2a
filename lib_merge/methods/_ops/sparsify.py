"""What sparsifies a delta: trimming to exact limits, rank tables for DELLA's drop."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from lib_merge.methods._ops.draws import (
    Draws,
    at_least,
    drop_limits,
    float_bits,
    masked,
)
from lib_merge.methods._ops.order import (
    Histogram,
    Passes,
    bins_of,
    float_of,
    histograms,
    order_statistics,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Limits:
    """Magnitudes, as float32, that trimming keeps; both ends belong to what is kept.

    Attributes:
        low: 0 keeps the smallest.
        high: Infinity keeps the largest.
    """

    low: float = 0.0
    high: float = math.inf


def trim_ranks(
    n_elements: int, density: float, outliers: float = 0.0
) -> tuple[int, int]:
    """Ranks of the smallest and the largest magnitude that trimming keeps.

    The floor(outliers * n) largest go, then the smallest until the rank
    max(floor((1 - density) * n), 1) of TIES less the outliers: without outliers, and
    without equal magnitudes, n - floor((1 - density) * n) + 1 values stay. At least one
    always stays. Both products are those of the numbers as written in decimal.

    Args:
        n_elements: n, at least 1.
        density: Share to keep, in [0, 1].
        outliers: Share of the largest to drop, in [0, 1).

    Returns:
        Counted from 1 in ascending order; the first is never above the second.
    """
    n_large = math.floor(_as_written(outliers) * n_elements)
    n_small = math.floor((1 - _as_written(density)) * n_elements)
    return max(n_small - n_large, 1), n_elements - n_large


def _as_written(number: float) -> Fraction:
    return Fraction(str(float(number)))


def trimmed(values: Tensor, limits: Limits) -> Tensor:
    """Zero every value whose magnitude, as float32, is outside the limits.

    Args:
        values: 1-D, float32 or float64.
        limits: From `find_limits`.

    Returns:
        A new tensor, or `values` itself where nothing is trimmed.
    """
    import torch

    if values.dtype is torch.float64:
        return _trimmed_double(values, limits)
    kept = values
    if limits.low > 0.0:
        kept = torch.nn.functional.hardshrink(
            kept, float_of(float_bits(limits.low) - 1)
        )
    if limits.high < math.inf:
        kept = kept - torch.nn.functional.hardshrink(kept, limits.high)
    return kept


def _trimmed_double(values: Tensor, limits: Limits) -> Tensor:
    kept = values
    if limits.low > 0.0:
        kept = masked(kept, at_least(values, limits.low))
    if limits.high < math.inf:
        above = at_least(values, float_of(float_bits(limits.high) + 1))
        kept = masked(kept, above.bitwise_not_())
    return kept


def find_limits(
    passes: Passes, n_elements: int, *, density: float, outliers: float = 0.0
) -> list[Limits]:
    """What trimming keeps of each model.

    Args:
        passes: Started twice; not at all where all is kept.
        n_elements: Of the whole tensor.
        density: Share to keep; 1 keeps all that are no outliers.
        outliers: Share of the largest to drop.

    Returns:
        One a model; none at all (all is kept) for an empty tensor, or where no value
        has to go.
    """
    if not n_elements:
        return []
    low, high = trim_ranks(n_elements, density, outliers)
    is_low, is_high = low > 1, high < n_elements
    ranks = [low] * is_low + [high] * is_high
    if not ranks:
        return []
    return [
        Limits(found[0] if is_low else 0.0, found[-1] if is_high else math.inf)
        for found in order_statistics(passes, n_elements, ranks)
    ]


@dataclass(frozen=True)
class RankTable:
    """Keep probabilities of one model by magnitude, for DELLA's drop.

    Attributes:
        offset: What is taken from a bin to find its entry; entry 0 is bin 0 (zeros).
        limits: The drop rate of each entry, as `Draws.keep_at` takes it (int32).
        factors: What a kept value is multiplied by, float64; None for 1 throughout.
    """

    offset: int
    limits: Tensor
    factors: Tensor | None

    def dropped(self, values: Tensor, draws: Draws, model: int) -> Tensor:
        """Drop what the draws say and rescale the rest.

        Args:
            values: 1-D, a run of the model that was measured.
            draws: Of that run.
            model: The model's position in the pool.

        Returns:
            A new tensor.
        """
        entries = bins_of(values).sub_(self.offset).clamp_(0, len(self.limits) - 1)
        limits = self.limits.to(values.device).index_select(0, entries)
        kept = masked(values, draws.keep_at(model, limits))
        if self.factors is None:
            return kept
        factors = self.factors.to(values.device, values.dtype)
        return kept.mul_(factors.index_select(0, entries))


def rank_tables(
    runs: Iterable[Iterable[Tensor]],
    n_elements: int,
    *,
    drop_rate: float,
    epsilon: float,
    rescale: float,
) -> list[RankTable]:
    """DELLA's keep probabilities, (1 - drop_rate) + epsilon * (rank/n - (n + 1)/(2n)).

    The rank of a value is that of its magnitude among all of the model's, ascending
    from 1. Magnitudes that agree in the upper 16 bits of their float32 pattern (they
    differ by less than 1/256) share the mean of their ranks, so that the mean keep
    probability is exactly that of different ranks. Clamped to [0, 1].

    Args:
        runs: One pass over the tensor.
        n_elements: Of the whole tensor.
        drop_rate: Mean probability to drop.
        epsilon: How far the keep probabilities of the largest and the smallest value
            are apart.
        rescale: A kept value is divided by its keep probability to this power.

    Returns:
        One a model; some ten kilobytes each where deltas span some ten octaves.
    """
    tables = []
    for found in histograms(runs, n_elements):
        keep = keep_rates(found, drop_rate=drop_rate, epsilon=epsilon)
        tables.append(_rank_table(found.bins, keep, rescale=rescale))
    return tables


def keep_rates(histogram: Histogram, *, drop_rate: float, epsilon: float) -> Any:
    """The keep probability of each bin (numpy); see `rank_tables`."""
    import numpy as np

    n_elements = histogram.counts.sum()
    centred = (mid_ranks(histogram.counts) - (n_elements + 1) / 2) / n_elements
    return np.clip((1.0 - drop_rate) + epsilon * centred, 0.0, 1.0)


def mid_ranks(counts: Any) -> Any:
    """The mean rank, from 1, of the values in each bin of a histogram (numpy)."""
    return counts.cumsum() - counts + (counts + 1) / 2


def _rank_table(bins: Any, keep: Any, *, rescale: float) -> RankTable:
    import numpy as np
    import torch

    above = bins[bins > 0]
    offset = int(above[0]) - 1 if above.size else 0
    entries = torch.from_numpy(np.maximum(bins - offset, 0))
    n_entries = int(entries[-1]) + 1
    limits = torch.zeros(n_entries, dtype=torch.int32)
    limits[entries] = drop_limits(torch.from_numpy(1.0 - keep))
    if not rescale:
        return RankTable(offset, limits, None)
    factors = torch.zeros(n_entries, dtype=torch.float64)
    # Where nothing is kept the factor does not matter, but must be finite.
    factors[entries] = torch.from_numpy(np.where(keep > 0.0, keep, 1.0) ** -rescale)
    return RankTable(offset, limits, factors)
