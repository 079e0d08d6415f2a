"""Leaderboard: what tables and charts show of a study's attempts, as plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lib_merge.autombw.fidelity import MIN_PAIRS
from lib_merge.autombw.importances import spearman, varied
from lib_merge.autombw.intervals import (
    ARITHMETIC,
    Interval,
    paired_interval,
    paired_scores,
    score_interval,
)
from lib_merge.autombw.records import INTERRUPTED, KILLED, PRUNED, TrialRecord
from lib_merge.autombw.space import BASELINES

N_TOP = 10
"""Trials that a leaderboard shows."""

ALONE = "only "
"""How the labels of a pool's single models begin."""

MAX_LINES = 200
"""Trials drawn as lines over the axes; of more, the best and the latest."""


def whole(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Attempts that can be the best, in the order of the search."""
    found = [r for r in records if r.is_complete and r.score is not None]
    return sorted(found, key=lambda r: (r.slot, r.number))


def ranked(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Attempts that can be the best, the best first; of equal ones the earlier."""
    return sorted(whole(records), key=lambda r: (-(r.score or 0.0), r.number))


@dataclass(frozen=True)
class CurvePoint:
    """One attempt on the learning curve.

    Attributes:
        number: The trial's number.
        label: Its label, or "".
        score: Its score; None where it failed.
        is_estimate: Whether the score is an estimate (pruned, or on a cheap rung).
        best: The best whole score so far, its interval over pictures; None before the
            first.
    """

    number: int
    label: str
    score: float | None
    is_estimate: bool
    best: Interval | None


def learning_curve(
    records: Sequence[TrialRecord], tally_id: str = ARITHMETIC
) -> tuple[CurvePoint, ...]:
    """One point a decided slot, in the order of the search.

    A slot's last attempt stands for it; what was interrupted or killed is left out, as
    the search leaves it out.
    """
    last: dict[int, TrialRecord] = {}
    for record in sorted(records, key=lambda r: r.number):
        if record.state not in (INTERRUPTED, KILLED):
            last[record.slot] = record
    best: Interval | None = None
    points = []
    for slot in sorted(last):
        record = last[slot]
        score = record.score
        if record.is_complete and score is not None:
            is_higher = best is None or score > best.estimate
            best = _interval(record, tally_id) if is_higher else best
        points.append(
            CurvePoint(
                number=record.number,
                label=record.label,
                score=record.score,
                is_estimate=is_estimate(record),
                best=best,
            )
        )
    return tuple(points)


def is_estimate(record: TrialRecord) -> bool:
    """Whether a record's score was not measured on all pictures."""
    return record.score is not None and (record.state == PRUNED or bool(record.rung))


def _interval(record: TrialRecord, tally_id: str) -> Interval:
    score = record.score or 0.0
    if not record.images:
        # An imported trial: only its score is known.
        return Interval(score)
    found = score_interval([image.score for image in record.images], tally_id)
    return Interval(score, found.low, found.high)


@dataclass(frozen=True)
class Leader:
    """One trial of the leaderboard.

    Attributes:
        rank: 1 is the best.
        record: The trial.
        score: Its score and interval over pictures.
        ahead: Against each baseline that was a whole trial, paired by picture.
    """

    rank: int
    record: TrialRecord
    score: Interval
    ahead: tuple[tuple[str, Interval], ...]


def leaders(
    records: Sequence[TrialRecord], tally_id: str = ARITHMETIC, n_top: int = N_TOP
) -> tuple[Leader, ...]:
    """The best trials; each point once."""
    found: list[Leader] = []
    parents = baselines(records)
    for record in ranked(records):
        if any(leader.record.point == record.point for leader in found):
            continue
        ahead = [
            (label, _paired(record, parent, tally_id))
            for label, parent in parents
            if parent is not record and parent.images and record.images
        ]
        score = _interval(record, tally_id)
        found.append(Leader(len(found) + 1, record, score, tuple(ahead)))
        if len(found) == n_top:
            break
    return tuple(found)


def _paired(mine: TrialRecord, theirs: TrialRecord, tally_id: str) -> Interval:
    one, other = paired_scores(mine.images, theirs.images)
    return paired_interval(one, other, tally_id) if one else Interval(math.nan)


def baselines(
    records: Sequence[TrialRecord],
) -> tuple[tuple[str, TrialRecord], ...]:
    """A, B and uniform, or a pool's models alone, as far as they were whole trials."""
    found: dict[str, TrialRecord] = {}
    for record in whole(records):
        if is_baseline(record.label):
            found.setdefault(record.label, record)
    return tuple(found.items())


def is_baseline(label: str) -> bool:
    """Whether a label is that of a parent, of the middle, or of a model alone."""
    return label.startswith(ALONE) or any(label == name for name, _ in BASELINES)


@dataclass(frozen=True)
class Lines:
    """Trials as lines over the axes of the search.

    Attributes:
        axes: Names, in the search's order.
        lows: Smallest value of each axis.
        highs: Largest value of each axis.
        numbers: Trial of each line, the worst first, so that the best is drawn last.
        scores: Score of each line.
        values: Values of each line, by axis.
    """

    axes: tuple[str, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    numbers: tuple[int, ...]
    scores: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]


def parallel_lines(
    records: Sequence[TrialRecord], n_most: int = MAX_LINES
) -> Lines | None:
    """The data of parallel coordinates; None while nothing varies."""
    done = ranked(records)
    columns = varied(done)
    if not columns:
        return None
    if len(done) > n_most:
        best = done[: n_most // 2]
        latest = sorted(done[n_most // 2 :], key=lambda r: -r.number)
        done = best + latest[: n_most - len(best)]
    done = sorted(done, key=lambda r: (r.score or 0.0, -r.number))
    return Lines(
        axes=tuple(columns),
        lows=tuple(min(column) for column in columns.values()),
        highs=tuple(max(column) for column in columns.values()),
        numbers=tuple(r.number for r in done),
        scores=tuple(r.score or 0.0 for r in done),
        values=tuple(tuple(r.point[axis] for axis in columns) for r in done),
    )


@dataclass(frozen=True)
class WeightMap:
    """Values of every axis over the trials, for a picture with a column a trial.

    Attributes:
        axes: Names, in the search's order.
        numbers: Trial of each column.
        rows: For each axis its values, one a column, scaled to 0 to 1 over the axis.
        low: The smallest value of all axes, which 0 stands for.
        high: The largest value, which 1 stands for.
    """

    axes: tuple[str, ...]
    numbers: tuple[int, ...]
    rows: tuple[tuple[float, ...], ...]
    low: float
    high: float


def weight_map(
    records: Sequence[TrialRecord], *, is_best_only: bool = False, n_most: int = 1000
) -> WeightMap | None:
    """Where the search looked, in order; None while nothing varies.

    Args:
        records: The study's attempts; those without a score are left out.
        is_best_only: Whether only trials that were the best so far are shown.
        n_most: Columns; of more trials every second, third ... is shown.
    """
    done = [r for r in records if r.score is not None]
    done = sorted(done, key=lambda r: (r.slot, r.number))
    if is_best_only:
        done = _record_setters(done)
    columns = varied(done)
    if not columns:
        return None
    step = -(-len(done) // n_most)
    low = min(min(column) for column in columns.values())
    high = max(max(column) for column in columns.values())
    span = high - low
    rows = tuple(
        tuple((value - low) / span for value in column[::step])
        for column in columns.values()
    )
    numbers = tuple(r.number for r in done[::step])
    return WeightMap(tuple(columns), numbers, rows, low, high)


def _record_setters(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    found: list[TrialRecord] = []
    for record in records:
        is_higher = not found or (record.score or 0.0) > (found[-1].score or 0.0)
        if record.is_complete and is_higher:
            found.append(record)
    return found


def pareto_front(records: Sequence[TrialRecord]) -> tuple[int, ...]:
    """Numbers of the whole trials that none beats in both score and diversity.

    Returns:
        In rising order of score; empty where diversity was not measured.
    """
    measured = [r for r in whole(records) if r.diversity is not None]
    done = sorted(measured, key=lambda r: (-(r.score or 0.0), -(r.diversity or 0.0)))
    front: list[TrialRecord] = []
    for record in done:
        # From the best score down: each must be more diverse than all before it.
        if not front or (record.diversity or 0.0) > (front[-1].diversity or 0.0):
            front.append(record)
    return tuple(r.number for r in reversed(front))


@dataclass(frozen=True)
class RungScores:
    """How a cheap rung ranks trials against whole pictures.

    Attributes:
        rung: Its name.
        pairs: (trial's number, score on the rung, whole score) of trials with both.
        correlation: Spearman's; None while too few trials have both.
        n_screened: Trials that ended at it.
    """

    rung: str
    pairs: tuple[tuple[int, float, float], ...]
    correlation: float | None
    n_screened: int


def rung_scores(records: Sequence[TrialRecord]) -> tuple[RungScores, ...]:
    """Every rung that trials were rendered on, in the order of their first use."""
    names = dict.fromkeys(name for record in records for name in record.rungs)
    done = whole(records)
    found = []
    for name in names:
        pairs = tuple(
            (r.number, r.rungs[name], r.score or 0.0) for r in done if name in r.rungs
        )
        is_told = len(pairs) >= MIN_PAIRS
        cheap, full = [p[1] for p in pairs], [p[2] for p in pairs]
        found.append(
            RungScores(
                rung=name,
                pairs=pairs,
                correlation=spearman(cheap, full) if is_told else None,
                n_screened=sum(r.rung == name for r in records),
            )
        )
    return tuple(found)
