"""`inspect`: what a checkpoint is and holds, from its header alone."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib_merge.arch import detect_architecture
from lib_merge.checkpoint.header import Header, read_header
from lib_merge.checkpoint.metadata import RECIPE, header_recipe
from lib_merge.cli._progress import format_amount
from lib_merge.core.blocks import Architecture
from lib_merge.errors import InputError

NAME = "inspect"
HELP = "show what a checkpoint holds: architecture, types, blocks, recipe, problems"
_SHOWN_CHARACTERS = 300


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", type=Path, help="a checkpoint")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print what the file holds."""
    report = inspect_file(args.file)
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0


def inspect_file(path: Path) -> dict[str, Any]:
    """Everything that a header tells, as plain JSON values.

    Raises:
        CheckpointError: The file cannot be read.
    """
    header = read_header(path)
    problems: list[str] = []
    architecture = None
    try:
        architecture = detect_architecture(header.infos, where=path.name)
    except InputError as fault:
        problems.append(str(fault))
    types = Counter(info.dtype.torch_name for info in header.infos.values())
    n_params = sum(info.n_elements for info in header.infos.values())
    report: dict[str, Any] = {
        "file": str(path),
        "n_bytes": header.n_bytes,
        "architecture": architecture.id if architecture else None,
        "label": architecture.label if architecture else "unknown",
        "n_keys": len(header.infos),
        "n_params": n_params,
        "dtypes": dict(sorted(types.items())),
    }
    if architecture is not None:
        report.update(_parts(header, architecture, problems))
    report["recipe"] = _recipe(header, problems)
    report["metadata"] = dict(header.metadata)
    report["problems"] = problems
    return report


def _parts(
    header: Header, architecture: Architecture, problems: list[str]
) -> dict[str, Any]:
    components: Counter[str] = Counter()
    blocks: Counter[str] = Counter(dict.fromkeys(architecture.block_ids(), 0))
    ema, unknown = 0, []
    for key, info in header.infos.items():
        role = architecture.role_of(key)
        if role is None:
            unknown.append(key)
        elif role.treatment.value == "ema":
            ema += info.n_elements
        else:
            components[role.component.value] += info.n_elements
            blocks[role.block] += info.n_elements
    if unknown:
        problems.append(
            f"{len(unknown)} keys are unknown to {architecture.label} "
            f"({', '.join(unknown[:3])}); a merge copies them."
        )
    empty = [name for name, count in blocks.items() if count == 0]
    empty = [name for name in empty if name != "SCHEDULE"]
    if empty:
        problems.append(f"Nothing is there of: {', '.join(empty)}.")
    return {
        "components": dict(components),
        "blocks": dict(blocks),
        "n_ema_params": ema,
    }


def _recipe(header: Header, problems: list[str]) -> Any:
    try:
        recipe = header_recipe(header)
    except InputError as fault:
        problems.append(str(fault))
        return None
    return recipe.to_json() if recipe else None


def _print(report: Mapping[str, Any]) -> None:
    print(f"{report['file']}  ({format_amount(report['n_bytes'], 'B')})")
    print(f"architecture  {report['label']}")
    types = ", ".join(f"{count} {name}" for name, count in report["dtypes"].items())
    print(f"tensors       {report['n_keys']}  ({types})")
    print(f"parameters    {report['n_params']:,}")
    if report.get("n_ema_params"):
        print(f"  EMA         {report['n_ema_params']:,}")
    for title in ("components", "blocks"):
        for name, count in report.get(title, {}).items():
            print(f"  {name:<12}{count:>15,}")
    if report["recipe"]:
        print("recipe")
        print(json.dumps(report["recipe"], indent=2))
    for name, text in report["metadata"].items():
        if name == RECIPE:
            continue
        shown = text[:_SHOWN_CHARACTERS]
        more = f"... ({len(text)} characters)" if shown != text else ""
        print(f"metadata {name}: {shown}{more}")
    for problem in report["problems"]:
        print(f"Problem: {problem}")
