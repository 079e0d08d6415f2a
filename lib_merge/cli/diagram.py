"""`diagram`: an architecture's blocks as a picture, or those of a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.errors import InputError, OutputError

if TYPE_CHECKING:
    from lib_merge.analysis.anatomy import Anatomy

NAME = "diagram"
HELP = "draw the blocks of an architecture or of a checkpoint, with their sizes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "what",
        nargs="*",
        metavar="ARCH|FILE",
        help="architectures (sd1, sdxl, flux ...) or checkpoints; with none given, "
        "the architectures that can be drawn are listed",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="OUT.svg",
        help="the picture, as .svg or .png; or a folder, which gets both of each",
    )
    parser.add_argument(
        "--all", action="store_true", help="every architecture, into the folder OUT"
    )


def run(args: argparse.Namespace) -> int:
    """Draw, or list what can be drawn."""
    from lib_merge.analysis.anatomy import anatomy_of_arch, drawable

    wanted = [*drawable(), *args.what] if args.all else list(args.what)
    if not wanted:
        for arch_id in drawable():
            _describe(arch_id, anatomy_of_arch(arch_id))
        return 0
    places = _places(wanted, args.out)
    found = [(name, _anatomy(name)) for name in wanted]
    for (name, anatomy), files in zip(found, places, strict=True):
        _describe(name, anatomy)
        _draw(anatomy, files)
    return 0


def _anatomy(name: str) -> Anatomy:
    from lib_merge.analysis.anatomy import anatomy_of_arch, anatomy_of_file
    from lib_merge.arch import architectures

    if name in [architecture.id for architecture in architectures()]:
        return anatomy_of_arch(name)
    return anatomy_of_file(Path(name))


def _places(wanted: list[str], out: Path | None) -> list[tuple[Path, ...]]:
    """Where each picture goes, checked before anything is drawn.

    Raises:
        InputError: Several pictures for one file.
        OutputError: The folder does not exist and cannot be made.
    """
    from lib_merge.analysis.drawing import check_name

    if out is None:
        return [()] * len(wanted)
    if out.suffix:
        if len(wanted) > 1:
            raise InputError(
                f"{len(wanted)} pictures cannot go into the one file {out}; give a "
                "folder."
            )
        check_name(out)
        if out.absolute() in [Path(name).absolute() for name in wanted]:
            raise OutputError(f"{out} is the input; choose another name.")
        return [(out,)]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise OutputError(
            f"The folder {out} cannot be made ({fault.strerror}); choose another."
        ) from fault
    stems = [Path(name).stem for name in wanted]
    return [(out / f"{stem}.svg", out / f"{stem}.png") for stem in stems]


def _draw(anatomy: Anatomy, files: tuple[Path, ...]) -> None:
    from lib_merge.analysis.diagram import diagram
    from lib_merge.analysis.drawing import save_drawing

    for file in files:
        save_drawing(diagram(anatomy), file)
        print(f"wrote {file}")


def _describe(name: str, anatomy: Anatomy) -> None:
    print(
        f"{Path(name).stem:<16}{anatomy.label:<28}{anatomy.n_numbered:>4} blocks"
        f"{anatomy.n_tensors:>7} tensors{anatomy.n_params:>16,} parameters"
    )
