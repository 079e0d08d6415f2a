"""Pruning: give a trial up after some pictures, when it cannot be the best any more.

After every batch the trial's pictures are compared with the incumbent's (the best
trial so far) shot by shot: the same prompts and seeds. A Wilcoxon signed-rank test
says how surely they are worse; that is the test of Optuna's WilcoxonPruner. Shots that
tell the most about a whole trial are rendered first.

How a trial uses this module:

    is_control(slot_number)                    # then it is rendered whole in any case
    order = shot_order([shot.file for shot in shots], slots)       # render in it
    should_stop(settings.pruning, mine, incumbent)                 # after every batch
    scores = shot_effects(slots).fill(images)                      # of a pruned trial

`mine` and `incumbent` are scores in the order of rendering; `incumbent` comes from
`incumbent_scores(order_of_files, slots)`. The filled scores of a pruned trial are
tallied as those of a whole one; the result is an estimate, never a record.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lib_merge.autombw.history import Slot, best_slot, controls
from lib_merge.errors import StudyError

MAX_EXACT = 60
"""Pairs up to which the test's exact distribution is counted out."""

MIN_HISTORY = 5
"""Measured trials that the order of shots is learnt from."""


@dataclass(frozen=True)
class PruningSettings:
    """When a trial is given up.

    Attributes:
        is_on: Whether trials are given up at all.
        p_threshold: Given up when pictures as bad, from a trial as good as the
            incumbent, would come by chance less often than this.
        n_first: Pictures that every trial renders before it is judged.
    """

    is_on: bool = True
    p_threshold: float = 0.1
    n_first: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.p_threshold < 1 or self.n_first < 1:
            raise StudyError(
                f"Pruning with p {self.p_threshold:g} after {self.n_first} pictures: "
                "p must lie between 0 and 1, and at least one picture be rendered."
            )


def should_stop(
    settings: PruningSettings, mine: Sequence[float], incumbent: Sequence[float]
) -> bool:
    """Whether a trial is given up.

    Args:
        settings: When.
        mine: Its pictures' scores so far, in the order of rendering.
        incumbent: The incumbent's scores of the same shots, in the same order; it may
            be longer. Empty without incumbent.
    """
    n = len(mine)
    if not settings.is_on or n < settings.n_first or n >= len(incumbent):
        return False
    deltas = [m - i for m, i in zip(mine, incumbent, strict=False)]
    return statistics.fmean(deltas) < 0 and p_worse(deltas) < settings.p_threshold


def p_worse(deltas: Sequence[float]) -> float:
    """One-sided p value of the Wilcoxon signed-rank test that the deltas are below 0.

    Zeros are ranked, and their ranks split between both sides (Pratt's zsplit); ties
    share their mean rank. Small samples are counted out exactly, over every way to
    give the ranks their signs; larger ones are approximated by a normal distribution.

    Args:
        deltas: Paired differences; all zero gives 1.
    """
    if not any(deltas):
        return 1.0
    sizes = sorted(abs(delta) for delta in deltas)
    # Twice the ranks, so that tied ones are whole numbers.
    ranks = {size: 2 * sizes.index(size) + sizes.count(size) + 1 for size in set(sizes)}
    doubled = [ranks[abs(delta)] for delta in deltas]
    zeros = sum(rank for rank, delta in zip(doubled, deltas, strict=True) if not delta)
    ups = sum(rank for rank, delta in zip(doubled, deltas, strict=True) if delta > 0)
    signed = [rank for rank, delta in zip(doubled, deltas, strict=True) if delta]
    statistic = ups + zeros / 2
    if len(deltas) <= MAX_EXACT:
        return _exact(signed, statistic - zeros / 2)
    middle = sum(doubled) / 2
    spread = math.sqrt(sum(rank**2 for rank in signed)) / 2
    return statistics.NormalDist().cdf((statistic - middle) / spread)


def _exact(ranks: Sequence[int], ups: float) -> float:
    """Share of all sign patterns whose positive ranks sum to at most `ups`."""
    ways = Counter({0: 1})
    for rank in ranks:
        lifted = {total + rank: count for total, count in ways.items()}
        ways.update(lifted)
    low = sum(count for total, count in ways.items() if total <= ups)
    return float(low / 2 ** len(ranks))


def incumbent_scores(shots: Sequence[str], slots: Sequence[Slot]) -> tuple[float, ...]:
    """The best trial's scores in the order of `shots`; empty where they are unknown.

    Args:
        shots: Shot files in the order of rendering.
        slots: The decided slots.
    """
    best = best_slot(slots)
    if best is None or any(shot not in best.images for shot in shots):
        return ()
    return tuple(best.images[shot] for shot in shots)


def shot_order(shots: Sequence[str], slots: Sequence[Slot]) -> tuple[int, ...]:
    """In which order to render: the shots that tell the most about a trial first.

    Each shot is chosen so that the mean over those chosen follows the whole trial's
    mean as closely as it can, over the measured trials. With few of those, the shots
    are taken as far apart in the list as possible, so that payloads alternate.

    Args:
        shots: Shot files, in the study's order.
        slots: The decided slots; only controls are looked at.

    Returns:
        Positions in `shots`.
    """
    rows = [
        [slot.images[shot] for shot in shots]
        for slot in controls(slots)
        if all(shot in slot.images for shot in shots)
    ]
    if len(rows) < MIN_HISTORY:
        return _spread(len(shots))
    means = [statistics.fmean(row) for row in rows]
    middle = statistics.fmean(means)
    wholes = [mean - middle for mean in means]
    columns = [_centred(column) for column in zip(*rows, strict=True)]
    chosen: list[int] = []
    sums = [0.0] * len(rows)
    left = list(range(len(shots)))
    while left:
        # Equal ones go by position, so that the order is the same everywhere.
        nearest = min(left, key=lambda i: (_miss(sums, columns[i], wholes, chosen), i))
        sums = [total + x for total, x in zip(sums, columns[nearest], strict=True)]
        chosen.append(nearest)
        left.remove(nearest)
    return tuple(chosen)


def _centred(values: Sequence[float]) -> list[float]:
    middle = statistics.fmean(values)
    return [value - middle for value in values]


def _miss(
    sums: Sequence[float],
    column: Sequence[float],
    wholes: Sequence[float],
    chosen: Sequence[int],
) -> float:
    """How far the mean with this column stays from the whole, squared and rounded."""
    n = len(chosen) + 1
    pairs = zip(sums, column, wholes, strict=True)
    return round(sum(((total + x) / n - whole) ** 2 for total, x, whole in pairs), 12)


def _spread(n: int) -> tuple[int, ...]:
    """0 .. n - 1 by their reversed binary digits: neighbours lie far apart."""
    n_bits = max(1, (n - 1).bit_length())
    flipped = (int(f"{i:0{n_bits}b}"[::-1], 2) for i in range(1 << n_bits))
    return tuple(i for i in flipped if i < n)
