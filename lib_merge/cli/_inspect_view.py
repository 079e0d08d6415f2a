"""Inspections on a terminal: one file in full, many as a table."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lib_merge.analysis.health.deep import shared_components
from lib_merge.analysis.health.inspection import Inspection, Part
from lib_merge.checkpoint.metadata import RECIPE
from lib_merge.cli._progress import format_amount

_SHOWN_CHARACTERS = 300
_SHOWN_FILES = 4


def print_one(found: Inspection) -> None:
    """Print everything about one file."""
    contents = found.contents
    print(f"{found.path}  ({format_amount(found.n_bytes, 'B')})")
    if found.sha256:
        print(f"sha256        {found.sha256}")
    print(f"architecture  {_kind(found)}")
    types = ", ".join(f"{count} {name}" for name, count in contents.dtypes.items())
    print(f"tensors       {found.n_keys}  ({types})")
    print(f"parameters    {contents.n_params:,}")
    if contents.n_ema_params:
        print(f"  EMA         {contents.n_ema_params:,}")
    for part in contents.parts:
        print(f"  {part.component:<12}{part.n_params:>15,}  {_words(part)}")
    for name, count in contents.blocks.items():
        print(f"  {name:<12}{count:>15,}")
    _print_texts(found)
    for note in found.notes():
        print(f"Note: {note}")
    for problem in found.all_problems():
        print(f"Problem: {problem}")
    if not found.is_deep and contents.arch_id:
        print("Values were not read; --deep looks for NaN, dead tensors and copies.")


def _kind(found: Inspection) -> str:
    kin = found.contents.kin
    return f"{found.contents.label}, {', '.join(kin)}" if kin else found.contents.label


def _words(part: Part) -> str:
    types = "/".join(part.dtypes)
    words = [f"{types:<10}"]
    if part.digest:
        words.append(part.digest)
    if part.n_missing:
        words.append(f"{part.n_missing} keys missing")
    if part.same_as:
        shown = ", ".join(part.same_as[:_SHOWN_FILES])
        more = len(part.same_as) - _SHOWN_FILES
        words.append(f"same as {shown}" + (f" and {more} more" if more > 0 else ""))
    return "  ".join(words).rstrip()


def _print_texts(found: Inspection) -> None:
    if found.recipe:
        print("recipe")
        print(json.dumps(found.recipe, indent=2))
    for history in found.histories:
        print(f"history  {history}")
    for name, text in found.metadata.items():
        if name == RECIPE:
            continue
        shown = text[:_SHOWN_CHARACTERS]
        more = f"... ({len(text)} characters)" if shown != text else ""
        print(f"metadata {name}: {shown}{more}")


def print_table(found: Sequence[Inspection]) -> None:
    """Print a line for every file, and what many have in common."""
    folder = _common_folder(found)
    rows: list[tuple[str, ...]] = [
        ("file", "size", "architecture", "precision", "parts", "what is wrong")
    ]
    rows += [_row(inspection, folder) for inspection in found]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[1] = row[1].rjust(widths[1])
        print("  ".join(cells).rstrip())
    total = format_amount(sum(inspection.n_bytes for inspection in found), "B")
    n_bad = sum(bool(inspection.all_problems()) for inspection in found)
    print(f"{len(found)} files, {total}; {n_bad} with something wrong")
    for component, names in shared_components(found):
        shown = ", ".join(names[:_SHOWN_FILES])
        more = f" and {len(names) - _SHOWN_FILES} more" if len(names) > 4 else ""
        print(f"the same {component} in {len(names)} files: {shown}{more}")
    n_unread = sum(not inspection.is_deep for inspection in found)
    if n_unread:
        print(f"The values of {n_unread} files were not read; --deep does.")


def _common_folder(found: Sequence[Inspection]) -> Path:
    folders = [str(inspection.path.absolute().parent) for inspection in found]
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:
        # On Windows, files of several drives have nothing in common.
        return Path()


def _row(found: Inspection, folder: Path) -> tuple[str, ...]:
    path = found.path.absolute()
    name = str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
    if found.error is not None:
        return (name, format_amount(found.n_bytes, "B"), "unreadable", "-", "-", "yes")
    parts = [
        f"{part.component}{'!' if part.n_missing else ''}"
        for part in found.contents.parts
        if part.component != "schedule"
    ]
    return (
        name,
        format_amount(found.n_bytes, "B"),
        _kind(found),
        found.precision,
        " ".join(parts) or "-",
        _wrong(found),
    )


def _wrong(found: Inspection) -> str:
    counts: Counter[str] = Counter()
    for finding in found.contents.findings:
        if finding.defect.is_problem:
            counts[finding.defect.value] += len(finding.keys)
    words = [f"{name} {count}" for name, count in counts.items()]
    if not words and found.all_problems():
        words = ["see inspect of this file alone"]
    return ", ".join(words)
