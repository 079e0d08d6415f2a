"""Old runs: trials that another program measured, kept as a finished study.

Whoever reads the file (the layers above know the formats) hands over plain values by
block name. The study can be looked at, compared, exported and continued from, but not
resumed: what it rendered is not in those files.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_merge.arch import architectures
from lib_merge.autombw._files import write_json
from lib_merge.autombw.exports import write_best, write_table
from lib_merge.autombw.records import COMPLETE, RECORD, TrialRecord
from lib_merge.autombw.settings import StudySettings
from lib_merge.autombw.space import BlockRange
from lib_merge.autombw.study import Study, create_study
from lib_merge.core.blocks import BlockId
from lib_merge.errors import InputError

METHOD = "weighted_sum"
"""What AutoMBW merges by: between A (0) and B (1), block by block."""

UNKNOWN = "unknown"
"""The scorer of a run whose file does not tell."""


@dataclass(frozen=True)
class OldRow:
    """One measured trial.

    Attributes:
        values: By block id.
        score: Its tally.
    """

    values: Mapping[str, float]
    score: float


@dataclass(frozen=True)
class OldSource:
    """Where a run comes from.

    Attributes:
        origin: The file's name.
        models: A and B, as paths where they are known, else as the file names them.
        arch_id: Their architecture.
        scorer: What judged, or `UNKNOWN`.
        tally: How a trial's scores became one.
        seconds: Wall time of the whole run, or None.
    """

    origin: str
    models: tuple[str, str]
    arch_id: str
    scorer: str = UNKNOWN
    tally: str = "arithmetic"
    seconds: float | None = None


def import_run(
    data_dir: Path, name: str, rows: Sequence[OldRow], source: OldSource
) -> Study:
    """Keep measured trials as a finished study.

    Args:
        data_dir: Under its studies folder.
        name: The study's name.
        rows: The trials, in order; all name the same blocks.
        source: Where they come from.

    Raises:
        InputError: No rows, unequal blocks, or numbers that are none.
        StudyError: A study of this name exists.
        UnknownIdError: No such architecture or tally.
        DiskFullError: No room; nothing is left behind.
    """
    blocks = _blocks(rows, source)
    settings = _settings(name, rows, blocks, source)
    study = create_study(data_dir, settings)
    try:
        each = (source.seconds or 0.0) / len(rows)
        for number, row in enumerate(rows):
            record = TrialRecord(
                number=number,
                slot=number,
                attempt=0,
                label="",
                point={block: float(row.values[block]) for block in blocks},
                state=COMPLETE,
                score=float(row.score),
                seconds=each,
                finished=time.time(),
            )
            folder = study.trial_dir(number)
            folder.mkdir(parents=True)
            # Not durable one by one: the run's own file can be read again.
            write_json(folder / RECORD, record.to_json(), is_durable=False)
        best = study.best()
        if best is not None:
            write_best(study, best.point)
        write_table(study)
    except BaseException:
        shutil.rmtree(study.folder, ignore_errors=True)
        raise
    return study


def _blocks(rows: Sequence[OldRow], source: OldSource) -> list[str]:
    """The rows' blocks that the architecture has, in its order.

    AutoMBW keeps 27 values for every architecture; those of blocks that SDXL lacks
    changed nothing and are dropped.
    """
    if not rows:
        raise InputError(f"{source.origin} holds no trial.")
    named = set(rows[0].values)
    for number, row in enumerate(rows, 1):
        values = [*row.values.values(), row.score]
        if set(row.values) != named or not all(map(math.isfinite, values)):
            raise InputError(
                f"{source.origin}, trial {number}: every trial must give each block "
                "one finite number, and a finite score."
            )
    arch = architectures().get(source.arch_id)
    known = [str(block.id) for block in arch.weighted_blocks()]
    found = [block for block in known if block in named]
    if not found:
        raise InputError(
            f"{source.origin} names no block of {arch.label}; choose another "
            "architecture."
        )
    return found


def _settings(
    name: str, rows: Sequence[OldRow], blocks: Sequence[str], source: OldSource
) -> StudySettings:
    """Settings that say no more than the file does."""
    ranges = []
    for block in blocks:
        column = [row.values[block] for row in rows]
        low, high = min(0.0, *column), max(1.0, *column)
        ranges.append(BlockRange(BlockId(block), low, high))
    return StudySettings(
        name=name,
        method=METHOD,
        models=source.models,
        payloads=(),
        arch_id=source.arch_id,
        ranges=tuple(ranges),
        scorer=source.scorer,
        tally=source.tally,
        sampler="random",
        n_trials=len(rows),
        origin=source.origin,
    )


def resolved(models: Sequence[str], paths: Sequence[Path]) -> tuple[str, ...]:
    """Model names as paths, where a file of the same name is known.

    Args:
        models: File names, with or without their ending.
        paths: Files that are there.
    """
    known = {path.stem.lower(): str(path) for path in reversed(paths)}
    endings = (".safetensors", ".ckpt")
    found = []
    for model in models:
        stem = model
        for ending in endings:
            stem = stem.removesuffix(ending)
        found.append(known.get(stem.lower(), model))
    return tuple(found)
