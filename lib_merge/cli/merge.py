"""`merge`: some models and a method, or a recipe, into one checkpoint file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lib_merge.cli import _common
from lib_merge.cli._progress import TerminalProgress, format_amount
from lib_merge.core.blocks import Component
from lib_merge.core.dtypes import COMPUTE_DTYPES, DType
from lib_merge.core.method import MergeMethod
from lib_merge.core.recipe import Recipe, Setting, simple_recipe
from lib_merge.errors import InputError
from lib_merge.methods import methods

NAME = "merge"
HELP = "merge models into a checkpoint file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "words", nargs="*", metavar="METHOD A B", help="a method and its models"
    )
    parser.add_argument("--out", type=Path, help="the .safetensors file to write")
    parser.add_argument(
        "--recipe", type=Path, help="a recipe (.json), or a merged file to repeat"
    )
    _add_settings(parser)
    _add_running(parser)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is computed")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="alpha=0.3",
        help="a parameter's value",
    )
    group.add_argument(
        "--blocks",
        action="append",
        default=[],
        metavar="IN04=0.7,M00=0.1",
        help="values by block, range (IN04-IN07) or BASE, the text encoders",
    )
    group.add_argument(
        "--rule",
        action="append",
        default=[],
        metavar="BLOCKS:PATTERN:VALUE",
        help='a value for matching keys, as "OUT03-OUT06:attn:0.4"; the last one wins',
    )
    group.add_argument(
        "--components",
        help="what is blended, e.g. unet,text or all; the rest is taken from A",
    )
    group.add_argument(
        "--precision",
        help=f"compute in {' or '.join(d.torch_name for d in COMPUTE_DTYPES)}",
    )
    group.add_argument(
        "--save-dtype", help="float16, bfloat16, float32, float64, fp8 ... or keep"
    )
    group.add_argument(
        "--keep-ema", action="store_true", help="keep EMA weights of the first model"
    )
    group.add_argument(
        "--missing-ok",
        action="store_true",
        help="take keys that a later model lacks from the first",
    )


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
    recipe = _recipe(args)
    if args.out is None and not args.dry_run:
        raise InputError("No output is named; give --out FILE.safetensors.")
    if args.threads is not None and args.threads < 1:
        raise InputError(f"--threads {args.threads}: at least one thread is needed.")
    n_bytes = _common.parse_size(args.memory)

    from lib_merge.engine.resolve import recipe_models
    from lib_merge.engine.run import RunOptions
    from lib_merge.engine.save import merge_to_file

    folders = _folders(args)
    progress = TerminalProgress()
    try:
        if args.models:
            recipe = recipe_models(recipe, folders, may_hash=True, progress=progress)
        if args.dry_run:
            return _show_plan(recipe, folders, args)
        saved = merge_to_file(
            recipe,
            args.out,
            options=RunOptions(
                budget_bytes=n_bytes, n_threads=args.threads, device=args.device
            ),
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


def _recipe(args: argparse.Namespace) -> Recipe:
    if args.recipe is not None:
        given = [
            option
            for option in ("words", "set", "blocks", "rule", "components")
            if getattr(args, option)
        ]
        if given:
            raise InputError(
                f"--recipe says everything itself; leave out {', '.join(given)}."
            )
        return _with_types(_common.load_recipe(args.recipe), args)
    if not args.words:
        raise InputError(
            "Nothing to merge; give METHOD A B ... --out O, or --recipe R.json --out O."
        )
    method = methods().get(args.words[0])
    recipe = simple_recipe(
        method.id,
        tuple(args.words[1:]),
        _settings(args, method),
        components=_common.parse_components(args.components),
    )
    return _with_types(recipe, args)


def _settings(args: argparse.Namespace, method: MergeMethod) -> dict[str, Setting]:
    return _common.build_settings(
        _common.parse_pairs(args.set, "--set"),
        _common.parse_pairs(args.blocks, "--blocks"),
        [_common.parse_rule(text) for text in args.rule],
        names=[spec.name for spec in method.params],
        defaults={spec.name: spec.default for spec in method.params},
    )


def _with_types(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    """The recipe with the types and switches that the command line names."""
    from dataclasses import replace

    changes: dict[str, object] = {}
    if args.precision:
        changes["compute_dtype"] = DType.from_name(args.precision)
    if args.save_dtype:
        is_keep = args.save_dtype.lower() == "keep"
        changes["save_dtype"] = None if is_keep else DType.from_name(args.save_dtype)
    if args.keep_ema:
        changes["keep_ema"] = True
    if args.missing_ok:
        changes["is_missing_ok"] = True
    return replace(recipe, **changes)  # type: ignore[arg-type]


def _show_plan(recipe: Recipe, folders: list[Path], args: argparse.Namespace) -> int:
    from lib_merge.core.plan import MergeOp
    from lib_merge.engine.planning import plan_recipe
    from lib_merge.engine.save import check_disk, check_output

    plan = plan_recipe(recipe, folders)
    if args.out is not None:
        target = args.out.expanduser().absolute()
        inputs = [Path(model.path) for _, model in plan.recipe.models()]
        check_output(target, inputs, overwrite=args.overwrite)
        check_disk(target, plan.n_bytes_out)
    print(f"architecture  {plan.arch_id}")
    for index, model in plan.recipe.models():
        print(f"model {index}       {model.path}")
    merged = [task for task in plan.tasks if isinstance(task.op, MergeOp)]
    print(f"reads         {format_amount(plan.n_bytes_in, 'B')}")
    print(f"writes        {format_amount(plan.n_bytes_out, 'B')}")
    print(f"tensors       {len(plan.tasks)}, {len(merged)} of them merged")
    for component in Component:
        tasks = [task for task in plan.tasks if task.component is component]
        if tasks:
            n_merged = sum(isinstance(task.op, MergeOp) for task in tasks)
            types = sorted({task.dtype.torch_name for task in tasks})
            print(
                f"  {component.value:<12}{n_merged} merged, "
                f"{len(tasks) - n_merged} copied, {', '.join(types)}"
            )
    for warning in plan.warnings:
        print(f"Warning: {warning}")
    return 0


def _save_recipe(path: Path, recipe: Recipe) -> None:
    try:
        path.write_text(json.dumps(recipe.to_json(), indent=2) + "\n", encoding="utf-8")
    except OSError as fault:
        raise InputError(
            f"The recipe cannot be written to {path} ({fault.strerror}); the merged "
            "file holds it, too."
        ) from fault
