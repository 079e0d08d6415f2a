"""`study import`: AutoMBW's own runs as finished studies."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.errors import InputError, MergeError

if TYPE_CHECKING:
    from lib_merge.formats.autombw_csv import OldRun

Adder = Callable[[argparse.ArgumentParser], None]


def add_import(actions: Any, add_out: Adder) -> None:
    """Declare the verb."""
    found = actions.add_parser(
        "import", help="keep AutoMBW's runs (CSV, recipe.txt) as finished studies"
    )
    found.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="CSV tables, and recipe.txt files that do not lie beside theirs",
    )
    found.add_argument("--name", help="the study's name (default: the table's)")
    found.add_argument(
        "--arch", help="sd1, sd2 or sdxl (default: that of the models, else sd1)"
    )
    found.add_argument(
        "--models",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="where the models lie, so that trials can be merged",
    )
    found.add_argument("--scorer", default="unknown", help="what judged the pictures")
    found.add_argument("--tally", default="arithmetic", help="mean over a trial")
    add_out(found)
    found.set_defaults(action=_import)


def _import(args: argparse.Namespace) -> int:
    from lib_merge.formats.autombw_csv import read_run
    from lib_merge.ui.study_import import recipe_of

    tables = [path for path in args.files if path.suffix.lower() == ".csv"]
    texts = [path for path in args.files if path not in tables]
    if not tables:
        raise InputError("No table is named; give AutoMBW's CSV of a run.")
    if args.name and len(tables) > 1:
        raise InputError("--name names one study, but there are several tables.")
    if len(texts) > 1 and len(tables) == 1:
        raise InputError("There are several recipe.txt files for one table; give one.")
    runs = []
    for table in tables:
        beside = texts[0] if texts and len(tables) == 1 else recipe_of(table, texts)
        runs.append((table, read_run(table, beside)))
    for table, run in runs:
        _keep(args, table, run)
    return 0


def _keep(args: argparse.Namespace, table: Path, run: OldRun) -> None:
    from lib_merge.autombw.old_runs import OldRow, OldSource, import_run, resolved

    named = run.recipe.models if run.recipe is not None else ()
    paths = [p for folder in args.models for p in sorted(folder.glob("*.*"))]
    models = (*resolved(named, paths), *("A", "B")[len(named) :])
    arch, how = _arch(args.arch, models)
    source = OldSource(
        origin=table.name,
        models=(models[0], models[1]),
        arch_id=arch,
        scorer=args.scorer,
        tally=args.tally,
        seconds=run.seconds,
    )
    rows = [OldRow(trial.weights, trial.score) for trial in run.trials]
    name = args.name or run.name
    study = import_run(args.out.absolute(), name, rows, source)
    best = run.trials[run.best]
    print(
        f"{name}: {len(rows)} trials, best {best.score:.4f} (trial {run.best}), "
        f"{arch}{how}"
    )
    for note in run.notes:
        print(f"  note: {note}")
    missing = [model for model in models if not Path(model).is_file()]
    if missing:
        print(
            f"  note: {', '.join(missing)} not found; give --models DIR where they "
            "lie, to merge its trials."
        )
    print(f"  {study.folder}")


def _arch(given: str | None, models: Sequence[str]) -> tuple[str, str]:
    """The architecture's id, and how it is known."""
    from lib_merge.arch import detect_architecture
    from lib_merge.checkpoint.header import read_header

    if given is not None:
        return given, ""
    for model in models:
        if Path(model).is_file():
            try:
                header = read_header(Path(model))
                return detect_architecture(header.infos, where=model).id, ""
            except MergeError:
                continue
    return "sd1", " by default (give --arch if they are others)"
