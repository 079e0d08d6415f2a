"""How a tensor's magnitudes are distributed, found run by run: ranks and histograms.

Everything is counted in whole numbers: a tensor may be cut up in any way, and it never
has to be in memory as a whole.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lib_merge.methods._ops.draws import magnitude_bits

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
# For so few values in a tensor, sorting costs less than going through all bins.
_FEW_TO_SORT = 1 << 15
_FEW_TO_COUNT = 1 << 13


@dataclass(frozen=True)
class Histogram:
    """How often a model has each magnitude, in 2^16 bins.

    Bins are the upper 16 bits of the float32 pattern: zero and the smallest numbers,
    then 256 to an octave.

    Attributes:
        bins: Those that are not empty, ascending (int64, numpy).
        counts: Of each (int64, numpy).
    """

    bins: Any
    counts: Any


def order_statistics(
    passes: Passes, n_elements: int, ranks: Sequence[int]
) -> list[tuple[float, ...]]:
    """The magnitudes, as float32, that have some ranks in each model.

    Exact, whatever the cut: short tensors are held and sorted as far as needed, longer
    ones take a radix selection on the bit patterns in two passes.

    Args:
        passes: Started once or twice.
        n_elements: Of the whole tensor.
        ranks: Counted from 1 in ascending order of the magnitudes.

    Returns:
        For each model the magnitudes, in the order of `ranks`.
    """
    if n_elements <= _FEW_TO_SORT:
        import numpy as np

        places = [rank - 1 for rank in ranks]
        sorted_far = (np.partition(p, places) for p in _held(passes(), magnitude_bits))
        return [tuple(float_of(int(p[i])) for i in places) for p in sorted_far]
    found = [_places(c.counts, ranks, c.bins) for c in histograms(passes(), n_elements)]
    lows = _low_histograms(passes(), [[bin_ for bin_, _ in of] for of in found])
    return [
        tuple(
            float_of((bin_ << _LOW_BITS) | _places(low[bin_], [rank])[0][0])
            for bin_, rank in of_model
        )
        for of_model, low in zip(found, lows, strict=True)
    ]


def histograms(runs: Iterable[Iterable[Tensor]], n_elements: int) -> list[Histogram]:
    """One a model, from one pass.

    Args:
        runs: The pass.
        n_elements: Of the whole tensor.
    """
    import numpy as np

    if n_elements <= _FEW_TO_COUNT:
        pairs = (np.unique(b, return_counts=True) for b in _held(runs, bins_of))
        return [Histogram(bins.astype(np.int64), counts) for bins, counts in pairs]
    dense = [counts.cpu().numpy() for counts in _dense_histograms(runs)]
    used = [np.flatnonzero(counts) for counts in dense]
    return [
        Histogram(bins, counts[bins].astype(np.int64))
        for bins, counts in zip(used, dense, strict=True)
    ]


def _dense_histograms(runs: Iterable[Iterable[Tensor]]) -> list[Tensor]:
    import torch

    counts: list[Tensor] = []
    for run in runs:
        for i, values in enumerate(run):
            if i == len(counts):
                counts.append(
                    torch.zeros(_BINS, dtype=torch.int32, device=values.device)
                )
            _count(counts[i], bins_of(values))
    return counts


def _held(
    runs: Iterable[Iterable[Tensor]], pattern: Callable[[Tensor], Tensor]
) -> list[Any]:
    """What `pattern` makes of all of each model's values (numpy)."""
    import numpy as np

    held: list[list[Any]] = []
    for run in runs:
        for i, values in enumerate(run):
            if i == len(held):
                held.append([])
            held[i].append(pattern(values).cpu().numpy())
    return [np.concatenate(parts) for parts in held]


def bins_of(values: Tensor) -> Tensor:
    """The bin of each value's magnitude (int32, in memory of its own)."""
    return magnitude_bits(values).bitwise_right_shift_(_LOW_BITS)


def _count(counts: Tensor, indices: Tensor) -> None:
    import torch

    counts.scatter_add_(0, indices.long(), torch.ones_like(indices))


def _places(
    counts: Any, ranks: Sequence[int], bins: Any = None
) -> list[tuple[int, int]]:
    """For each rank the bin that it falls in, and its rank among that bin's values.

    Args:
        counts: Of the bins, in order (numpy).
        ranks: Counted from 1.
        bins: Their numbers (numpy); None for 0, 1, 2 ...
    """
    import numpy as np

    sums = counts.cumsum(dtype=np.int64)
    found = []
    for rank in ranks:
        i = int(np.searchsorted(sums, rank))
        before = int(sums[i - 1]) if i else 0
        found.append((i if bins is None else int(bins[i]), rank - before))
    return found


def _low_histograms(
    runs: Iterable[Iterable[Tensor]], bins: Sequence[Sequence[int]]
) -> list[dict[int, Any]]:
    """Counts (numpy) of the lower 15 bits of what lies in some bins of each model."""
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
    return [{b: low.cpu().numpy() for b, low in found.items()} for found in counts]


def _within(pattern: Tensor, bin_: int) -> Tensor:
    """The lower bits of the patterns that lie in a bin."""
    import torch

    if pattern.device.type != "cpu":
        return pattern[(pattern >> _LOW_BITS) == bin_] & (_LOW_BINS - 1)
    # On the CPU numpy picks values by a condition four times as fast as torch.
    array = pattern.numpy()
    return torch.from_numpy(array[array >> _LOW_BITS == bin_] & (_LOW_BINS - 1))


def float_of(bits: int) -> float:
    """The float32 number with this bit pattern."""
    return float(struct.unpack("<f", struct.pack("<i", bits))[0])
