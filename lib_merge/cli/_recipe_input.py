"""How a recipe of any format is read: options of `recipe` and of `merge --recipe`."""

from __future__ import annotations

import argparse
import sys
from datetime import date
from pathlib import Path

from lib_merge.core.recipe import Recipe
from lib_merge.errors import InputError
from lib_merge.formats.files import FORMATS
from lib_merge.formats.imported import Entry, Imported, Options
from lib_merge.formats.lookup import load, with_full_hashes
from lib_merge.formats.orders import ORDERS


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Declare what a recipe's file may leave open."""
    group = parser.add_argument_group("how the recipe's file is read")
    group.add_argument(
        "--from",
        dest="format_id",
        choices=[module.ID for module in FORMATS],
        help="the format; looked for unless given",
    )
    group.add_argument(
        "--order",
        choices=[order.id for order in ORDERS],
        help="the order of block weights that come without names",
    )
    group.add_argument(
        "--arch", help="the models' architecture, e.g. sdxl; found from the models"
    )
    group.add_argument(
        "--as-of",
        metavar="YYYY-MM-DD",
        help="when the recipe was made, where its words changed their meaning",
    )
    group.add_argument("--entry", metavar="NAME", help="which one of several recipes")
    group.add_argument(
        "--inputs",
        nargs=2,
        default=[],
        metavar=("A", "B"),
        help="the models of block weights that name none",
    )


def options_of(args: argparse.Namespace) -> Options:
    """The options of the command line.

    Raises:
        InputError: No date.
    """
    as_of = None
    if args.as_of:
        try:
            as_of = date.fromisoformat(args.as_of)
        except ValueError as fault:
            raise InputError(
                f"--as-of {args.as_of!r} is no date; write it like 2024-04-21."
            ) from fault
    return Options(order=args.order, arch=args.arch, as_of=as_of)


def read_file(args: argparse.Namespace, path: Path, folders: list[Path]) -> Imported:
    """Everything that a file says.

    Raises:
        InputError: It cannot be read, or leaves something open.
    """
    return load(path, options_of(args), folders=folders, format_id=args.format_id)


def recipe_in(
    args: argparse.Namespace, path: Path, folders: list[Path]
) -> tuple[Imported, Entry, Recipe]:
    """A file, the entry that is meant, and its recipe with its models.

    Raises:
        InputError: It cannot be read, or leaves something open.
    """
    imported = read_file(args, path, folders)
    entry = imported.entry(args.entry)
    return imported, entry, entry.with_models(args.inputs)


def load_recipe(args: argparse.Namespace, path: Path, folders: list[Path]) -> Recipe:
    """The recipe to run; what is unclear of it goes to stderr.

    Raises:
        InputError: It cannot be read, or leaves something open.
    """
    imported, _, recipe = recipe_in(args, path, folders)
    recipe = with_full_hashes(recipe, folders, may_hash=True)
    for note in (*imported.notes, *imported.unknown):
        print(f"Note: {note}", file=sys.stderr)
    return recipe
