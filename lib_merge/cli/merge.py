"""`merge`: some models and a method, or a recipe, into one checkpoint file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.cli import _common, _recipe_input, _request
from lib_merge.cli._progress import TerminalProgress, format_amount
from lib_merge.core.blocks import Component
from lib_merge.core.recipe import ModelNode, Recipe
from lib_merge.errors import InputError

if TYPE_CHECKING:
    from lib_merge.core.plan import Plan
    from lib_merge.engine.run import RunOptions

NAME = "merge"
HELP = "merge models into a checkpoint file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    _request.add_models(parser)
    parser.add_argument("--out", type=Path, help="the .safetensors file to write")
    _request.add_settings(parser)
    _request.add_steps(parser)
    _request.add_values(parser)
    _recipe_input.add_reading(parser)
    _add_running(parser)


def _add_running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it is run")
    group.add_argument(
        "--models",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="where models lie; searched by name, then by hash",
    )
    group.add_argument("--memory", default="2GB", help="most memory for buffers")
    group.add_argument("--threads", type=int, help="threads that work")
    group.add_argument("--device", default="cpu", help="cpu or cuda:0")
    group.add_argument(
        "--overwrite", action="store_true", help="replace an existing output"
    )
    group.add_argument(
        "--save-recipe", type=Path, metavar="R.json", help="write the recipe, too"
    )
    group.add_argument(
        "--dry-run", action="store_true", help="check everything and show the plan"
    )


def run(args: argparse.Namespace) -> int:
    """Merge, or show what would be merged."""
    recipe = _request.recipe_of(args)
    if args.out is None and not args.dry_run:
        raise InputError("No output is named; give --out FILE.safetensors.")
    if args.threads is not None and args.threads < 1:
        raise InputError(f"--threads {args.threads}: at least one thread is needed.")
    n_bytes = _common.parse_size(args.memory)

    from lib_merge.engine.resolve import recipe_models
    from lib_merge.engine.run import RunOptions
    from lib_merge.engine.save import merge_to_file

    options = RunOptions(
        budget_bytes=n_bytes, n_threads=args.threads, device=args.device
    )
    folders = _folders(args)
    progress = TerminalProgress()
    try:
        if args.models:
            recipe = recipe_models(recipe, folders, may_hash=True, progress=progress)
        if args.dry_run:
            return _show_plan(recipe, folders, args, options)
        saved = merge_to_file(
            recipe,
            args.out,
            options=options,
            folders=folders,
            overwrite=args.overwrite,
            progress=progress,
        )
    finally:
        progress.close()
    for warning in saved.warnings:
        print(f"Warning: {warning}")
    if args.save_recipe:
        _save_recipe(args.save_recipe, saved.recipe)
    size = format_amount(saved.path.stat().st_size, "B")
    print(f"{saved.path}  ({size}, {saved.report.seconds:.1f} s)")
    print(f"sha256 {saved.sha256}")
    return 0


def _folders(args: argparse.Namespace) -> list[Path]:
    """Folders to search; a merged file's models may lie beside it."""
    folders = list(args.models)
    if args.recipe is not None:
        folders.append(args.recipe.absolute().parent)
    return folders


def _show_plan(
    recipe: Recipe, folders: list[Path], args: argparse.Namespace, options: RunOptions
) -> int:
    from lib_merge.engine.outlook import outlook_of
    from lib_merge.engine.planning import plan_recipe
    from lib_merge.engine.save import check_disk, check_output

    plan = plan_recipe(recipe, folders)
    if args.out is not None:
        target = args.out.expanduser().absolute()
        inputs = [Path(file.path) for _, file in plan.recipe.files()]
        check_output(target, inputs, overwrite=args.overwrite)
        check_disk(target, plan.n_bytes_out)
    effort = outlook_of(plan, options)
    print(f"architecture  {plan.arch_id}")
    for index, file in plan.recipe.files():
        kind = "model" if isinstance(file, ModelNode) else "LoRA"
        print(f"{kind:<6}{index:<8}{file.path}")
    print(f"reads         {format_amount(effort.n_bytes_read, 'B')}", end="")
    print(f", of {format_amount(plan.n_bytes_in, 'B')} that take part")
    print(f"passes        {effort.n_passes} over most of the merged tensors")
    print(f"memory        {format_amount(effort.memory_bytes, 'B')} of buffers", end="")
    print(f", {effort.n_threads} thread{'s' if effort.n_threads > 1 else ''}")
    print(f"writes        {format_amount(plan.n_bytes_out, 'B')}")
    _show_tasks(plan)
    for warning in plan.warnings:
        print(f"Warning: {warning}")
    return 0


def _show_tasks(plan: Plan) -> None:
    from lib_merge.core.plan import CopyOp

    merged = [task for task in plan.tasks if not isinstance(task.op, CopyOp)]
    print(f"tensors       {len(plan.tasks)}, {len(merged)} of them merged")
    for component in Component:
        tasks = [task for task in plan.tasks if task.component is component]
        if tasks:
            n_merged = sum(not isinstance(task.op, CopyOp) for task in tasks)
            types = sorted({task.dtype.torch_name for task in tasks})
            print(
                f"  {component.value:<12}{n_merged} merged, "
                f"{len(tasks) - n_merged} copied, {', '.join(types)}"
            )


def _save_recipe(path: Path, recipe: Recipe) -> None:
    try:
        path.write_text(json.dumps(recipe.to_json(), indent=2) + "\n", encoding="utf-8")
    except OSError as fault:
        raise InputError(
            f"The recipe cannot be written to {path} ({fault.strerror}); the merged "
            "file holds it, too."
        ) from fault
