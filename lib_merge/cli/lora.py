"""`lora`: LoRA files shown, joined, cut to another rank, or taken from two models."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.cli import _common
from lib_merge.cli._progress import TerminalProgress, format_amount
from lib_merge.core.dtypes import DType
from lib_merge.core.recipe import Setting
from lib_merge.errors import InputError, RecipeError

if TYPE_CHECKING:
    from lib_merge.lora.extract import Extracted
    from lib_merge.lora.factors import Keep
    from lib_merge.lora.join import Joined, Weighted
    from lib_merge.lora.summary import LoraSummary

NAME = "lora"
HELP = "show, join, resize and extract LoRAs"

_SHOWN_NAMES = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the commands and their arguments."""
    commands = parser.add_subparsers(metavar="WHAT", required=True)
    show = commands.add_parser("show", help="kind, architecture, ranks, norms, words")
    show.add_argument("files", nargs="+", type=Path, metavar="FILE")
    show.set_defaults(do=_show)
    _add_merge(commands.add_parser("merge", help="join LoRAs into one"))
    _add_resize(commands.add_parser("resize", help="cut a LoRA to another rank"))
    _add_extract(
        commands.add_parser("extract", help="the difference of two models as a LoRA")
    )


def _add_merge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "loras",
        nargs="*",
        metavar="FILE:WEIGHT:BLOCKS",
        help='LoRAs, as "a.safetensors:0.7" or "a.safetensors:0.7:BASE=0.3,OUT03=1"',
    )
    parser.add_argument(
        "--pool-from",
        action="append",
        default=[],
        type=Path,
        metavar="LIST.txt",
        help="more LoRAs, one a line; # begins a comment",
    )
    parser.add_argument(
        "--how",
        choices=("concat", "svd"),
        default="concat",
        help="concat (the default) loses nothing and adds ranks up; svd decomposes to "
        "--rank or --energy",
    )
    parser.add_argument(
        "--mean", action="store_true", help="divide by the number of LoRAs (a soup)"
    )
    parser.add_argument("--arch", help="the architecture, where names leave it open")
    _add_keep(parser)
    _add_output(parser)
    parser.set_defaults(do=_merge)


def _add_resize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lora", type=Path, metavar="FILE")
    parser.add_argument("--arch", help="the architecture, where names leave it open")
    _add_keep(parser)
    _add_output(parser)
    parser.set_defaults(do=_resize)


def _add_extract(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("base", type=Path, metavar="BASE")
    parser.add_argument(
        "--components", help="what is compared, e.g. unet or text (default: all)"
    )
    parser.add_argument(
        "--vectors",
        action="store_true",
        help="store differences of biases and norms, too",
    )
    _add_keep(parser)
    _add_output(parser)
    parser.set_defaults(do=_extract)


def _add_keep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rank", type=int, help="most factors of a module")
    parser.add_argument(
        "--energy",
        type=float,
        help="least share of each module's squared singular values, as 0.95; with "
        "--rank whichever needs fewer factors",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="decompose at random, faster and not quite the best; needs --rank",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, required=True, help="the .safetensors file to write"
    )
    parser.add_argument("--dtype", help="float16, bfloat16 or float32")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing output"
    )


def run(args: argparse.Namespace) -> int:
    """Do what is asked for."""
    result: int = args.do(args)
    return result


def _keep(args: argparse.Namespace) -> Keep:
    """The rank or share of energy that the options name.

    Raises:
        InputError: Neither, or one that cannot be.
    """
    from lib_merge.lora.factors import Keep

    if args.rank is None and args.energy is None:
        raise InputError("Say how much is kept: --rank 32, or --energy 0.95.")
    if args.rank is not None and args.rank < 1:
        raise InputError(f"--rank {args.rank}: at least 1 is needed.")
    if args.energy is not None and not 0.0 < args.energy <= 1.0:
        raise InputError(f"--energy {args.energy:g}: give a share above 0, at most 1.")
    if args.quick and args.rank is None:
        raise InputError("--quick needs a --rank; leave one out or give the other.")
    return Keep(args.rank, args.energy, args.quick)


def _dtype(args: argparse.Namespace) -> DType | None:
    if args.dtype is None:
        return None
    dtype = DType.from_name(args.dtype)
    if not dtype.is_float or dtype.size < 2:
        raise InputError(
            f"--dtype {args.dtype} is too narrow for a LoRA; use float16, bfloat16 or "
            "float32."
        )
    return dtype


def _merge(args: argparse.Namespace) -> int:
    from lib_merge.lora.join import join_loras

    keep = None
    if args.how == "svd":
        keep = _keep(args)
    elif args.rank is not None or args.energy is not None or args.quick:
        raise InputError("--rank, --energy and --quick are for --how svd; add that.")
    inputs = _weighted(args)
    progress = TerminalProgress()
    try:
        joined = join_loras(
            inputs,
            args.out,
            keep=keep,
            dtype=_dtype(args),
            arch_id=args.arch,
            overwrite=args.overwrite,
            progress=progress,
        )
    finally:
        progress.close()
    return _print_written(joined)


def _weighted(args: argparse.Namespace) -> list[Weighted]:
    from lib_merge.formats.lora_text import read_lora_text
    from lib_merge.lora.join import Weighted

    problems: list[str] = []
    listed = [name for path in args.pool_from for name in _common.read_model_list(path)]
    found = [read_lora_text(t, "LoRA", problems) for t in (*args.loras, *listed)]
    if problems:
        raise RecipeError(problems)
    loras = [lora for lora in found if lora is not None]
    share = 1.0 / len(loras) if args.mean and loras else 1.0
    return [Weighted(lora.path, _times(lora.strength, share)) for lora in loras]


def _times(setting: Setting, factor: float) -> Setting:
    blocks = tuple((block, value * factor) for block, value in setting.blocks)
    return Setting(setting.value * factor, blocks)


def _resize(args: argparse.Namespace) -> int:
    from lib_merge.lora.join import Weighted, join_loras

    progress = TerminalProgress()
    try:
        joined = join_loras(
            [Weighted(str(args.lora), Setting(1.0))],
            args.out,
            keep=_keep(args),
            dtype=_dtype(args),
            arch_id=args.arch,
            overwrite=args.overwrite,
            progress=progress,
        )
    finally:
        progress.close()
    return _print_written(joined)


def _extract(args: argparse.Namespace) -> int:
    from lib_merge.lora.extract import Wanted, extract_lora

    components = None
    if args.components is not None:
        components = _common.parse_components(args.components)
    wanted = Wanted(
        _keep(args), _dtype(args) or DType.F16, components, has_vectors=args.vectors
    )
    progress = TerminalProgress()
    try:
        found = extract_lora(
            args.model,
            args.base,
            args.out,
            wanted,
            overwrite=args.overwrite,
            progress=progress,
        )
    finally:
        progress.close()
    return _print_written(found)


def _print_written(made: Joined | Extracted) -> int:
    for warning in made.warnings:
        print(f"Warning: {warning}")
    low, high = made.ranks
    ranks = f"rank {low}" if low == high else f"ranks {low} to {high}"
    size = format_amount(made.path.stat().st_size, "B")
    print(f"{made.path}  ({size}, {made.arch_id}, {made.n_modules} modules, {ranks})")
    print(f"energy kept   {made.share:.4%}")
    return 0


def _show(args: argparse.Namespace) -> int:
    from lib_merge.lora.summary import summarise_lora

    for index, path in enumerate(args.files):
        progress = TerminalProgress()
        try:
            summary = summarise_lora(path, progress=progress)
        finally:
            progress.close()
        if index:
            print()
        _print_summary(summary)
    return 0


def _print_summary(found: LoraSummary) -> None:
    size = format_amount(found.lora.header.n_bytes, "B")
    print(f"{found.lora.path}  ({size})")
    print(f"architecture  {found.label}")
    for title, counts in (
        ("kinds", found.kinds),
        ("ranks", {rank or "none": n for rank, n in sorted(found.ranks.items())}),
        ("alpha / rank", {f"{s:g}": n for s, n in sorted(found.scales.items())}),
        ("parts", found.families),
        ("types", found.dtypes),
    ):
        print(f"{title:<14}{', '.join(f'{name} ({n})' for name, n in counts.items())}")
    for name, text in found.words.items():
        print(f"{name}  {text}")
    if found.tags:
        print(f"tags          {', '.join(f'{tag} ({n})' for tag, n in found.tags)}")
    if found.norms:
        print("norm of the change by block")
    for block, norm in found.norms.items():
        print(
            f"  {block:<12}{'depends on the model' if norm is None else f'{norm:.5g}'}"
        )
    if found.strangers:
        more = ", ..." if len(found.strangers) > _SHOWN_NAMES else ""
        shown = ", ".join(found.strangers[:_SHOWN_NAMES])
        print(f"not understood  {len(found.strangers)}: {shown}{more}")
