"""What sparsifies a delta: trimming by exact order statistics, rank tables for DELLA.

Everything is found on histograms of magnitudes, in integer counts: a tensor may be cut
up in any way, and it never has to be in memory as a whole.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from lib_merge.methods._ops.draws import (
    Draws,
    at_least,
    drop_limits,
    float_bits,
    magnitude_bits,
    masked,
)

if TYPE_CHECKING:
    from torch import Tensor

Passes = Callable[[], Iterable[Iterable["Tensor"]]]
"""Starts a pass over a tensor: for every run, the run's values of each model in turn.

1-D each; a model's values may be made just before they are taken.
"""

# A float32 magnitude has 31 bits: the exponent and 8 bits of the mantissa are counted
# first, the other 15 in a second pass.
_LOW_BITS = 15
_LOW_BINS = 1 << _LOW_BITS
_BINS = 1 << 16


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
        kept = torch.nn.functional.hardshrink(kept, _float_of(_bits_below(limits.low)))
    if limits.high < math.inf:
        kept = kept - torch.nn.functional.hardshrink(kept, limits.high)
    return kept


def _trimmed_double(values: Tensor, limits: Limits) -> Tensor:
    kept = values
    if limits.low > 0.0:
        kept = masked(kept, at_least(values, limits.low))
    if limits.high < math.inf:
        above = at_least(values, _float_of(float_bits(limits.high) + 1))
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
        Limits(
            found[0] if is_low else 0.0,
            found[-1] if is_high else math.inf,
        )
        for found in order_statistics(passes, ranks)
    ]


def order_statistics(passes: Passes, ranks: Sequence[int]) -> list[tuple[float, ...]]:
    """The magnitudes, as float32, that have some ranks in each model.

    A radix selection on the bit patterns in two passes: exact, whatever the cut.

    Args:
        passes: Started twice.
        ranks: Counted from 1 in ascending order of the magnitudes.

    Returns:
        For each model the magnitudes, in the order of `ranks`.
    """
    places = [_places(counts, ranks) for counts in histograms(passes())]
    lows = _low_histograms(passes(), [[bin_ for bin_, _ in found] for found in places])
    return [
        tuple(
            _float_of((bin_ << _LOW_BITS) | _places(low[bin_], [rank])[0][0])
            for bin_, rank in found
        )
        for found, low in zip(places, lows, strict=True)
    ]


def histograms(runs: Iterable[Iterable[Tensor]]) -> list[Tensor]:
    """How often each model has each magnitude, in 2^16 bins.

    Bins are the upper 16 bits of the float32 pattern: zero and the smallest numbers,
    then 256 to an octave.

    Returns:
        1-D int32 for each model.
    """
    import torch

    counts: list[Tensor] = []
    for run in runs:
        for i, values in enumerate(run):
            if i == len(counts):
                counts.append(
                    torch.zeros(_BINS, dtype=torch.int32, device=values.device)
                )
            _count(counts[i], _bins(values))
    return counts


def _bins(values: Tensor) -> Tensor:
    return magnitude_bits(values).bitwise_right_shift_(_LOW_BITS)


def _count(counts: Tensor, indices: Tensor) -> None:
    import torch

    counts.scatter_add_(0, indices.long(), torch.ones_like(indices))


def _places(counts: Tensor, ranks: Sequence[int]) -> list[tuple[int, int]]:
    """For each rank the bin that it falls in, and its rank among that bin's values."""
    import numpy as np

    sums = counts.cpu().numpy().cumsum(dtype=np.int64)
    bins = [int(np.searchsorted(sums, rank)) for rank in ranks]
    return [
        (bin_, rank - (int(sums[bin_ - 1]) if bin_ else 0))
        for bin_, rank in zip(bins, ranks, strict=True)
    ]


def _low_histograms(
    runs: Iterable[Iterable[Tensor]], bins: Sequence[Sequence[int]]
) -> list[dict[int, Tensor]]:
    """The lower 15 bits of what lies in some bins of each model."""
    import torch

    counts: list[dict[int, Tensor]] = [{} for _ in bins]
    for run in runs:
        for values, of_model, wanted in zip(run, counts, bins, strict=True):
            pattern = magnitude_bits(values)
            for bin_ in set(wanted):
                low = _within(pattern, bin_)
                if bin_ not in of_model:
                    of_model[bin_] = torch.zeros(
                        _LOW_BINS, dtype=torch.int32, device=low.device
                    )
                _count(of_model[bin_], low)
    return counts


def _within(pattern: Tensor, bin_: int) -> Tensor:
    """The lower bits of the patterns that lie in a bin."""
    import torch

    if pattern.is_cuda:
        return pattern[(pattern >> _LOW_BITS) == bin_] & (_LOW_BINS - 1)
    # On the CPU numpy picks values by a condition four times as fast as torch.
    array = pattern.numpy()
    return torch.from_numpy(array[array >> _LOW_BITS == bin_] & (_LOW_BINS - 1))


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
        entries = _bins(values).sub_(self.offset).clamp_(0, len(self.limits) - 1)
        limits = self.limits.index_select(0, entries)
        kept = masked(values, draws.keep_at(model, limits))
        if self.factors is None:
            return kept
        factors = self.factors.to(values.dtype)
        return kept.mul_(factors.index_select(0, entries))


def rank_tables(
    runs: Iterable[Iterable[Tensor]],
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
        drop_rate: Mean probability to drop.
        epsilon: How far the keep probabilities of the largest and the smallest value
            are apart.
        rescale: A kept value is divided by its keep probability to this power.

    Returns:
        One a model; a few ten kilobytes each where deltas span some ten octaves.
    """
    return [
        _rank_table(counts, drop_rate=drop_rate, epsilon=epsilon, rescale=rescale)
        for counts in histograms(runs)
    ]


def _rank_table(
    counts: Tensor, *, drop_rate: float, epsilon: float, rescale: float
) -> RankTable:
    import numpy as np
    import torch

    held = counts.cpu().numpy().astype(np.int64)
    n_elements = held.sum()
    centred = (mid_ranks(held) - (n_elements + 1) / 2) / n_elements
    keep = np.clip((1.0 - drop_rate) + epsilon * centred, 0.0, 1.0)
    used = np.flatnonzero(held[1:]) + 1
    first, last = (int(used[0]), int(used[-1])) if used.size else (1, 1)
    keep = np.concatenate([keep[:1], keep[first : last + 1]])
    limits = drop_limits(torch.from_numpy(1.0 - keep))
    factors = None
    if rescale:
        # Where nothing is kept the factor does not matter, but must be finite.
        factors = torch.from_numpy(np.where(keep > 0.0, keep, 1.0) ** -rescale)
        factors = factors.to(counts.device)
    return RankTable(first - 1, limits.to(counts.device), factors)


def mid_ranks(counts: Any) -> Any:
    """The mean rank, from 1, of the values in each bin of a histogram (numpy)."""
    return counts.cumsum() - counts + (counts + 1) / 2


def each(runs: Iterable[Any]) -> Iterator[Iterable[Tensor]]:
    """The pool of every run, as `Passes` gives it."""
    return (run.inputs[-1] for run in runs)


def _bits_below(value: float) -> int:
    return float_bits(value) - 1


def _float_of(bits: int) -> float:
    return float(struct.unpack("<f", struct.pack("<i", bits))[0])
