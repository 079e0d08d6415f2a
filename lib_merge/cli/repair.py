"""`repair`: a copy of a checkpoint with everything mended that can be."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.cli._progress import TerminalProgress, format_amount
from lib_merge.core.dtypes import DType
from lib_merge.errors import InputError

if TYPE_CHECKING:
    from lib_merge.analysis.health.defects import Defect

NAME = "repair"
HELP = "mend a checkpoint into a new file: extra, missing, misshapen and NaN tensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", type=Path, help="the checkpoint to mend")
    parser.add_argument(
        "out", type=Path, nargs="?", help="the .safetensors file to write"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, write nothing"
    )
    parser.add_argument(
        "--base",
        type=Path,
        metavar="FILE",
        help="a sound model of the same architecture: what is missing, misshapen, NaN "
        "or infinite is taken from it",
    )
    parser.add_argument(
        "--fill-components",
        action="store_true",
        help="take whole components that are absent (a pruned VAE) from the base, too",
    )
    parser.add_argument(
        "--fill-dead",
        action="store_true",
        help="take tensors that are all zero from the base, too",
    )
    parser.add_argument(
        "--drop",
        action="append",
        default=[],
        metavar="KIND",
        help="leave out more: schedule (noise schedule constants), unknown",
    )
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="KIND",
        help="leave as it is: ema, lora, text_extra, position_ids, non_finite ...",
    )
    parser.add_argument(
        "--to", metavar="PRECISION", help="convert weights: fp16, bf16, fp32"
    )
    parser.add_argument(
        "--headers-only",
        action="store_true",
        help="do not read values: NaN and wrong position ids stay unseen",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing output"
    )


def run(args: argparse.Namespace) -> int:
    """Mend, or say what would be mended."""
    from lib_merge.analysis.health.repair import RepairOptions, plan_repair
    from lib_merge.analysis.health.rewrite import check_rewrite, write_file

    if args.out is None and not args.dry_run:
        raise InputError("No output is named; give OUT.safetensors, or --dry-run.")
    options = RepairOptions(
        base=args.base,
        drop=_kinds(args.drop, "--drop"),
        keep=_kinds(args.keep, "--keep"),
        fill_components=args.fill_components,
        fill_dead=args.fill_dead,
        dtype=_precision(args.to),
        is_deep=not args.headers_only,
    )
    if (args.fill_components or args.fill_dead) and args.base is None:
        raise InputError("--fill-components and --fill-dead need --base FILE.")
    progress = TerminalProgress()
    try:
        plan = plan_repair(args.file, options, progress)
        sentences = plan.sentences()
        written = None
        if args.out is not None:
            check_rewrite(plan.job, args.out, overwrite=args.overwrite)
        if sentences and not args.dry_run:
            written = write_file(
                plan.job, args.out, overwrite=args.overwrite, progress=progress
            )
    finally:
        progress.close()
    for sentence in sentences:
        print(f"{'would ' if written is None else ''}{sentence}")
    for sentence in plan.left:
        print(f"Not mended: {sentence}")
    if not sentences:
        print("Nothing to mend; nothing was written.")
    if written is not None:
        for warning in written.warnings:
            print(f"Warning: {warning}")
        print(f"{written.path}  ({format_amount(written.n_bytes, 'B')})")
        print(f"sha256 {written.sha256}")
    return 0


def _kinds(names: list[str], option: str) -> frozenset[Defect]:
    from lib_merge.analysis.health.defects import Defect
    from lib_merge.analysis.health.repair import DROPPABLE

    allowed = DROPPABLE if option == "--drop" else tuple(Defect)
    known = {defect.value: defect for defect in allowed}
    found = [part.strip().lower() for name in names for part in name.split(",")]
    for name in found:
        if name not in known:
            raise InputError(
                f"{option} {name}: no such kind; known: {', '.join(known)}."
            )
    return frozenset(known[name] for name in found)


def _precision(name: str | None) -> DType | None:
    if name is None:
        return None
    dtype = DType.from_name(name)
    if not dtype.is_float or dtype.size == 1:
        raise InputError(f"--to {name}: use fp32, fp16 or bf16; convert does fp8.")
    return dtype
