"""Diversity: how different the pictures of one prompt are from seed to seed.

A search that follows a scorer can end at a merge that draws one picture for every
seed. So a trial's diversity is measured beside its score: 0 where all pictures of a
prompt are alike, 1 where they have nothing in common. It is comparable between merges
that rendered the same shots, and can be shown, kept above a floor (constraint), or
traded against the score (second objective: a Pareto front).

    features = {payload: [pixel_features(picture), ...], ...}
    of(features.values())                            # TrialRecord.diversity
    constraint(settings.diversity, diversity, slots)  # Slot.constraint; at most 0: kept
    pareto_front([slot ...])                         # with Slot.values == (diversity,)
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib_merge.autombw.history import Slot
from lib_merge.errors import StudyError

if TYPE_CHECKING:
    from PIL.Image import Image

FEATURE_SIDE = 8
"""Pictures are compared at this size, in colour: layout and light, not detail."""

OFF, CONSTRAINT, OBJECTIVE = "off", "constraint", "objective"
USES = (OFF, CONSTRAINT, OBJECTIVE)


@dataclass(frozen=True)
class DiversitySettings:
    """What diversity is used for; it is measured and shown in any case.

    Attributes:
        use: "off" (shown only), "constraint" or "objective".
        keep: As a constraint: the share of its parents' mean diversity that a merge
            must keep. The parents are the start points.
    """

    use: str = OFF
    keep: float = 0.9

    def __post_init__(self) -> None:
        if self.use not in USES:
            raise StudyError(
                f"Diversity cannot be used as '{self.use}'; use one of: "
                f"{', '.join(USES)}."
            )
        if not 0 < self.keep <= 2:
            raise StudyError(
                f"Diversity: keep {self.keep:g} must lie above 0 and at most at 2; "
                "0.9 keeps nine tenths of the parents' diversity."
            )


def of(groups: Iterable[Sequence[Sequence[float]]]) -> float | None:
    """Diversity of a trial.

    Args:
        groups: For every prompt, the features of its pictures, any number a picture
            (pixels, or a scorer's embedding). Prompts with one picture say nothing.

    Returns:
        The mean over prompts of 1 - mean correlation of the pictures' features, within
        0 and 1; None where no prompt has two pictures.
    """
    found = [_spread(group) for group in groups if len(group) > 1]
    return statistics.fmean(found) if found else None


def _spread(features: Sequence[Sequence[float]]) -> float:
    units = [_unit(feature) for feature in features]
    n = len(units)
    # The mean over pairs, from the length of the sum of all.
    total = [math.fsum(column) for column in zip(*units, strict=True)]
    alone = math.fsum(x * x for unit in units for x in unit)
    likeness = (math.fsum(x * x for x in total) - alone) / (n * (n - 1))
    return 1.0 - min(max(likeness, 0.0), 1.0)


def _unit(feature: Sequence[float]) -> list[float]:
    middle = statistics.fmean(feature)
    centred = [x - middle for x in feature]
    length = math.sqrt(math.fsum(x * x for x in centred))
    if length > 0:
        return [x / length for x in centred]
    # Flat pictures are like each other and like nothing else.
    return [1 / math.sqrt(len(feature))] * len(feature)


def pixel_features(picture: Image) -> tuple[float, ...]:
    """What is compared of a picture where no scorer gives an embedding."""
    size = (FEATURE_SIDE, FEATURE_SIDE)
    pixels = picture.convert("RGB").resize(size).tobytes()
    return tuple(value / 255 for value in pixels)


def floor(settings: DiversitySettings, slots: Sequence[Slot]) -> float | None:
    """The least diversity that is admissible; None without constraint or parents.

    Args:
        settings: What share of the parents' diversity is kept.
        slots: The decided slots; start points hold their diversity in `values`.
    """
    parents = [s.values[0] for s in slots if s.is_start and s.is_measured and s.values]
    if settings.use != CONSTRAINT or not parents:
        return None
    return settings.keep * statistics.fmean(parents[:2])


def constraint(
    settings: DiversitySettings, diversity: float | None, slots: Sequence[Slot]
) -> float | None:
    """How far below the floor a trial is: at most 0 is admissible; None: unknown."""
    least = floor(settings, slots)
    return None if least is None or diversity is None else least - diversity


def pareto_front(slots: Sequence[Slot]) -> tuple[int, ...]:
    """Positions of the measured slots that no other beats in all objectives at once."""
    values = {
        i: (slot.score, *slot.values)
        for i, slot in enumerate(slots)
        if slot.is_measured and slot.score is not None
    }
    return tuple(
        i
        for i, mine in values.items()
        if not any(_beats(other, mine) for other in values.values())
    )


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """At least as good in everything, and better in something."""
    pairs = list(zip(one, other, strict=False))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
