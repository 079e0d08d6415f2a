"""`convert`: a copy of a checkpoint in another precision, or laid out otherwise."""

from __future__ import annotations

import argparse
from pathlib import Path

from lib_merge.cli._progress import TerminalProgress, format_amount
from lib_merge.core.dtypes import DType
from lib_merge.errors import InputError

NAME = "convert"
HELP = "write a model in another precision (fp8, too), as one file or as a folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "file", type=Path, help="a checkpoint (.ckpt, too), or a diffusers folder"
    )
    parser.add_argument(
        "out", type=Path, nargs="?", help="the .safetensors file, or folder, to write"
    )
    parser.add_argument(
        "--layout",
        choices=("single", "diffusers"),
        help="names and form: one file as WebUIs read it (always so from a folder), or "
        "the folder of a diffusers pipeline",
    )
    parser.add_argument(
        "--like",
        type=Path,
        metavar="FOLDER",
        help="with --layout diffusers: a pipeline of the same architecture, for its "
        "configs and tokenizers",
    )
    parser.add_argument(
        "--to",
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
    if args.to is None and args.layout is None:
        raise InputError("Nothing is to be done; give --to PRECISION, or --layout.")
    if (args.layout == "diffusers") != (args.like is not None):
        raise InputError("--layout diffusers and --like FOLDER go together.")
    dtype = DType.from_name(args.to) if args.to else None
    if args.layout == "diffusers":
        return _to_folder(args, dtype)
    options = ConvertOptions(
        dtype,
        is_scaled=not args.unscaled,
        keep_ema=args.keep_ema,
        is_single=args.layout == "single" or args.file.is_dir(),
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


def _to_folder(args: argparse.Namespace, dtype: DType | None) -> int:
    from lib_merge.analysis.health.pipeline import plan_pipeline, write_pipeline

    plan = plan_pipeline(args.file, args.like, dtype)
    for sentence in plan.sentences:
        print(sentence)
    if args.dry_run:
        print(f"would write {format_amount(plan.n_bytes, 'B')}")
        return 0
    progress = TerminalProgress()
    try:
        files = write_pipeline(plan, args.out, progress)
    finally:
        progress.close()
    for written in files:
        print(f"{written.path}  ({format_amount(written.n_bytes, 'B')})")
        print(f"sha256 {written.sha256}")
    return 0
