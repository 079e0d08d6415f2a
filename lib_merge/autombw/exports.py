"""Exports: any trial as a recipe, in AutoMBW's own forms, and all as tables."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lib_merge.autombw._files import write_bytes, write_json
from lib_merge.autombw.leaderboard import ranked, whole
from lib_merge.autombw.records import TrialRecord
from lib_merge.autombw.space import Point
from lib_merge.autombw.study import Study, StudySettings
from lib_merge.core.block_orders import CSV_ORDER, RECIPE_TXT_ORDER, in_order
from lib_merge.errors import StudyError

__all__ = [
    "RECIPE_TXT_ORDER",
    "autombw_csv",
    "block_values",
    "chosen_point",
    "history_head",
    "history_row",
    "recipe_txt",
    "trials_csv",
    "write_best",
    "write_table",
]

_HISTORY = (
    "datetime",
    "current_pass",
    "model_A",
    "model_B",
    "model_O",
    "weights",
    "clamp_lower",
    "clamp_upper",
    "search_type_A",
    "search_type_B",
    "classifier",
    "tally_type",
    "init_grid",
    "init_vertices",
    "init_random",
    "warm_start",
)


def chosen_point(study: Study, number: int | None = None) -> Mapping[str, float]:
    """The point that a user means.

    Args:
        study: The study.
        number: A trial's number; None means the winner, or the best so far.

    Raises:
        StudyError: There is no such trial, or none is scored yet.
    """
    name = study.settings.name
    records = study.records()
    if number is not None:
        record = next((r for r in records if r.number == number), None)
        if record is None:
            known = f"0 to {records[-1].number}" if records else "none yet"
            raise StudyError(
                f"Study '{name}' has no finished trial {number}; it has: {known}."
            )
        return record.point
    result = study.result()
    if result is not None:
        return result.best.point
    best = next(iter(ranked(records)), None)
    if best is None:
        raise StudyError(
            f"Study '{name}' has no scored trial yet; wait for the first one."
        )
    return best.point


def block_values(settings: StudySettings, point: Point) -> dict[str, float]:
    """The searched parameter's value of every block, whatever is tied to what."""
    tied = {str(r.block): point[r.name] for r in settings.ranges if r.name in point}
    known = {name: value for name, value in point.items() if name in RECIPE_TXT_ORDER}
    return {**tied, **known}


def recipe_txt(settings: StudySettings, point: Point) -> str:
    """A point in the form of AutoMBW's recipe.txt: names, then 27 weights.

    What the form has no place for (text encoders, label_emb, another method, further
    parameters) stands in lines of its own; blocks that the architecture lacks are 0.
    """
    names = [Path(model).name for model in settings.models]
    lines = [f"model{letter}={name}" for letter, name in zip("ABCDE", names)]  # noqa: B905
    lines.append(f"modelO={settings.name}")
    lines.append("position_id_fix=Keep Original")
    lines.append(f"output_mode={settings.save_dtype}")
    if settings.method != "weighted_sum":
        lines.append(f"method={settings.method_of(point)}")
    values = block_values(settings, point)
    groups = {r.name for r in settings.ranges}
    further = {name: v for name, v in point.items() if name not in groups}
    extra = {n: v for n, v in (values | further).items() if n not in RECIPE_TXT_ORDER}
    lines += [f"{name}={value:.6g}" for name, value in extra.items()]
    weights = (f"{value:.6g}" for value in in_order(values, RECIPE_TXT_ORDER))
    return "\n".join([*lines, ",".join(weights)]) + "\n"


def autombw_csv(study: Study) -> str:
    """Whole trials in the form of AutoMBW's CSV: 27 columns, score, two times.

    As there, both time columns hold the run's totals in every row. Blocks that the
    form has no column for are left out, those that the architecture lacks are 0.
    """
    records = whole(study.records())
    total = repr(float(sum(record.seconds for record in study.records())))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [str(i) for i in range(len(CSV_ORDER))]
    writer.writerow([*names, "score", "eval_times", "iter_times"])
    for record in records:
        values = block_values(study.settings, record.point)
        row = [repr(value) for value in in_order(values, CSV_ORDER)]
        writer.writerow([*row, repr(record.score), total, total])
    return out.getvalue()


def history_head() -> str:
    """The headings of AutoMBW's history.tsv."""
    return "\t".join(_HISTORY) + "\n"


def history_row(study: Study, point: Point) -> str:
    """A study as one line of AutoMBW's history.tsv; its weights in the CSV's order."""
    settings = study.settings
    limits = {str(r.block): (r.low, r.high) for r in settings.ranges}
    lows = {block: low for block, (low, _) in limits.items()}
    highs = {block: high for block, (_, high) in limits.items()}
    times = [record.finished for record in study.records()]
    ended = time.localtime(max(times, default=0.0) or time.time())
    names = [Path(model).name for model in settings.models]
    judges = "+".join(judge.id for judge in settings.judges)
    cells = (
        time.strftime("%Y-%m-%d %H:%M:%S", ended),
        "0",
        *names[:2],
        settings.name,
        _joined(block_values(settings, point)),
        _joined(lows),
        _joined(highs),
        settings.sampler,
        settings.sampler,
        judges,
        settings.tally,
        "0",
        "0",
        "0",
        str(bool(settings.starts)),
    )
    return "\t".join(cell.replace("\t", " ") for cell in cells) + "\n"


def _joined(values: Mapping[str, float]) -> str:
    return ",".join(f"{value:.6g}" for value in in_order(values, CSV_ORDER))


def trials_csv(study: Study) -> str:
    """Every attempt as one row: number, state, score, seconds, reason, values."""
    axes = [axis.name for axis in study.settings.space.axes]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["trial", "slot", "label", "state", "score", "seconds", "reason"]
    writer.writerow([*head, *axes])
    for r in study.records():
        writer.writerow(_trial_row(r, axes))
    return out.getvalue()


def _trial_row(record: TrialRecord, axes: Sequence[str]) -> list[object]:
    score = "" if record.score is None else repr(record.score)
    values = [record.point.get(axis, "") for axis in axes]
    return [
        record.number,
        record.slot,
        record.label,
        record.state,
        score,
        f"{record.seconds:.2f}",
        record.reason,
        *values,
    ]


def write_best(study: Study, point: Point) -> None:
    """Store a point as best.recipe.json and recipe.txt in the study's folder.

    Raises:
        DiskFullError: No room; the files are as they were.
    """
    write_json(study.recipe_path, study.settings.recipe(point).to_json())
    text = recipe_txt(study.settings, point)
    write_bytes(study.folder / "recipe.txt", text.encode())


def write_table(study: Study) -> Path:
    """Store every attempt as trials.csv in the study's folder.

    Raises:
        DiskFullError: No room; the file is as it was.
    """
    path = study.folder / "trials.csv"
    write_bytes(path, trials_csv(study).encode())
    return path
