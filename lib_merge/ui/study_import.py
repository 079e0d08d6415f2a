"""Uploaded AutoMBW runs as finished studies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lib_merge.autombw.old_runs import OldRow, OldSource, import_run, resolved
from lib_merge.core.ports import Host
from lib_merge.errors import InputError, MergeError
from lib_merge.formats.autombw_csv import OldRun, read_run
from lib_merge.ui import markup
from lib_merge.ui.form import architecture_of
from lib_merge.ui.preferences import Preferences

FALLBACK = "sd1"
"""The architecture of a run whose models are not here."""


def import_files(host: Host, files: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Keep every table among some files as a study.

    Args:
        host: Where models and studies are.
        files: Tables (.csv), and recipe.txt files of the same run beside them.

    Yields:
        The study's name, and what was found, in a sentence.

    Raises:
        InputError: No table, or a file that is none of AutoMBW's.
        StudyError: A study of this name exists.
    """
    tables = [path for path in files if path.suffix.lower() == ".csv"]
    texts = [path for path in files if path not in tables]
    if not tables:
        raise InputError("No table is among the files; add AutoMBW's .csv of the run.")
    runs = [(table, read_run(table, recipe_of(table, texts))) for table in tables]
    for table, run in runs:
        yield run.name, _keep(host, table, run)


def recipe_of(table: Path, texts: Sequence[Path]) -> Path | None:
    """The recipe.txt whose name a table's begins with."""
    stems = {path: path.name.removesuffix(".recipe.txt") for path in texts}
    fitting = [path for path in texts if table.name.startswith(f"{stems[path]}-")]
    return max(fitting, key=lambda path: len(stems[path]), default=None)


def _keep(host: Host, table: Path, run: OldRun) -> str:
    named = run.recipe.models if run.recipe is not None else ()
    paths = [entry.path for entry in host.catalog.checkpoints()]
    models = (*resolved(named, paths), *("A", "B")[len(named) :])
    there = [Path(model) for model in models if Path(model).is_file()]
    try:
        arch = architecture_of(there[0]).id if there else FALLBACK
    except MergeError:
        arch = FALLBACK
    rows = [OldRow(trial.weights, trial.score) for trial in run.trials]
    source = OldSource(table.name, (models[0], models[1]), arch, seconds=run.seconds)
    import_run(Preferences(host).studies_dir(), run.name, rows, source)
    best = run.trials[run.best].score
    words = [
        f"{run.name}: {markup.count(len(rows), 'trial')}, best {best:.4f} (trial "
        f"{run.best}).",
        *run.notes,
    ]
    missing = [Path(model).name for model in models if not Path(model).is_file()]
    if missing:
        words.append(
            f"{' and '.join(missing)} are not among the models, so it was taken for "
            f"{arch}, and its trials cannot be merged."
        )
    return " ".join(words)
