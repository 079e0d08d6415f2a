"""`convert`: a copy of a checkpoint in another precision."""

from __future__ import annotations

import argparse
from pathlib import Path

from lib_merge.cli._progress import TerminalProgress, format_amount
from lib_merge.core.dtypes import DType
from lib_merge.errors import InputError

NAME = "convert"
HELP = "write a checkpoint in another precision: fp32, fp16, bf16, fp8 with scales"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", type=Path, help="the checkpoint (.ckpt works, too)")
    parser.add_argument(
        "out", type=Path, nargs="?", help="the .safetensors file to write"
    )
    parser.add_argument(
        "--to",
        required=True,
        metavar="PRECISION",
        help="fp32, fp16, bf16, fp8 (e4m3fn) or fp8_e5m2; from fp8 its scales are "
        "multiplied out",
    )
    parser.add_argument(
        "--unscaled",
        action="store_true",
        help="fp8 without a scale for each weight (ComfyUI's scaled fp8 has one)",
    )
    parser.add_argument(
        "--keep-ema", action="store_true", help="keep EMA shadow weights"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, write nothing"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing output"
    )


def run(args: argparse.Namespace) -> int:
    """Convert, or say what would be."""
    from lib_merge.analysis.health.convert import ConvertOptions, plan_convert
    from lib_merge.analysis.health.rewrite import check_rewrite, write_file

    if args.out is None and not args.dry_run:
        raise InputError("No output is named; give OUT.safetensors, or --dry-run.")
    options = ConvertOptions(
        DType.from_name(args.to), is_scaled=not args.unscaled, keep_ema=args.keep_ema
    )
    plan = plan_convert(args.file, options)
    if args.out is not None:
        check_rewrite(plan.job, args.out, overwrite=args.overwrite)
    for sentence in plan.sentences:
        print(sentence)
    for warning in plan.warnings:
        print(f"Warning: {warning}")
    if args.dry_run:
        print(f"would write {format_amount(plan.job.n_bytes, 'B')}")
        return 0
    progress = TerminalProgress()
    try:
        written = write_file(
            plan.job, args.out, overwrite=args.overwrite, progress=progress
        )
    finally:
        progress.close()
    for warning in written.warnings:
        print(f"Warning: {warning}")
    print(f"{written.path}  ({format_amount(written.n_bytes, 'B')})")
    print(f"sha256 {written.sha256}")
    return 0
