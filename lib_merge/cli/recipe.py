"""`recipe`: show, verify, convert and flatten recipes of any program."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.cli import _recipe_input, _recipe_view
from lib_merge.cli._progress import TerminalProgress
from lib_merge.core.recipe import Recipe
from lib_merge.errors import InputError, RecipeError
from lib_merge.formats.files import WRITERS, write
from lib_merge.formats.lookup import find_models, with_full_hashes

if TYPE_CHECKING:
    from lib_merge.formats.lookup import Found

NAME = "recipe"
HELP = "show, verify, convert or flatten a recipe of MergeLab or another program"

EXIT_MISSING = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _action(actions, "show", "what a recipe does and what it leaves open", _show)
    verify = _action(
        actions, "verify", "whether its models are there and it can be run", _verify
    )
    verify.add_argument(
        "--hash", action="store_true", help="read files of unknown hash to find models"
    )
    convert = _action(actions, "convert", "write it in another format", _convert)
    convert.add_argument(
        "--to", choices=list(WRITERS), default="mergelab", help="the format to write"
    )
    flat = _action(actions, "flatten", "the share of each file, by block", _flatten)
    for writing in (convert, flat):
        writing.add_argument("--out", type=Path, help="the file to write")
        writing.add_argument(
            "--overwrite", action="store_true", help="replace an existing file"
        )
        writing.add_argument(
            "--name",
            action="append",
            default=[],
            metavar="OLD=FILE",
            help="another file for a model, such as one that the recipe does not name",
        )


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=text)
    parser.add_argument("file", type=Path, metavar="FILE", help="recipe or checkpoint")
    parser.add_argument(
        "--models",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="where models lie; searched by hash, then by name",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    _recipe_input.add_reading(parser)
    parser.set_defaults(action=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do what was asked."""
    return int(args.action(args))


def _show(args: argparse.Namespace) -> int:
    imported = _recipe_input.read_file(args, args.file, args.models)
    if args.json:
        print(json.dumps(_recipe_view.imported_json(imported), indent=2))
        return 0
    _recipe_view.show_file(imported)
    if args.entry is None and len(imported.entries) > 1:
        _recipe_view.show_entries(imported)
    else:
        _recipe_view.show_entry(imported.entry(args.entry))
    return 0


def _verify(args: argparse.Namespace) -> int:
    imported, _, recipe = _recipe_input.recipe_in(args, args.file, args.models)
    progress = TerminalProgress()
    try:
        recipe = with_full_hashes(
            recipe, args.models, may_hash=args.hash, progress=progress
        )
        folders = [*args.models, args.file.absolute().parent]
        found = list(
            find_models(recipe, folders, may_hash=args.hash, progress=progress)
        )
    finally:
        progress.close()
    problems: list[str] = []
    plan_text = ""
    if all(one.path for one in found):
        problems, plan_text = _plan(recipe, folders)
    is_ok = not problems and all(one.path for one in found)
    if args.json:
        print(
            json.dumps(
                {
                    "is_runnable": is_ok,
                    "models": [_found_json(one) for one in found],
                    "problems": problems,
                    "unknown": list(imported.unknown),
                },
                indent=2,
            )
        )
    else:
        _recipe_view.show_found(found)
        for line in problems or [plan_text]:
            if line:
                print(line)
    return 0 if is_ok else EXIT_MISSING


def _found_json(found: Found) -> dict[str, str | None]:
    return {
        "model": found.model.path,
        "sha256": found.model.sha256,
        "path": found.path,
        "reason": found.reason,
    }


def _plan(recipe: Recipe, folders: list[Path]) -> tuple[list[str], str]:
    """What speaks against running it, or a line on what it would do."""
    from lib_merge.engine.planning import plan_recipe

    try:
        plan = plan_recipe(recipe, folders)
    except RecipeError as fault:
        return list(fault.problems), ""
    warnings = "".join(f"\nWarning: {warning}" for warning in plan.warnings)
    return [], f"It can be run: {plan.arch_id}, {len(plan.tasks)} tensors.{warnings}"


def _convert(args: argparse.Namespace) -> int:
    imported, _, recipe = _recipe_input.recipe_in(args, args.file, args.models)
    recipe = _renamed(recipe, args.name)
    text = write(recipe, args.to)
    if args.out is None:
        print(text, end="")
    else:
        _write(args, text)
        for note in (*imported.notes, *imported.unknown):
            print(f"Note: {note}")
    return 0


def _flatten(args: argparse.Namespace) -> int:
    from lib_merge.formats.flatten import flat_recipe, flatten
    from lib_merge.formats.lookup import arch_of

    imported, _, recipe = _recipe_input.recipe_in(args, args.file, args.models)
    recipe = _renamed(recipe, args.name)
    flat = flatten(recipe, args.arch or arch_of(recipe, args.models))
    if args.json:
        print(json.dumps(_recipe_view.flat_json(flat, imported), indent=2))
    else:
        _recipe_view.show_flat(flat, imported)
    if args.out is not None:
        _write(args, write(flat_recipe(flat), "mergelab"))
    return 0


def _renamed(recipe: Recipe, pairs: list[str]) -> Recipe:
    """The recipe with other files for some models.

    Raises:
        InputError: No pair, or no model of that name.
    """
    for pair in pairs:
        old, equals, new = pair.partition("=")
        changed = {
            index: replace(model, path=new, sha256=None)
            for index, model in recipe.files()
            if old.strip() and old in (model.path, (model.sha256 or "")[: len(old)])
        }
        if not equals or not new or not changed:
            known = ", ".join(model.path for _, model in recipe.files())
            raise InputError(
                f"--name '{pair}' fits no model; write OLD=FILE with one of: {known}."
            )
        recipe = recipe.with_models(changed)
    return recipe


def _write(args: argparse.Namespace, text: str) -> None:
    path: Path = args.out
    if path.exists() and not args.overwrite:
        raise InputError(f"{path} exists; give --overwrite to replace it.")
    draft = path.with_name(f".{path.name}.part")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as fault:
        draft.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written ({fault.strerror}).") from fault
    print(f"{path}  ({len(text.encode())} bytes)")
