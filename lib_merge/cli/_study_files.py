"""`study`'s verbs about what is there: export, import, report, compare, clone ..."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.cli._study_import import add_import
from lib_merge.cli._study_rescore import add_rescore
from lib_merge.errors import InputError

if TYPE_CHECKING:
    from lib_merge.autombw.intervals import Interval
    from lib_merge.autombw.study import Study

Adder = Callable[[argparse.ArgumentParser], None]


def add_file_actions(actions: Any, add_out: Adder) -> None:
    """Declare the verbs.

    Args:
        actions: The subparsers of `study`.
        add_out: Adds the option that says where studies are kept.
    """
    _add_export(actions, add_out)
    add_import(actions, add_out)
    report = actions.add_parser("report", help="write the report with all pictures")
    report.add_argument("name", help="the study's name or folder")
    report.add_argument("output", nargs="?", type=Path, metavar="R.html")
    add_out(report)
    report.set_defaults(action=_report)
    compare = actions.add_parser("compare", help="hold two studies against each other")
    compare.add_argument("first", help="a study's name or folder")
    compare.add_argument("second", help="another's")
    add_out(compare)
    compare.set_defaults(action=_compare)
    _add_clone(actions, add_out)
    add_rescore(actions, add_out)
    delete = actions.add_parser("delete", help="delete a study with its pictures")
    delete.add_argument("name", help="the study's name or folder")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    add_out(delete)
    delete.set_defaults(action=_delete)
    board = actions.add_parser("dashboard", help="open Optuna's dashboard on a study")
    board.add_argument("name", help="the study's name or folder")
    board.add_argument("--port", type=int, help="where to listen (default: a free one)")
    add_out(board)
    board.set_defaults(action=_dashboard)


def _add_export(actions: Any, add_out: Adder) -> None:
    export = actions.add_parser("export", help="write what a study found to files")
    export.add_argument("name", help="the study's name or folder")
    export.add_argument(
        "--trial", type=int, metavar="N", help="this trial instead of the best"
    )
    export.add_argument("--recipe", type=Path, metavar="R.json", help="it as a recipe")
    export.add_argument(
        "--save", type=Path, metavar="O.safetensors", help="its merge as a checkpoint"
    )
    export.add_argument(
        "--txt", type=Path, metavar="R.txt", help="it as AutoMBW's recipe.txt"
    )
    export.add_argument(
        "--history", type=Path, metavar="H.tsv", help="add it to AutoMBW's history.tsv"
    )
    export.add_argument("--csv", type=Path, metavar="T.csv", help="every trial")
    export.add_argument(
        "--autombw-csv",
        type=Path,
        metavar="T.csv",
        help="whole trials in AutoMBW's 27 columns",
    )
    export.add_argument(
        "--report", type=Path, metavar="R.html", help="the report with pictures"
    )
    add_out(export)
    export.set_defaults(action=_export)


def _add_clone(actions: Any, add_out: Adder) -> None:
    clone = actions.add_parser(
        "clone", help="a new study with another's settings, or from one of its trials"
    )
    clone.add_argument("name", help="the study's name or folder")
    clone.add_argument("--name", dest="new_name", required=True, help="the new name")
    clone.add_argument(
        "--from-trial", type=int, metavar="N", help="score this trial's point first"
    )
    clone.add_argument(
        "--from-best", action="store_true", help="score the best point first"
    )
    add_out(clone)
    clone.set_defaults(action=_clone)


def _study(args: argparse.Namespace, name: str) -> Study:
    from lib_merge.autombw.study import find_study

    return find_study(args.out.absolute(), name)


def _export(args: argparse.Namespace) -> int:
    from lib_merge.autombw.exports import (
        autombw_csv,
        chosen_point,
        history_head,
        history_row,
        recipe_txt,
        trials_csv,
    )

    study = _study(args, args.name)
    texts: dict[Path, str] = {}
    if args.csv is not None:
        texts[args.csv] = trials_csv(study)
    if args.autombw_csv is not None:
        texts[args.autombw_csv] = autombw_csv(study)
    wanted = (args.recipe, args.txt, args.history, args.save)
    if any(path is not None for path in wanted):
        point = chosen_point(study, args.trial)
        recipe = study.settings.recipe(point)
        if args.recipe is not None:
            texts[args.recipe] = json.dumps(recipe.to_json(), indent=2) + "\n"
        if args.txt is not None:
            texts[args.txt] = recipe_txt(study.settings, point)
        if args.history is not None:
            before = _text_of(args.history) or history_head()
            texts[args.history] = before + history_row(study, point)
        if args.save is not None:
            _save(study, recipe, args.save)
    elif not texts and args.report is None:
        raise InputError(
            "Nothing to export; give --recipe, --save, --txt, --history, --csv, "
            "--autombw-csv or --report."
        )
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
        print(path)
    if args.report is not None:
        _write_report(study, args.report)
    return 0


def _text_of(path: Path) -> str:
    if not path.exists():
        return ""
    text = path.read_text(encoding="utf-8-sig")
    return text if text.endswith("\n") or not text else text + "\n"


def _save(study: Study, recipe: Any, output: Path) -> None:
    from lib_merge.engine.save import merge_to_file

    folders = [Path(model).parent for model in study.settings.models]
    saved = merge_to_file(recipe, output, folders=folders, overwrite=False)
    print(f"{saved.path}  sha256 {saved.sha256}")


def _write_report(study: Study, output: Path) -> None:
    from lib_merge.autombw.report import write_report

    shutil.copyfile(write_report(study.folder), output)
    print(output)


def _report(args: argparse.Namespace) -> int:
    from lib_merge.autombw.report import write_report

    study = _study(args, args.name)
    if args.output is None:
        print(write_report(study.folder))
    else:
        _write_report(study, args.output)
    return 0


def _compare(args: argparse.Namespace) -> int:
    from lib_merge.autombw.manage import compare_studies

    found = compare_studies(_study(args, args.first), _study(args, args.second))
    one, two = found.sides
    rows = [
        ("study", one.name, two.name),
        ("models", " + ".join(one.models), " + ".join(two.models)),
        ("whole trials", str(one.n_whole), str(two.n_whole)),
        ("pictures", str(one.n_images), str(two.n_images)),
        ("hours", f"{one.hours:.2f}", f"{two.hours:.2f}"),
        ("best", _number(one.best), _number(two.best)),
        ("unseen seeds", _number(one.held_out), _number(two.held_out)),
        *((f"* {name}", mine, theirs) for name, mine, theirs in found.settings),
    ]
    width = max(len(row[0]) for row in rows) + 2
    for name, mine, theirs in rows:
        print(f"{name:<{width}}{mine:<34}{theirs}")
    print()
    print(_words(found.winners, found.why_not))
    for axis, at, other in found.points:
        print(f"  {axis:<14}{at:>8.3f}{other:>8.3f}{other - at:>+9.3f}")
    return 0


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _words(winners: Interval | None, why_not: str) -> str:
    if winners is None:
        return f"The winners cannot be held against each other: {why_not}"
    bounds = ""
    if winners.low is not None and winners.high is not None:
        bounds = f" (95 %: {winners.low:+.4f} to {winners.high:+.4f})"
    clear = "" if winners.is_clear else ", which is no clear difference"
    return f"First winner minus second: {winners.estimate:+.4f}{bounds}{clear}."


def _clone(args: argparse.Namespace) -> int:
    from lib_merge.autombw.exports import chosen_point
    from lib_merge.autombw.manage import clone_study

    study = _study(args, args.name)
    start, label = None, ""
    if args.from_trial is not None or args.from_best:
        start = chosen_point(study, args.from_trial)
        what = "best" if args.from_trial is None else f"trial {args.from_trial}"
        label = f"{what} of {study.settings.name}"
    found = clone_study(
        args.out.absolute(), study, args.new_name, start=start, label=label
    )
    print(f"{found.folder}\nStart it with: python -m lib_merge study resume ", end="")
    print(args.new_name)
    return 0


def _delete(args: argparse.Namespace) -> int:
    from lib_merge.autombw.manage import delete_study

    study = _study(args, args.name)
    n_trials = len(study.records())
    if not args.yes:
        question = f"Delete {study.folder} with {n_trials} trials and all pictures?"
        try:
            answer = input(f"{question} [y/N] ")
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            print("Nothing was deleted.")
            return 1
    delete_study(study)
    print(f"Deleted {study.folder}.")
    return 0


def _dashboard(args: argparse.Namespace) -> int:
    from lib_merge.autombw.dashboard import Dashboard

    board = Dashboard(_study(args, args.name), args.port)
    print(f"{board.address}  (Ctrl-C ends it)", flush=True)
    try:
        board.wait()
    except KeyboardInterrupt:
        board.close()
    return 0
