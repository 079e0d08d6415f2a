"""`study run --space ... --start ...`: what is searched, and where it begins."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.errors import InputError, StudyError

if TYPE_CHECKING:
    from lib_merge.autombw.settings import StudySettings
    from lib_merge.autombw.space import StartPoint
    from lib_merge.core.recipe import Setting
    from lib_merge.formats.imported import Entry

MAX_ENTRIES = 3
"""Entries of one file that become start points; of a table the best come first."""


def add_space(parser: argparse.ArgumentParser) -> None:
    """Add both options."""
    group = parser.add_argument_group("what is searched, and from where")
    group.add_argument(
        "--space",
        action="append",
        default=[],
        metavar="TEXT",
        help='e.g. "IN00-IN05=0.2..0.8; M00=0.5; OUT00-OUT03=tied:late; tied=symmetric;'
        ' /attn/=0..1; beta=0..1; weights=0..1; method=slerp"',
    )
    group.add_argument(
        "--start",
        action="append",
        default=[],
        metavar="WHAT",
        help="score this first: a preset (rising, falling, valley, hill, steps, wave, "
        "quarter, three_quarters), an earlier study's name, a file of block weights or "
        "a recipe, or numbers with commas; ORDER: goes ahead of a file or numbers "
        "where their order is open, e.g. autombw_csv:0.1,0.2,...",
    )


def with_starts(settings: StudySettings, args: argparse.Namespace) -> StudySettings:
    """The settings with the start points that the options name.

    Raises:
        InputError: A start is no preset, study, file or numbers.
        MergeError: A study or file that cannot be used.
    """
    from lib_merge.autombw.warm_start import clean

    found: list[StartPoint] = []
    for text in args.start:
        found += _starts(settings, text, args)
    return replace(settings, starts=clean(settings.space, found))


def _starts(
    settings: StudySettings, text: str, args: argparse.Namespace
) -> Sequence[StartPoint]:
    from lib_merge.arch import architectures
    from lib_merge.autombw import warm_start
    from lib_merge.autombw.study import find_study

    arch = architectures().get(settings.arch_id)
    if text in warm_start.SHAPES:
        return warm_start.shape_starts(settings.space, arch, [text])
    order, text = _order_of(text)
    if "," in text:
        setting = _numbers(text, settings, order)
        values = warm_start.setting_values(setting, arch)
        return [warm_start.vector_start(settings.space, "given numbers", values)]
    path = Path(text)
    if path.is_file():
        return _from_file(settings, path, order)
    try:
        study = find_study(args.out.absolute(), text)
    except StudyError as fault:
        raise InputError(
            f"--start {text}: there is no such preset or file, and {fault}"
        ) from fault
    slots = list(study.table().decided().values())
    return warm_start.study_starts(settings.space, study.settings, slots)


def _order_of(text: str) -> tuple[str | None, str]:
    """The order that stands ahead of a colon, if it is one, and the rest."""
    from lib_merge.formats.orders import ORDERS

    order, colon, rest = text.partition(":")
    is_order = bool(colon) and any(order == known.id for known in ORDERS)
    return (order, rest) if is_order else (None, text)


def _numbers(text: str, settings: StudySettings, order: str | None) -> Setting:
    from lib_merge.formats.orders import find_order, split_weights

    numbers = split_weights(text, "--start")
    found = find_order(len(numbers), order, "--start")
    return found.setting(numbers, is_sdxl=settings.arch_id == "sdxl")


def _from_file(
    settings: StudySettings, path: Path, order: str | None
) -> list[StartPoint]:
    from lib_merge.arch import architectures
    from lib_merge.autombw import warm_start
    from lib_merge.formats.files import read_path
    from lib_merge.formats.imported import Options

    arch = architectures().get(settings.arch_id)
    entries = read_path(path, Options(order=order, arch=arch.id)).entries[:MAX_ENTRIES]
    return [
        warm_start.vector_start(
            settings.space,
            f"{path.name} {entry.name}".strip(),
            warm_start.setting_values(_weights(entry, settings.param, path), arch),
        )
        for entry in entries
    ]


def _weights(entry: Entry, param: str, path: Path) -> Setting:
    from lib_merge.core.recipe import MergeNode

    if entry.weights is not None:
        return entry.weights
    last = entry.recipe.nodes[-1] if entry.recipe is not None else None
    settings = dict(last.params) if isinstance(last, MergeNode) else {}
    if param not in settings:
        raise InputError(
            f"--start {path}: its last merge has no {param} per block to start from."
        )
    return settings[param]
