"""What a search knows of the points that are decided, and how far luck explains it.

A `Slot` is one decided point. Everything that decides during a study (samplers,
pruning, rungs, stopping) is a function of the settings and of the slots in order, so
that a resumed study decides as an uninterrupted one.

Scores of single pictures are compared over the same shots only: a prompt with its seed
is easy or hard for every merge alike, and that part of a picture's luck cancels.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Slot:
    """One decided point.

    Attributes:
        point: Values of the free axes (others may be present).
        score: Its trial's score, or None when it failed for good; an estimate where
            `is_pruned` or `rung` says that the trial was not rendered whole.
        is_start: Whether it was set beforehand, not suggested.
        values: Further objectives, the larger the better (diversity).
        is_pruned: Whether it was given up after some of its pictures.
        constraint: At most 0 where the point is admissible; None without constraint.
        images: Scores of the full pictures it rendered, by shot; empty when unknown.
        rung: The cheap rung that it ended at; "" where full pictures were rendered.
        rungs: Scores on cheap rungs, by rung, of every rung that it was rendered on.
    """

    point: Mapping[str, float]
    score: float | None
    is_start: bool
    values: tuple[float, ...] = ()
    is_pruned: bool = False
    constraint: float | None = None
    images: Mapping[str, float] = field(default_factory=dict)
    rung: str = ""
    rungs: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_measured(self) -> bool:
        """Whether every full picture was rendered, so that it can be the best."""
        return self.score is not None and not self.is_pruned and not self.rung

    @property
    def is_admissible(self) -> bool:
        """Whether it keeps the constraint, if there is one."""
        return self.constraint is None or self.constraint <= 0


def best_slot(slots: Sequence[Slot]) -> Slot | None:
    """The measured slot with the highest score, admissible ones first; or None."""
    measured = [slot for slot in slots if slot.is_measured]
    pool = [slot for slot in measured if slot.is_admissible] or measured
    return max(pool, key=lambda slot: slot.score or 0.0, default=None)


def differences(mine: Slot, other: Slot) -> tuple[float, ...]:
    """Mine minus the other's score, over the shots that both rendered."""
    shared = [shot for shot in mine.images if shot in other.images]
    return tuple(mine.images[shot] - other.images[shot] for shot in shared)


@dataclass(frozen=True)
class ShotEffects:
    """How easy each shot is, and how much of a picture's score is luck.

    The model is: score = trial's level + shot's effect + luck.

    Attributes:
        mean: Mean level over the trials that it was fitted to.
        effects: By shot; they sum to 0.
        luck: Standard deviation of the luck; None while too little is known.
    """

    mean: float
    effects: Mapping[str, float]
    luck: float | None

    def level(self, images: Mapping[str, float]) -> float | None:
        """The trial's level that some pictures speak for; None without known shots."""
        known = [images[s] - self.effects[s] for s in images if s in self.effects]
        return statistics.fmean(known) if known else None

    def fill(self, images: Mapping[str, float]) -> dict[str, float]:
        """The same pictures, and the expected scores of the shots not rendered."""
        level = self.level(images)
        if level is None:
            return dict(images)
        expected = {shot: level + e for shot, e in self.effects.items()}
        return {**expected, **images}


N_WHOLE = 10
"""The first slots, which are rendered whole whatever their pictures say."""

CONTROL_EVERY = 10
"""Later on every so many slots one is rendered whole in any case."""


def is_control(number: int) -> bool:
    """Whether a slot is rendered whole, whatever its pictures say.

    Trials that survived pruning had luck in their first pictures. What is learnt of
    shots from them would make these shots look easy, and every trial that was given up
    after them worse than it is. So shots are learnt from controls alone.

    Args:
        number: The slot's place in the study, from 0.
    """
    return number < N_WHOLE or number % CONTROL_EVERY == 0


def controls(slots: Sequence[Slot]) -> tuple[Slot, ...]:
    """The measured slots that no picture of theirs could have ended."""
    return tuple(s for n, s in enumerate(slots) if is_control(n) and s.is_measured)


def shot_effects(slots: Sequence[Slot]) -> ShotEffects:
    """Fit the additive model to the controls that rendered the same shots.

    Args:
        slots: The decided slots from the first on.
    """
    tables = [slot.images for slot in controls(slots) if slot.images]
    if not tables:
        return ShotEffects(0.0, {}, None)
    shots = [shot for shot in tables[-1] if all(shot in t for t in tables)]
    rows = [[table[shot] for shot in shots] for table in tables]
    if not shots:
        return ShotEffects(0.0, {}, None)
    levels = [statistics.fmean(row) for row in rows]
    mean = statistics.fmean(levels)
    columns = [statistics.fmean(column) - mean for column in zip(*rows, strict=True)]
    freedom = (len(rows) - 1) * (len(shots) - 1)
    luck = None
    if freedom > 0:
        squares = sum(
            (value - level - column) ** 2
            for row, level in zip(rows, levels, strict=True)
            for value, column in zip(row, columns, strict=True)
        )
        luck = math.sqrt(squares / freedom)
    return ShotEffects(mean, dict(zip(shots, columns, strict=True)), luck)
