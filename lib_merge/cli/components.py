"""`components`: a model with components of other files, or without some."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.cli._progress import TerminalProgress, format_amount
from lib_merge.core.blocks import Component
from lib_merge.errors import InputError

if TYPE_CHECKING:
    from lib_merge.analysis.health.components import ComponentOptions

NAME = "components"
HELP = "put a model together: CLIP, VAE or UNet of other files, or none of one"

TEXT = "text"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", type=Path, help="the model that the rest comes from")
    parser.add_argument(
        "out", type=Path, nargs="?", help="the .safetensors file to write"
    )
    parser.add_argument(
        "--take",
        action="append",
        default=[],
        metavar="COMPONENT=FILE",
        help="a component of another file, as vae=good.vae.safetensors or "
        "clip_l=sdxl.safetensors (any architecture that has it, in any naming); "
        f"{TEXT}=FILE takes every text encoder",
    )
    parser.add_argument(
        "--strip",
        action="append",
        default=[],
        metavar="COMPONENT",
        help="leave a component out, as vae",
    )
    parser.add_argument(
        "--position-ids",
        choices=("keep", "fix"),
        default="keep",
        help="keep those that come along (the default), or write int64 0 to 76",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, write nothing"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing output"
    )


def run(args: argparse.Namespace) -> int:
    """Put it together, or say what would be."""
    from lib_merge.analysis.health.components import plan_components
    from lib_merge.analysis.health.rewrite import check_rewrite, write_file

    if args.out is None and not args.dry_run:
        raise InputError("No output is named; give OUT.safetensors, or --dry-run.")
    plan = plan_components(args.file, _options(args))
    if args.out is not None:
        check_rewrite(plan.job, args.out, overwrite=args.overwrite)
    for sentence in plan.sentences:
        print(sentence)
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


def _options(args: argparse.Namespace) -> ComponentOptions:
    from lib_merge.analysis.health.components import ComponentOptions
    from lib_merge.analysis.health.look import inspect_file

    takes: dict[Component, Path] = {}
    for text in args.take:
        name, sign, file = text.partition("=")
        if not sign or not file:
            raise InputError(f"--take {text}: write COMPONENT=FILE.")
        path = Path(file).expanduser()
        if name.strip().lower() != TEXT:
            takes[_component(name, "--take")] = path
            continue
        parts = inspect_file(args.file).contents.parts
        encoders = [Component(part.component) for part in parts]
        takes.update({c: path for c in encoders if c.is_text_encoder})
    names = [name for text in args.strip for name in text.split(",")]
    strips = frozenset(_component(name, "--strip") for name in names)
    if not takes and not strips and args.position_ids == "keep":
        raise InputError(
            "Nothing is to be done; give --take COMPONENT=FILE, --strip COMPONENT or "
            "--position-ids fix."
        )
    return ComponentOptions(takes, strips, fix_ids=args.position_ids == "fix")


def _component(name: str, option: str) -> Component:
    known = [c for c in Component if c is not Component.SCHEDULE]
    for component in known:
        if component.value == name.strip().lower():
            return component
    raise InputError(
        f"{option}: unknown component {name!r}; known: "
        f"{', '.join(c.value for c in known)}."
    )
