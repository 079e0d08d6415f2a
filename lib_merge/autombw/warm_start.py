"""Warm start: points that a search scores first, beside A, B and the middle.

    shape_starts(space, arch, ["valley"])            # presets
    vector_start(space, "my preset", values)         # values by block, from any file
    study_starts(space, other_settings, other_slots) # the best of an earlier study

All give `StartPoint`s in the study's own space, to be put into `StudySettings.starts`;
`clean` drops what lies outside or stands there twice. A vector without block names (a
recipe.txt, a CSV row, a preset file) is read by `lib_merge.formats`, which knows the
orders; what comes here is a value by block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from lib_merge.autombw.history import Slot
from lib_merge.autombw.space import Space, StartPoint
from lib_merge.core.blocks import Architecture, Block, Component
from lib_merge.core.recipe import Setting
from lib_merge.errors import StudyError, UnknownIdError

if TYPE_CHECKING:
    from lib_merge.autombw.settings import StudySettings

N_BEST = 3
"""Points that an earlier study gives."""

SHAPES: Mapping[str, tuple[str, Callable[[float], float]]] = MappingProxyType(
    {
        "rising": ("from A at the input to B at the output", lambda t: t),
        "falling": ("from B at the input to A at the output", lambda t: 1 - t),
        "valley": ("B at both ends, A in the middle", lambda t: abs(2 * t - 1)),
        "hill": ("A at both ends, B in the middle", lambda t: 1 - abs(2 * t - 1)),
        "steps": ("A up to the middle, B from there", lambda t: float(t > 0.5)),
        "wave": (
            "A and B by turns, in two waves",
            lambda t: 0.5 - 0.5 * math.cos(4 * math.pi * t),
        ),
        "quarter": ("0.25 everywhere", lambda t: 0.25),
        "three_quarters": ("0.75 everywhere", lambda t: 0.75),
    }
)
"""Presets by id: what they are, and the value at a block's place, 0 at the input of
what denoises and 1 at its output."""


def shape_starts(
    space: Space, arch: Architecture, names: Iterable[str]
) -> tuple[StartPoint, ...]:
    """Presets as start points; text encoders are half A, half B.

    Raises:
        UnknownIdError: There is no such preset; the message lists them.
    """
    found = []
    for name in names:
        if name not in SHAPES:
            raise UnknownIdError(
                f"There is no preset '{name}'; use one of: {', '.join(SHAPES)}."
            )
        values = _shape(SHAPES[name][1], arch.weighted_blocks())
        found.append(StartPoint(f"preset {name}", space.from_blocks(values)))
    return tuple(found)


def _shape(
    curve: Callable[[float], float], blocks: Sequence[Block]
) -> dict[str, float]:
    along = [b.id for b in blocks if b.component is Component.UNET]
    last = max(1, len(along) - 1)
    values = {str(b.id): 0.5 for b in blocks}
    return values | {str(block): curve(i / last) for i, block in enumerate(along)}


def vector_start(space: Space, label: str, values: Mapping[str, float]) -> StartPoint:
    """Values by block as a start point.

    Raises:
        StudyError: No block of this study is among them.
    """
    known = {str(block) for block in space.block_values(space.constant(0.0))}
    if not known & set(values):
        raise StudyError(
            f"The start vector '{label}' names no block of this study; it names: "
            f"{', '.join(sorted(values)) or 'none'}."
        )
    return StartPoint(label, space.from_blocks(values))


def setting_values(setting: Setting, arch: Architecture) -> dict[str, float]:
    """A recipe's setting as values by block: BASE is resolved, rules are left out."""
    values = {str(b.id): setting.value for b in arch.weighted_blocks()}
    for name, value in setting.blocks:
        values |= {str(b): value for b in arch.expand(name) if str(b) in values}
    return values


def study_starts(
    space: Space,
    earlier: StudySettings,
    slots: Sequence[Slot],
    *,
    n_best: int = N_BEST,
) -> tuple[StartPoint, ...]:
    """The best points of an earlier study, of the same or of other models.

    Axes of the same name keep their values; where the studies are tied otherwise, the
    values by block count. What the earlier study did not know stands where the uniform
    baseline has it.

    Raises:
        StudyError: Nothing was measured there, or it is of another architecture.
    """
    from lib_merge.autombw.search import finalists

    order = [i for i in finalists(earlier, slots) if slots[i].is_admissible]
    if not order:
        raise StudyError(
            f"Study '{earlier.name}' has no measured trial to start from; let it run, "
            "or leave it out."
        )
    found = []
    for place, number in enumerate(order[:n_best], 1):
        whole = earlier.space.whole(slots[number].point)
        label = f"{earlier.name} no. {place}"
        found.append(StartPoint(label, _translated(space, earlier.space, whole)))
    return tuple(found)


def _translated(
    space: Space, other: Space, point: Mapping[str, float]
) -> dict[str, float]:
    blocks = {str(b): v for b, v in other.block_values(point).items()}
    start = space.from_blocks(blocks) if blocks else space.constant(0.5)
    # Choices mean the same only where they are the same.
    choices = {axis.name: axis.choices for axis in other.axes}
    same = {
        axis.name: point[axis.name]
        for axis in space.axes
        if axis.name in point and choices.get(axis.name, ()) == axis.choices
    }
    return space.clamp({**start, **same})


def clean(space: Space, starts: Iterable[StartPoint]) -> tuple[StartPoint, ...]:
    """Start points inside the limits, each once, the baselines left out."""
    known = [start.point for start in space.start_points()]
    found: list[StartPoint] = []
    for start in starts:
        point = space.clamp(start.point)
        if point not in known:
            known.append(point)
            found.append(StartPoint(start.label, point))
    return tuple(found)
