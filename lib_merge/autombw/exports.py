"""Exports: the best point as a recipe, as AutoMBW's recipe.txt, and all as a table."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from lib_merge.autombw._files import write_bytes, write_json
from lib_merge.autombw.space import Point
from lib_merge.autombw.study import Study, StudySettings

RECIPE_TXT_ORDER = (
    *(f"IN{i:02d}" for i in range(12)),
    "M00",
    *(f"OUT{i:02d}" for i in range(12)),
    "OUT",
    "TIME_EMBED",
)
"""The order of recipe.txt; AutoMBW's CSV has OUT after M00 instead."""


def recipe_txt(settings: StudySettings, point: Point) -> str:
    """A point in the form of AutoMBW's recipe.txt: names, then 27 weights.

    Blocks that the form has no place for (text encoders, label_emb) stand in lines of
    their own; blocks that the architecture lacks are 0.
    """
    names = [Path(model).name for model in settings.models]
    lines = [f"model{letter}={name}" for letter, name in zip("ABCDE", names)]  # noqa: B905
    lines.append(f"modelO={settings.name}")
    lines.append("position_id_fix=Keep Original")
    lines.append(f"output_mode={settings.save_dtype}")
    extra = [name for name in point if name not in RECIPE_TXT_ORDER]
    lines += [f"{name}={point[name]:.6g}" for name in extra]
    weights = (f"{point.get(name, 0.0):.6g}" for name in RECIPE_TXT_ORDER)
    return "\n".join([*lines, ",".join(weights)]) + "\n"


def trials_csv(study: Study) -> str:
    """Every attempt as one row: number, state, score, seconds, reason, block values."""
    blocks = [str(r.block) for r in study.settings.ranges]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["trial", "slot", "label", "state", "score", "seconds", "reason"]
    writer.writerow([*head, *blocks])
    for r in study.records():
        score = "" if r.score is None else repr(r.score)
        row = [r.number, r.slot, r.label, r.state, score, f"{r.seconds:.2f}", r.reason]
        writer.writerow([*row, *(r.point.get(block, "") for block in blocks)])
    return out.getvalue()


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
