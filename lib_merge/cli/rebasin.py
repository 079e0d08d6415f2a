"""`rebasin`: B's channels brought into A's order, then the usual weighted sum."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.cli import _common
from lib_merge.cli._progress import TerminalProgress, format_amount
from lib_merge.core.dtypes import DType
from lib_merge.errors import InputError, RecipeError
from lib_merge.formats.block_text import Scope, read_blocks, settings_of
from lib_merge.methods import methods

if TYPE_CHECKING:
    from lib_merge.analysis.rebasin.outcome import Outcome, Wanted
    from lib_merge.analysis.rebasin.report import Report
    from lib_merge.core.blocks import Architecture

NAME = "rebasin"
HELP = "align model B to model A by permuting its channels (Git Re-Basin), and merge"

_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model_a", metavar="A", help="the model that stays as it is")
    parser.add_argument("model_b", metavar="B", help="the model that is aligned to it")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="O.safetensors",
        help="the weighted sum of A and aligned B",
    )
    parser.add_argument(
        "--aligned-out",
        type=Path,
        metavar="B.safetensors",
        help="aligned B itself, which computes what B does",
    )
    parser.add_argument(
        "--alpha", type=float, help="place between A (0) and aligned B (1): 0.5"
    )
    parser.add_argument(
        "--blocks",
        action="append",
        default=[],
        metavar="IN04=0.7,M00=0.1",
        help="alpha by block, range (IN04-IN07) or BASE, the text encoders",
    )
    parser.add_argument(
        "--save-dtype", default="float16", help="of the merge: float16 ... or keep"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of matching")
    parser.add_argument(
        "--iterations", type=int, default=10, help="passes of matching at most"
    )
    _add_running(parser)


def _add_running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it is run")
    group.add_argument("--memory", default="2GB", help="most memory for tensors")
    group.add_argument("--device", default="cpu", help="cpu or cuda:0")
    group.add_argument(
        "--heads",
        metavar="clip_l=4",
        help="numbers of attention heads, for models of unusual width",
    )
    group.add_argument(
        "--models",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="where models lie",
    )
    group.add_argument(
        "--overwrite", action="store_true", help="replace existing outputs"
    )
    group.add_argument(
        "--report",
        type=Path,
        metavar="R.json",
        help="write how far every permutation moved, and the distances",
    )


def run(args: argparse.Namespace) -> int:
    """Align, then merge."""
    from lib_merge.analysis.rebasin.heads import read_heads
    from lib_merge.analysis.rebasin.matching import MatchOptions, match_pair
    from lib_merge.analysis.rebasin.outcome import check_wanted, save_outcome
    from lib_merge.analysis.rebasin.pair import open_pair
    from lib_merge.analysis.rebasin.report import report_of
    from lib_merge.analysis.rebasin.state import state_file_of
    from lib_merge.engine.run import RunOptions

    n_bytes = _common.parse_size(args.memory)
    options = MatchOptions(args.seed, args.iterations, n_bytes, args.device)
    pair = open_pair(
        args.model_a, args.model_b, folders=args.models, n_heads=read_heads(args.heads)
    )
    wanted = _wanted(args, pair.architecture)
    check_wanted(pair, wanted)
    state = state_file_of(pair, args.seed, args.device)
    progress = TerminalProgress()
    try:
        matching = match_pair(pair, options, progress=progress, state_file=state)
        report = report_of(pair, matching)
        outcome = save_outcome(
            pair,
            matching,
            wanted,
            seed=args.seed,
            options=RunOptions(budget_bytes=n_bytes, device=args.device),
            progress=progress,
        )
    finally:
        progress.close()
    if args.report is not None:
        _write_report(args.report, report)
    state.remove()
    _show(report)
    _show_outcome(outcome)
    return 0


def _wanted(args: argparse.Namespace, architecture: Architecture) -> Wanted:
    """What is to be written.

    Raises:
        InputError: Nothing is named.
        RecipeError: Everything wrong with alpha and the blocks.
    """
    from lib_merge.analysis.rebasin.outcome import METHOD, Wanted

    if args.out is None and args.aligned_out is None and args.report is None:
        raise InputError(
            "No output is named; give --out FILE.safetensors for the merge, "
            "--aligned-out FILE.safetensors for aligned B, or --report FILE.json."
        )
    if args.out is None and (args.alpha is not None or args.blocks):
        raise InputError(
            "--alpha and --blocks speak of the merge; give --out FILE.safetensors."
        )
    method = methods().get(METHOD)
    problems: list[str] = []
    blocks = read_blocks(args.blocks, Scope(method, architecture), "--blocks", problems)
    if problems:
        raise RecipeError(problems)
    values = {"alpha": 0.5 if args.alpha is None else args.alpha}
    is_kept = args.save_dtype.lower() == "keep"
    return Wanted(
        merged=args.out,
        aligned=args.aligned_out,
        alpha=settings_of(values, blocks, (), method)["alpha"],
        save_dtype=None if is_kept else DType.from_name(args.save_dtype),
        overwrite=args.overwrite,
    )


def _write_report(path: Path, report: Report) -> None:
    try:
        text = json.dumps(report.to_json(), indent=2) + "\n"
        path.write_text(text, encoding="utf-8")
    except OSError as fault:
        raise InputError(
            f"The report cannot be written to {path} ({fault.strerror}); choose "
            "another place."
        ) from fault


def _show(report: Report) -> None:
    """Print distances and what moved most."""
    for warning in report.warnings:
        print(f"Warning: {warning}")
    matching = report.matching
    start = "the identity" if matching.start == "identity" else "a first guess"
    end = "nothing left to improve" if matching.is_settled else "not settled yet"
    print(
        f"{report.model_b} aligned to {report.model_a} ({report.arch_id}): from "
        f"{start}, {len(matching.scores) - 1} passes, {end}"
    )
    print(f"{'component':<12}{'L2 before':>14}{'after':>14}{'cosine':>12}{'after':>12}")
    for one in report.distances:
        print(
            f"{one.name:<12}{one.before.distance:>14.4f}{one.after.distance:>14.4f}"
            f"{one.before.cosine:>12.6f}{one.after.cosine:>12.6f}"
        )
    moved = [move for move in report.moves if move.n_moved]
    print(f"moved         {len(moved)} of {len(report.moves)} permutations")
    moved.sort(key=lambda move: -move.n_moved / move.width)
    for move in moved[:_SHOWN]:
        print(f"  {move.name:<56}{move.n_moved:>6} of {move.width:>5} channels")
    if len(moved) > _SHOWN:
        print(f"  and {len(moved) - _SHOWN} more; --report R.json lists all")


def _show_outcome(outcome: Outcome) -> None:
    if outcome.aligned is not None:
        size = format_amount(outcome.aligned.path.stat().st_size, "B")
        print(f"{outcome.aligned.path}  ({size})")
        print(f"sha256 {outcome.aligned.sha256}")
    for warning in outcome.warnings:
        print(f"Warning: {warning}")
    if outcome.merged is not None:
        for warning in outcome.merged.warnings:
            print(f"Warning: {warning}")
        size = format_amount(outcome.merged.path.stat().st_size, "B")
        print(f"{outcome.merged.path}  ({size})")
        print(f"sha256 {outcome.merged.sha256}")
