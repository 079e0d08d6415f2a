"""AutoMBW's own files: a run's CSV, its recipe.txt, and history.tsv, by named block."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

from lib_merge.core.block_orders import CSV_ORDER, RECIPE_TXT_ORDER, by_block
from lib_merge.errors import InputError

MAX_BYTES = 64 << 20
"""Far more than any such file has (a trial is a third of a kilobyte)."""

N_WEIGHTS = len(CSV_ORDER)

_NAME = re.compile(r"^(?P<name>.+)-\d+-\d{4}-\d\d-\d\d-\d\d-\d\d[AP]M-\d\d$")
_FIELD = re.compile(r"^(?P<key>modelA|modelB|modelO|position_id_fix|output_mode)=(.*)$")


@dataclass(frozen=True)
class OldTrial:
    """One row of a run's CSV.

    Attributes:
        weights: Values by block id, 0 is A and 1 is B.
        score: Its tally.
    """

    weights: Mapping[str, float]
    score: float


@dataclass(frozen=True)
class OldRecipe:
    """A recipe.txt.

    Attributes:
        models: File names of A and B, without their folders.
        output: The merged model's name, or "".
        weights: Values by block id.
        fields: What else it says, by name.
    """

    models: tuple[str, ...]
    output: str
    weights: Mapping[str, float]
    fields: Mapping[str, str]


@dataclass(frozen=True)
class OldRun:
    """A run as AutoMBW left it.

    Attributes:
        name: The merged model's name, from the CSV's file name.
        trials: In order.
        seconds: Time of the whole run, or None when the file does not tell.
        eval_seconds: Of rendering and scoring alone, or None.
        recipe: Its recipe.txt, or None.
        notes: What does not fit together, in sentences.
    """

    name: str
    trials: tuple[OldTrial, ...]
    seconds: float | None = None
    eval_seconds: float | None = None
    recipe: OldRecipe | None = None
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> int:
        """The row with the highest score; of equal ones the first."""
        scores = [trial.score for trial in self.trials]
        return scores.index(max(scores))


@dataclass(frozen=True)
class OldHistoryRow:
    """One line of history.tsv.

    Attributes:
        models: Names of A and B.
        output: The merged model's name.
        weights: Values by block id.
        fields: Every column as it stands, by its heading.
    """

    models: tuple[str, str]
    output: str
    weights: Mapping[str, float]
    fields: Mapping[str, str]


def read_run(path: Path, recipe: Path | None = None) -> OldRun:
    """A run's CSV, and its recipe.txt when there is one.

    Args:
        path: The CSV.
        recipe: The recipe.txt; None takes the one of the same name beside the CSV, if
            it is there.

    Raises:
        InputError: A file cannot be read, or is none of AutoMBW's; says which line.
    """
    run = read_csv(path)
    found = recipe or path.with_name(f"{run.name}.recipe.txt")
    if recipe is None and not found.is_file():
        return run
    text = read_recipe_txt(found)
    notes = list(run.notes)
    best = run.trials[run.best].weights
    differing = [b for b in best if abs(best[b] - text.weights[b]) > 1e-9]
    if differing:
        notes.append(
            f"{found.name} is not the best row of {path.name}: {', '.join(differing)} "
            "differ. Both were read as they are."
        )
    if text.output and text.output != run.name:
        notes.append(
            f"{found.name} calls the merge '{text.output}', the table's name says "
            f"'{run.name}'; the latter is used."
        )
    return replace(run, recipe=text, notes=tuple(notes))


def read_csv(path: Path) -> OldRun:
    """A run's trial table: columns 0 to 26, score, eval_times, iter_times.

    Raises:
        InputError: It cannot be read, or is no such table; says which line.
    """
    return parse_csv(_text(path), str(path))


def parse_csv(text: str, where: str) -> OldRun:
    """As `read_csv`, of a text.

    Args:
        text: The table.
        where: Its file, for messages; the run's name is in the file's.

    Raises:
        InputError: It is no such table; says which line.
    """
    # Written on Windows, its lines end in two carriage returns: blank ones are none.
    rows = [row for row in _rows(text, ",", where) if row]
    wanted = [*(str(i) for i in range(N_WEIGHTS)), "score"]
    head = [cell.strip() for cell in rows[0]] if rows else []
    lacking = [name for name in wanted if name not in head]
    if lacking:
        raise InputError(
            f"{where} is no trial table of AutoMBW: it lacks the column"
            f"{'s' if len(lacking) > 1 else ''} {', '.join(lacking[:6])}. Its tables "
            f"have the columns 0 to {N_WEIGHTS - 1} and score; a run with grouped "
            "blocks has fewer and cannot be told apart by block."
        )
    if len(rows) < 2:
        raise InputError(f"{where} holds no trial; choose another table.")
    places = {name: head.index(name) for name in head}
    trials = []
    for number, row in enumerate(rows[1:], 1):
        at = f"{where}, trial {number}"
        values = [_number(row, places[name], name, at) for name in wanted]
        trials.append(OldTrial(by_block(values[:-1], CSV_ORDER), values[-1]))
    # Each row holds the times of the whole run.
    times = {
        name: _number(rows[-1], places[name], name, where)
        for name in ("eval_times", "iter_times")
        if name in places
    }
    stem = Path(where).stem
    named = _NAME.match(stem)
    return OldRun(
        name=named["name"] if named else stem,
        trials=tuple(trials),
        seconds=times.get("iter_times"),
        eval_seconds=times.get("eval_times"),
    )


def read_recipe_txt(path: Path) -> OldRecipe:
    """A recipe.txt: names, then one line of 27 weights; text after it is passed over.

    Raises:
        InputError: It cannot be read, or has no line of 27 weights.
    """
    return parse_recipe_txt(_text(path), str(path))


def parse_recipe_txt(text: str, where: str) -> OldRecipe:
    """As `read_recipe_txt`, of a text.

    Args:
        text: The recipe.
        where: Its file, for messages.

    Raises:
        InputError: It has no line of 27 weights.
    """
    fields: dict[str, str] = {}
    weights: tuple[float, ...] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        found = _FIELD.match(line.strip())
        if found:
            fields.setdefault(found["key"], found[2].strip())
        elif weights is None:
            weights = _weights(line, f"{where}, line {number}")
    if weights is None:
        raise InputError(
            f"{where} is no recipe.txt of AutoMBW: it has no line of {N_WEIGHTS} "
            "numbers with commas between."
        )
    models = [fields.pop(key) for key in ("modelA", "modelB") if key in fields]
    return OldRecipe(
        models=tuple(PureWindowsPath(model).name for model in models),
        output=fields.pop("modelO", ""),
        weights=by_block(weights, RECIPE_TXT_ORDER),
        fields=fields,
    )


def read_history(path: Path) -> tuple[OldHistoryRow, ...]:
    """history.tsv: a line a run; its weights stand in the order of the CSV.

    Raises:
        InputError: It cannot be read, or is no such table; says which line.
    """
    return parse_history(_text(path), str(path))


def parse_history(text: str, where: str) -> tuple[OldHistoryRow, ...]:
    """As `read_history`, of a text.

    Args:
        text: The table.
        where: Its file, for messages.

    Raises:
        InputError: It is no such table; says which line.
    """
    rows = _rows(text, "\t", where)
    lines = [row for row in rows if any(cell.strip() for cell in row)]
    head = [cell.strip() for cell in lines[0]] if lines else []
    wanted = ("model_A", "model_B", "model_O", "weights")
    lacking = [name for name in wanted if name not in head]
    if lacking:
        raise InputError(
            f"{where} is no history.tsv of AutoMBW: it lacks the columns "
            f"{', '.join(lacking)}."
        )
    found = []
    for number, line in enumerate(lines[1:], 2):
        fields = dict(zip(head, line, strict=False))
        weights = _weights(fields.get("weights", ""), f"{where}, line {number}")
        if weights is None or not all(fields.get(name) for name in wanted[:2]):
            raise InputError(
                f"{where}, line {number}: model_A and model_B must be named, and the "
                f"column weights must hold {N_WEIGHTS} numbers with commas between."
            )
        models = (fields["model_A"], fields["model_B"])
        named = by_block(weights, CSV_ORDER)
        found.append(OldHistoryRow(models, fields.get("model_O", ""), named, fields))
    return tuple(found)


def _rows(text: str, delimiter: str, where: str) -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error as fault:
        raise InputError(f"{where} is no table ({fault}).") from fault


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} is larger than any file of AutoMBW's.")
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as fault:
        raise InputError(f"{path} cannot be read: {fault.strerror}.") from fault


def _number(row: Sequence[str], place: int, name: str, where: str) -> float:
    text = row[place] if place < len(row) else ""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: column {name} holds '{text}', which is no number.")
    return value


def _weights(line: str, where: str) -> tuple[float, ...] | None:
    """27 numbers, or None when the line is something else."""
    parts = line.strip().split(",")
    if len(parts) < 2:
        return None
    try:
        values = tuple(float(part) for part in parts)
    except ValueError:
        return None
    if len(values) != N_WEIGHTS or not all(math.isfinite(v) for v in values):
        raise InputError(
            f"{where}: {len(values)} numbers, but AutoMBW's {N_WEIGHTS} finite ones "
            "are wanted."
        )
    return values
