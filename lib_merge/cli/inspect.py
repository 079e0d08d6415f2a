"""`inspect`: what checkpoints are and hold, and what is wrong with them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from lib_merge.analysis.health.inspection import Inspection

NAME = "inspect"
HELP = "show what a checkpoint, or a folder of them, holds, and what is wrong with it"

SORTS = ("name", "size", "architecture", "precision", "problems")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="checkpoints, or folders (with their subfolders) for a table",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON: an object for one file, a list for more",
    )
    parser.add_argument(
        "--deep",
        action="store_true",
        help="read every value: NaN and infinity, dead tensors, position ids, and a "
        "hash of each component (kept, so that the next time it is there at once)",
    )
    parser.add_argument(
        "--reference",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a model known to you, such as the original SD1.5: components with its "
        "values are named after it; implies --deep for it",
    )
    parser.add_argument(
        "--sort", choices=SORTS, default="name", help="order of the table"
    )
    parser.add_argument("--threads", type=int, help="threads that read with --deep")


def run(args: argparse.Namespace) -> int:
    """Print what the files hold."""
    from lib_merge.analysis.health.look import find_checkpoints
    from lib_merge.checkpoint.folders import is_pipeline
    from lib_merge.cli import _inspect_view

    if args.threads is not None and args.threads < 1:
        raise InputError(f"--threads {args.threads}: at least one thread is needed.")
    is_listed = [path.is_dir() and not is_pipeline(path) for path in args.files]
    is_table = len(args.files) > 1 or is_listed[0]
    paths = [
        path
        for given, is_folder in zip(args.files, is_listed, strict=True)
        for path in (find_checkpoints(given) if is_folder else (given,))
    ]
    found = _inspected(paths, args)
    if not is_table and found[0].error is not None:
        raise CheckpointError(found[0].error)
    if args.json:
        reports = [inspection.to_json() for inspection in found]
        print(json.dumps(reports if is_table else reports[0], indent=2))
    elif is_table:
        _inspect_view.print_table(_sorted(found, args.sort))
    else:
        _inspect_view.print_one(found[0])
    return 0


def _inspected(paths: list[Path], args: argparse.Namespace) -> tuple[Inspection, ...]:
    from lib_merge.analysis.health.deep import read_deep, recall, with_namesakes
    from lib_merge.analysis.health.look import inspect_file, inspect_files
    from lib_merge.cli._progress import TerminalProgress

    found = inspect_files(paths)
    references = tuple(inspect_file(path) for path in args.reference)
    progress = TerminalProgress()
    try:
        if references:
            references = read_deep(
                references, n_threads=args.threads, progress=progress
            )
        if args.deep:
            found = read_deep(found, n_threads=args.threads, progress=progress)
        else:
            found = recall(found)
    finally:
        progress.close()
    return with_namesakes(found, references)


def _sorted(found: tuple[Inspection, ...], order: str) -> list[Inspection]:
    keys: dict[str, Callable[[Inspection], Any]] = {
        "name": lambda i: "",
        "size": lambda i: -i.n_bytes,
        "architecture": lambda i: i.contents.label,
        "precision": lambda i: i.precision,
        "problems": lambda i: -len(i.all_problems()),
    }
    return sorted(found, key=lambda i: (keys[order](i), str(i.path).lower()))
