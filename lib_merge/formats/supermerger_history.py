"""supermerger's mergehistory.csv: a merge a row, models by the start of their hash.

The file's head has 16 columns; newer rows go on behind it, and where the head says
"plus lora" they hold the merge's own name.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from lib_merge.core.dtypes import DType
from lib_merge.errors import RecipeError
from lib_merge.formats import supermerger
from lib_merge.formats.graph import Graph
from lib_merge.formats.imported import Entry, Imported, Options
from lib_merge.formats.orders import WHOLE
from lib_merge.formats.source import Source
from lib_merge.formats.webui import Step
from lib_merge.formats.webui_models import Models

ID = "supermerger_history"
TITLE = "supermerger history"

_HEAD = ("ID", "time", "name", "weights alpha", "weights beta", "model A")
_N_HEAD = 16
_LEAST = 12
_MAX_ROWS = 20_000
_GAMMA = "0.3"
"""What supermerger takes where a row has no value."""


def sniff(source: Source) -> bool:
    """Whether the first line is the history's head."""
    first = source.text[:400].lstrip().partition("\n")[0]
    return first.replace('"', "").startswith(",".join(_HEAD))


def read(source: Source, options: Options) -> Imported:
    """Every merge that can be repeated.

    Raises:
        RecipeError: None of them can.
    """
    try:
        rows = [row for row in csv.reader(io.StringIO(source.text)) if row][1:]
    except csv.Error as fault:
        raise RecipeError([f"{source.name} is no table ({fault})."]) from fault
    if len(rows) > _MAX_ROWS:
        raise RecipeError([f"{source.name} has {len(rows)} rows, too many."])
    entries: list[Entry] = []
    problems: list[str] = []
    notes: list[str] = []
    for number, row in enumerate(rows, 1):
        try:
            entries.append(_entry(row, number, options, notes))
        except RecipeError as fault:
            problems.append(f"Row {number} is left out: {fault}")
    if not entries:
        raise RecipeError(problems or [f"{source.name} holds no merge."])
    unknown = (
        "Models are known by the start of their hash; --models DIR finds them.",
        *problems,
    )
    return Imported(ID, TITLE, tuple(entries), tuple(dict.fromkeys(notes)), unknown)


def _entry(row: list[str], number: int, options: Options, notes: list[str]) -> Entry:
    if len(row) < _LEAST:
        raise RecipeError([f"it has {len(row)} columns, too few."])
    data = _data(row)
    models = Models({}, Graph(WHOLE))
    step = Step(data, f"row {number}")
    for what, key in supermerger.inputs_of(data).items():
        name = str(key or "").strip()
        if not name:
            raise RecipeError([f"{what} is not named."])
        step.nodes[what] = models.graph.model(name)
    index = supermerger.build(step, models, options)
    notes += models.notes
    return Entry(
        f"{row[0] or number}",
        models.graph.recipe(index, save_dtype=DType.F16),
        facts=(("time", row[1]), ("name", row[2][:200])),
    )


def _data(row: list[str]) -> dict[str, Any]:
    """A row in the words of supermerger's metadata."""
    newer = dict(enumerate(row)) if len(row) > _N_HEAD else {}
    data: dict[str, Any] = {
        "weights_alpha": row[3],
        "weights_beta": row[4],
        "model_a": row[5],
        "model_b": row[6],
        "model_c": row[7],
        "base_alpha": row[8],
        "base_beta": row[9],
        "mode": row[10],
        "mbw": row[11],
        "elemental_merge": newer.get(15, "").replace("[]", ""),
        "calcmode": newer.get(16, ""),
        "gamma": newer.get(19) or _GAMMA,
    }
    kind = newer.get(20, "Off")
    if kind in ("Include", "Exclude"):
        data[kind] = [*_words(newer.get(21, "")), *_words(newer.get(22, ""))]
    return data


def _words(text: str) -> list[str]:
    bare = text.replace("[", "").replace("]", "").replace("'", "")
    return [word.strip() for word in bare.split(",") if word.strip()]
