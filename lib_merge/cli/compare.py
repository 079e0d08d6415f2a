"""`compare`: how far models are from each other, and what is odd about them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.cli import _common
from lib_merge.cli._progress import TerminalProgress
from lib_merge.errors import InputError, OutputError

if TYPE_CHECKING:
    from lib_merge.analysis.comparison import Comparison
    from lib_merge.analysis.drawing import Drawing

NAME = "compare"
HELP = "compare models: distances, a map, clusters, copies, outliers"

_CHART = ".svg"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("models", nargs="*", type=Path, help="two or more checkpoints")
    parser.add_argument(
        "--list", type=Path, metavar="FILE", help="a text file with one model a line"
    )
    parser.add_argument(
        "--base",
        type=Path,
        help="the model that changes are measured from (default: the first)",
    )
    parser.add_argument(
        "--matrix",
        type=Path,
        metavar="FILE.json",
        help="instead of models, a comparison that was saved with --json, or a "
        "published matrix (ml, cm, dm)",
    )
    parser.add_argument(
        "--predict",
        choices=("sample", "exact"),
        help="tell where merges of the models would lie: uniform and geometric median "
        "exactly, TIES-SOUP and TSD on an eighth of the values or on all",
    )
    _add_view(parser)
    group = parser.add_argument_group("how it is run")
    group.add_argument("--memory", default="2GB", help="most memory for buffers")
    group.add_argument("--threads", type=int, help="threads that work")


def _add_view(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is shown and written")
    group.add_argument(
        "--by",
        choices=("component", "block", "key"),
        default="component",
        help="how fine the tables of --json and --csv are",
    )
    group.add_argument(
        "--part",
        help="what the summary and the charts are of: a component, a block, a tensor "
        "(with --by key), or all (default: unet)",
    )
    group.add_argument("--json", type=Path, metavar="OUT", help="all matrices")
    group.add_argument("--csv", type=Path, metavar="OUT", help="a line for every pair")
    group.add_argument(
        "--svg",
        type=Path,
        metavar="OUT",
        help="the clustered heat map, as .svg or .png; or a folder for all charts",
    )
    group.add_argument(
        "--map", type=Path, metavar="OUT.svg", help="the models in a plane (or .png)"
    )
    group.add_argument(
        "--method",
        choices=("mds", "smacof", "pca", "tsne", "umap"),
        default="mds",
        help="how the plane is found (tsne and umap need their libraries)",
    )
    group.add_argument(
        "--pair",
        nargs=2,
        metavar=("A", "B"),
        help="two models, by name or number, to compare block by block",
    )
    group.add_argument(
        "--block",
        help="with --pair and a folder as --svg: a histogram of this block's "
        "differences",
    )


def run(args: argparse.Namespace) -> int:
    """Compare, print a summary, write what was asked for."""
    _check(args)
    if args.matrix is not None:
        from lib_merge.analysis.tables import load_comparison

        comparison = load_comparison(args.matrix)
    else:
        comparison = _compared(args)
    part = args.part or comparison.main_part
    pair = tuple(comparison.model(name) for name in args.pair or ())
    _print(comparison, part, pair)
    _write(comparison, part, pair, args)
    return 0


def _check(args: argparse.Namespace) -> None:
    has_models = bool(args.models or args.list)
    if args.matrix is not None and (has_models or args.base or args.predict):
        raise InputError(
            "--matrix stands for models; leave out models and their words."
        )
    if args.matrix is None and not has_models:
        raise InputError("No models are given; name two or more, or give --list FILE.")
    if args.threads is not None and args.threads < 1:
        raise InputError(f"--threads {args.threads}: at least one thread is needed.")
    if args.block and not (args.pair and args.svg and not args.svg.suffix):
        raise InputError(
            "--block draws a histogram of two models: give --pair A B and --svg FOLDER."
        )
    _check_outputs(args)


def _check_outputs(args: argparse.Namespace) -> None:
    """Find faults of the outputs before anything large is read."""
    from lib_merge.analysis.drawing import check_name
    from lib_merge.analysis.map import check_method

    check_method(args.method)
    for path in (args.map, args.svg):
        if path is not None and (path is args.map or path.suffix):
            check_name(path)
    inputs = {
        path.absolute() for path in (*args.models, args.base, args.matrix) if path
    }
    for path in (args.json, args.csv, args.map, args.svg):
        if path is None:
            continue
        if path.absolute() in inputs:
            raise OutputError(f"{path} is one of the inputs; choose another name.")
        if not path.absolute().parent.is_dir():
            raise OutputError(
                f"The folder of {path} does not exist; make it or choose another."
            )


def _compared(args: argparse.Namespace) -> Comparison:
    n_bytes = _common.parse_size(args.memory)
    paths = list(args.models)
    if args.list is not None:
        paths += [Path(name) for name in _common.read_model_list(args.list)]

    from lib_merge.analysis.comparison import pick_model, pick_part
    from lib_merge.analysis.distances import CompareOptions, compare_models
    from lib_merge.analysis.models import find_models
    from lib_merge.analysis.predict import DEFAULT_SHARE

    models = find_models(paths, args.base)
    # Names are looked up now, not after hours of reading.
    for name in args.pair or ():
        pick_model(models.names, name)
    for part in (args.part, args.block):
        if part:
            pick_part(models.part_names(is_by_key=args.by == "key"), part)
    shares = {None: None, "sample": DEFAULT_SHARE, "exact": 1.0}
    options = CompareOptions(
        budget_bytes=n_bytes,
        n_threads=args.threads,
        is_by_key=args.by == "key",
        predict_share=shares[args.predict],
    )
    progress = TerminalProgress()
    try:
        return compare_models(models, options, progress)
    finally:
        progress.close()


def _print(comparison: Comparison, part: str, pair: tuple[int, ...]) -> None:
    from lib_merge.cli._compare_view import pair_table, summary

    for line in summary(comparison, part):
        print(line)
    if pair:
        print()
        for line in pair_table(comparison, *pair):
            print(line)


def _write(
    comparison: Comparison,
    part: str,
    pair: tuple[int, ...],
    args: argparse.Namespace,
) -> None:
    from lib_merge.analysis import charts, tables
    from lib_merge.analysis.drawing import save_drawing

    if args.json is not None:
        text = json.dumps(tables.to_json(comparison, args.by)) + "\n"
        tables.save_text(text, args.json)
        print(f"wrote {args.json}")
    if args.csv is not None:
        tables.save_text(tables.to_csv(comparison, args.by), args.csv)
        print(f"wrote {args.csv}")
    drawings: list[tuple[Path, Drawing]] = []
    if args.map is not None:
        drawings.append((args.map, _plane(comparison, part, args.method)))
    if args.svg is not None and args.svg.suffix:
        drawings.append((args.svg, charts.heat_map(comparison, part)))
    elif args.svg is not None:
        drawings += _all_charts(comparison, part, pair, args)
    for path, drawing in drawings:
        save_drawing(drawing, path)
        print(f"wrote {path}")


def _plane(comparison: Comparison, part: str, method: str) -> Drawing:
    from lib_merge.analysis.charts import model_plane
    from lib_merge.analysis.groups import group_models
    from lib_merge.analysis.map import map_models

    sums = comparison.part(part)
    outliers = [outlier.model for outlier in group_models(sums).outliers]
    return model_plane(comparison, map_models(sums, method, outliers), part)


def _all_charts(
    comparison: Comparison,
    part: str,
    pair: tuple[int, ...],
    args: argparse.Namespace,
) -> list[tuple[Path, Drawing]]:
    from lib_merge.analysis import charts
    from lib_merge.analysis.histogram import difference_histogram

    folder = args.svg
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise OutputError(
            f"The folder {folder} cannot be made ({fault.strerror}); choose another."
        ) from fault
    found = {
        "distances": charts.heat_map(comparison, part),
        "map": _plane(comparison, part, args.method),
        "base": charts.base_bars(comparison, part),
    }
    if pair:
        found["blocks"] = charts.block_strip(comparison, *pair)
    if args.block:
        one, two = (Path(comparison.paths[i]) for i in pair)
        histogram = difference_histogram(one, two, args.block)
        found["histogram"] = charts.histogram_bars(histogram)
    return [(folder / f"{name}{_CHART}", drawing) for name, drawing in found.items()]
