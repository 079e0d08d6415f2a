"""Comparisons as CSV and JSON files, and back from JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lib_merge.analysis.comparison import Comparison, LeftOut, Prediction
from lib_merge.analysis.matrices import is_published, read_published
from lib_merge.analysis.pairs import PairSums
from lib_merge.errors import InputError, OutputError

FORMAT, VERSION = "mergelab-comparison", 1

LEVELS = ("component", "block", "key")
"""From coarse to fine; a table of one level has the coarser ones, too."""

_COLUMNS = (
    "level",
    "part",
    "model_a",
    "model_b",
    "n_values",
    "l2",
    "relative_l2",
    "cosine",
    "change_cosine",
    "sign_agreement",
)


def shown_levels(level: str) -> tuple[str, ...]:
    """A level and the coarser ones."""
    return LEVELS[: LEVELS.index(level) + 1]


def to_csv(comparison: Comparison, level: str = "component") -> str:
    """One line for every pair of models and part; unknown numbers are left empty.

    Args:
        comparison: What was found.
        level: The finest: component, block or key.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for name in shown_levels(level):
        for part, sums in comparison.parts(name):
            writer.writerows(_pair_rows(comparison, name, part, sums))
    return text.getvalue()


def _pair_rows(
    comparison: Comparison, level: str, part: str, sums: PairSums
) -> Iterator[list[str]]:
    measures = _measures(sums)
    names = comparison.names
    for i, one in enumerate(names):
        for j in range(i + 1, len(names)):
            numbers = [_number(matrix, i, j) for matrix in measures.values()]
            yield [level, part, one, names[j], str(sums.n_values), *numbers]


def _measures(sums: PairSums) -> dict[str, Any]:
    """Matrices by name; None for what cannot be told."""
    return {
        "l2": sums.l2(),
        "relative_l2": sums.relative_l2(),
        "cosine": sums.cosine(),
        "change_cosine": sums.change_cosine(),
        "sign_agreement": sums.sign_agreement() if sums.has_signs else None,
    }


def _number(matrix: Any, i: int, j: int) -> str:
    if matrix is None or math.isnan(matrix[i, j]):
        return ""
    return repr(float(matrix[i, j]))


def to_json(comparison: Comparison, level: str = "component") -> dict[str, Any]:
    """Everything as plain JSON values; NaN as null.

    Args:
        comparison: What was found.
        level: The finest: component, block or key.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "architecture": comparison.architecture,
        "models": list(comparison.names),
        "paths": list(comparison.paths),
        "base": comparison.base,
        "n_apart": comparison.n_apart,
        "parts": [
            {"level": name, "part": part, **_sums_to_json(sums)}
            for name in shown_levels(level)
            for part, sums in comparison.parts(name)
        ],
        "predictions": [asdict(p) for p in comparison.predictions],
        "left_out": [asdict(entry) for entry in comparison.left_out],
    }


def _sums_to_json(sums: PairSums) -> dict[str, Any]:
    """The sums that everything follows from, and what follows."""
    found: dict[str, Any] = {"n_values": sums.n_values}
    arrays = {"squared_norms": sums.norms, "squares": sums.squares}
    arrays |= {"same": sums.same, "both": sums.both}
    for name, array in (arrays | _measures(sums)).items():
        found[name] = None if array is None else _plain(array)
    return found


def _plain(array: Any) -> Any:
    """Lists of numbers, None for NaN."""
    if array.ndim > 1:
        return [_plain(row) for row in array]
    return [None if value != value else value for value in array.tolist()]


def from_json(data: Any, where: str) -> Comparison:
    """A comparison from what `to_json` gave.

    Args:
        data: Parsed JSON.
        where: Its file, for messages.

    Raises:
        InputError: It is no comparison, or a damaged one.
    """
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise InputError(
            f"{where} is no comparison of MergeLab; make one with --json, or give a "
            "published matrix."
        )
    if data.get("version") != VERSION:
        raise InputError(
            f"{where} has version {data.get('version')}, this MergeLab reads version "
            f"{VERSION}; update MergeLab."
        )
    try:
        return _comparison(data)
    except (KeyError, TypeError, ValueError) as fault:
        raise InputError(
            f"{where} is a damaged comparison ({type(fault).__name__}: {fault}); "
            "compare the models again."
        ) from fault


def _comparison(data: Mapping[str, Any]) -> Comparison:
    n_models, base = len(data["models"]), int(data["base"])
    levels: dict[str, dict[str, PairSums]] = {level: {} for level in LEVELS}
    for entry in data["parts"]:
        levels[entry["level"]][entry["part"]] = _sums(entry, n_models, base)
    return Comparison(
        names=tuple(data["models"]),
        base=base,
        components=levels["component"],
        blocks=levels["block"],
        keys=levels["key"],
        paths=tuple(data["paths"]),
        n_apart=int(data["n_apart"]),
        architecture=str(data["architecture"]),
        left_out=tuple(LeftOut(**entry) for entry in data["left_out"]),
        predictions=tuple(
            Prediction(
                **(
                    entry
                    | {
                        "distances": tuple(entry["distances"]),
                        "errors": tuple(entry["errors"]),
                    }
                )
            )
            for entry in data["predictions"]
        ),
    )


def _sums(entry: Mapping[str, Any], n_models: int, base: int) -> PairSums:
    has_signs = entry["same"] is not None
    square = (n_models, n_models)

    def counts(name: str) -> Any:
        if not has_signs:
            return None
        return np.array(entry[name], dtype=np.int64).reshape(square)

    norms = np.array(entry["squared_norms"], dtype=np.float64)
    return PairSums(
        n_values=int(entry["n_values"]),
        base=base,
        norms=norms.reshape(n_models),
        squares=np.array(entry["squares"], dtype=np.float64).reshape(square),
        same=counts("same"),
        both=counts("both"),
    )


def save_text(text: str, path: Path) -> None:
    """Write a text file.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as fault:
        raise OutputError(
            f"{path} cannot be written ({fault.strerror}); choose another place."
        ) from fault


def load_comparison(path: Path) -> Comparison:
    """A comparison from a file: our own JSON, or a published matrix.

    Raises:
        InputError: It cannot be read or is neither.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as fault:
        raise InputError(
            f"{path} cannot be read ({fault.strerror}); check the path."
        ) from fault
    except (ValueError, RecursionError) as fault:
        raise InputError(
            f"{path} is no JSON ({fault}); choose another file."
        ) from fault
    if is_published(data):
        return read_published(data, str(path))
    return from_json(data, str(path))
