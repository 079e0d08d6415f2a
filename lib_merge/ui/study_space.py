"""What a study searches and where it starts, from what the page's controls say."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lib_merge.autombw.axes import SearchedSpace, read_space
from lib_merge.autombw.settings import StudySettings
from lib_merge.autombw.space import BlockRange, StartPoint
from lib_merge.autombw.study import Study
from lib_merge.autombw.warm_start import (
    setting_values,
    study_starts,
    vector_start,
)
from lib_merge.core.blocks import Architecture, Block, Component
from lib_merge.core.method import MergeMethod
from lib_merge.core.params import ParamSpec
from lib_merge.core.recipe import Setting
from lib_merge.errors import RecipeError
from lib_merge.formats.block_text import Scope, read_blocks
from lib_merge.formats.orders import find_order, split_weights
from lib_merge.methods import methods
from lib_merge.ui.study_choices import (
    EMBEDDINGS,
    GROUPS,
    OUTPUT,
    TEXT,
    TIES,
    TRANSFORMER,
)

SPACE_HELP = (
    "IN00-IN05=0.2..0.8, M00=0.5, IN06-IN08=tied:deep, /attn/=0..1, method=slerp"
)

_NUMBERED = re.compile(r"^([A-Z_]+?)(\d+)$")


def group_of(block: Block) -> str:
    """Which of GROUPS a block is in."""
    if block.component.is_text_encoder:
        return TEXT
    if block.component is not Component.UNET:
        return ""
    number = _NUMBERED.match(block.id)
    if number:
        return number[1] if number[1] in GROUPS else TRANSFORMER
    return OUTPUT if block.id in ("OUT", "FINAL") else EMBEDDINGS


def groups_of(arch: Architecture) -> list[str]:
    """The groups that an architecture has, in their order."""
    found = {group_of(block) for block in arch.weighted_blocks()}
    return [group for group in GROUPS if group in found]


def searched(
    groups: Sequence[str],
    ties: str,
    text: str,
    *,
    method: MergeMethod,
    arch: Architecture,
) -> SearchedSpace:
    """Ranges, axes and methods of a study.

    Args:
        groups: Names out of GROUPS: searched from 0 to 1; the others are fixed at 0.
        ties: One of TIES.
        text: What else, in the language of `autombw.axes`.
        method: The study's method.
        arch: The models' architecture.

    Raises:
        RecipeError: One sentence for every part that cannot be used.
    """
    rule = TIES[ties]
    sides = {"IN", "OUT"} & set(groups_of(arch))
    if rule and not sides:
        raise RecipeError([f"{arch.label} has no IN and OUT blocks; tie none."])
    if rule == "symmetric" and not sides <= set(groups):
        raise RecipeError(
            ["Mirrored blocks share a value: tick both IN and OUT, or tie none."]
        )
    return read_space(
        f"tied={rule}; {text}" if rule else text,
        method=method,
        arch=arch,
        n_models=method.min_models,
        ranges=_ranges(groups, arch, method.block_param),
        known=methods().get,
    )


def _ranges(
    groups: Sequence[str], arch: Architecture, spec: ParamSpec | None
) -> tuple[BlockRange, ...]:
    top = min(1.0, spec.param.high) if spec is not None else 1.0
    return tuple(
        BlockRange(block.id, 0.0, top if group_of(block) in groups else 0.0)
        for block in arch.weighted_blocks()
    )


def text_start(
    text: str, order: str | None, settings: StudySettings, arch: Architecture
) -> StartPoint:
    """Block weights as a start point.

    Args:
        text: Numbers in any known order, or pairs like IN04=0.3.
        order: The numbers' order; None where the count leaves no doubt, or names are
            given.
        settings: The study's.
        arch: Its architecture.

    Raises:
        RecipeError: It cannot be read, or several orders fit.
    """
    where = "Block weights to try first"
    if "=" in text or ":" in text:
        problems: list[str] = []
        scope = Scope(methods().get(settings.method), arch)
        named = read_blocks(text.splitlines(), scope, where, problems)
        if problems:
            raise RecipeError(problems)
        values: dict[str, float] = {}
        # Ranges first: a block that is also named alone takes its own value.
        for one in sorted(named, key=lambda n: len(arch.expand(n.block)) == 1):
            values |= {str(b): one.value for b in arch.expand(one.block)}
    else:
        numbers = split_weights(text, where)
        chosen = find_order(len(numbers), order, where)
        setting: Setting = chosen.setting(numbers, is_sdxl=arch.id == "sdxl")
        values = setting_values(setting, arch)
    return vector_start(settings.space, "given weights", values)


def earlier_starts(
    study: Study, trial: int | None, settings: StudySettings
) -> Sequence[StartPoint]:
    """One trial of an earlier study, or its best ones.

    Raises:
        StudyError: There is no such trial, or nothing is measured.
    """
    from lib_merge.autombw.exports import block_values, chosen_point

    if trial is None:
        slots = list(study.table().decided().values())
        return study_starts(settings.space, study.settings, slots)
    point = chosen_point(study, trial)
    label = f"trial {trial} of {study.settings.name}"
    start = settings.space.from_blocks(block_values(study.settings, point))
    same = {axis.name: point[axis.name] for axis in settings.axes if axis.name in point}
    return [StartPoint(label, settings.space.clamp({**start, **same}))]
