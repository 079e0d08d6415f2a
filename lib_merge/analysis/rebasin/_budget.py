"""How the memory of a search is divided."""

from __future__ import annotations

from dataclasses import dataclass

from lib_merge.analysis.rebasin.pair import A, B, Pair
from lib_merge.core.dtypes import DType
from lib_merge.errors import MemoryLimitError

_LEAST_RUN = 1 << 18
_MOST_RUN = 1 << 24
_RUNS = 5
"""Widened copies at once: of A and of B, each as read and as laid out for products."""


@dataclass(frozen=True)
class Shares:
    """The parts of a budget.

    Attributes:
        run_elements: Values of one model that are widened at once.
        pending_bytes: For assignments that are being solved.
        cache_bytes: For tensors that are kept.
    """

    run_elements: int
    pending_bytes: int
    cache_bytes: int


def shares_of(pair: Pair, budget_bytes: int, dtype: DType) -> Shares:
    """Divide a budget.

    Args:
        pair: The models.
        budget_bytes: All of it.
        dtype: What products are computed in.

    Raises:
        MemoryLimitError: It is too small for the largest tensors and assignments.
    """
    infos = [header.infos for header in pair.headers]
    tensors = max(
        sum(infos[m][pair.stored(m, key)].n_bytes for m in (A, B))
        for key in pair.components
    )
    squares = max(
        sum(part * part for part in one.parts)
        for one in pair.spec.permutations.values()
    )
    # scipy copies the scores to float64, and once more where it maximises.
    scores, solving = dtype.size * squares, (dtype.size + 16) * squares
    fixed, width = tensors + scores + solving, _RUNS * max(8, dtype.size)
    run = min(_MOST_RUN, max(_LEAST_RUN, (budget_bytes - fixed) // 2 // width))
    needed = fixed + run * width
    if needed > budget_bytes:
        raise MemoryLimitError(
            f"--memory {budget_bytes / 1e9:.2f} GB is too small to match these models; "
            f"at least {needed / 1e9:.2f} GB is needed."
        )
    left = budget_bytes - needed
    pending = solving + left // 2
    return Shares(run, pending, left - left // 2)
