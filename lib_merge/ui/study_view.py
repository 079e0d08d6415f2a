"""What a page shows of a study: state, picture, curve, best against parents, trials."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.autombw import snapshot as states
from lib_merge.autombw.leaderboard import (
    baselines,
    is_estimate,
    learning_curve,
    ranked,
)
from lib_merge.autombw.records import TrialRecord
from lib_merge.autombw.snapshot import Snapshot
from lib_merge.autombw.study import live_snapshot, worker_snapshots
from lib_merge.ui import charts, markup

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from lib_merge.autombw.intervals import Interval
    from lib_merge.autombw.leaderboard import CurvePoint
    from lib_merge.autombw.results import Difference, StudyResult
    from lib_merge.autombw.study import Study
    from lib_merge.ui.studies import StudyDesk

_log = logging.getLogger(__name__)

BUSY_STATES = (states.STARTING, states.RUNNING, states.HELD_OUT, states.SAVING)

THUMB_PX = 224
"""Longest side of the picture in the live view; it is sent with every refresh."""

_BASELINE_NAMES = {"A": "Parent A", "B": "Parent B", "uniform": "0.5 merge"}

N_BEST_ROWS = 12
N_LAST_ROWS = 12


def live(
    snapshot: Snapshot,
    failure: str,
    points: Sequence[CurvePoint] = (),
    n_helpers: int = 0,
) -> str:
    """The live view of a study.

    Args:
        snapshot: What it is doing now.
        failure: What ended it, or "".
        points: Its learning curve.
        n_helpers: Workers that joined it on this machine.
    """
    is_busy = snapshot.state in BUSY_STATES
    busy = ' data-merge-busy="1"' if is_busy or snapshot.state == states.PAUSED else ""
    noun = "finalist" if snapshot.state == states.HELD_OUT else "trial"
    facts = [f"{snapshot.trial} of {snapshot.n_trials} {noun}s done"]
    if is_busy and snapshot.n_images:
        facts.append(f"picture {snapshot.image} of {snapshot.n_images}")
    if snapshot.n_failed:
        facts.append(f"{snapshot.n_failed} failed")
    if n_helpers:
        facts.append(markup.count(n_helpers, "helper"))
    if snapshot.eta_s is not None and is_busy:
        facts.append(f"{markup.duration(snapshot.eta_s)} left")
    head = (
        f'<div class="merge-job-line"><b>{markup.text(snapshot.name)}</b>'
        f'<span class="merge-pill">{markup.text(snapshot.state)}</span>'
        f"<span>{markup.text(' · '.join(facts))}</span></div>"
    )
    message = failure or snapshot.message
    said = f'<div class="merge-state">{markup.text(message)}</div>' if message else ""
    if failure:
        said = markup.errors(failure.splitlines())
    curve = charts.score_curve(points, snapshot.n_trials, snapshot.baselines)
    return (
        f'<div class="merge-live"{busy}>{head}{_bar(snapshot)}{said}'
        f'<div class="merge-live-body">{_picture(snapshot)}'
        f'<div class="merge-live-curve">{curve}</div></div>'
        f"{_best(snapshot)}</div>"
    )


def current(desk: StudyDesk, name: str) -> str:
    """The live view of a study, whoever runs it.

    Raises:
        StudyError: There is none of this name.
    """
    study = desk.study(name)
    failure = ""
    if desk.is_current(name):
        snapshot, failure = desk.snapshot(), desk.failure()
    else:
        snapshot = from_disk(study)
    points = learning_curve(study.records(), study.settings.tally)
    n_helpers = len(worker_snapshots(study))
    return live(snapshot, failure, points, n_helpers)


def tables(study: Study) -> str:
    """The result, once there is one, and the trials."""
    result = study.result()
    final = result_table(result) if result else ""
    return final + trial_table(study.records())


def from_disk(study: Study) -> Snapshot:
    """The snapshot of a study that this process does not run.

    Another process may be running it; then this is what it last wrote.
    """
    summary = study.summary()
    said = live_snapshot(study)
    if summary.state == "running" and said is not None:
        return said
    records = study.records()
    best = study.best()
    done = sorted((r for r in records if r.is_complete), key=lambda r: r.slot)
    base = [(label, r.score) for label, r in baselines(records)]
    last = done[-1] if done else None
    return Snapshot(
        name=summary.name,
        state=states.RUNNING if summary.state == "running" else summary.state,
        trial=summary.n_complete,
        n_trials=summary.n_trials,
        scores=tuple(record.score for record in done),
        best_score=best.score if best else None,
        best_trial=best.number if best else None,
        best_label=best.label if best else "",
        baselines=tuple((label, score) for label, score in base if score is not None),
        last_image=_last_file(study, last),
        last_score=last.images[-1].score if last and last.images else None,
        n_failed=sum(record.state == "failed" for record in records),
        message=f"Kept in {study.folder}.",
    )


def _last_file(study: Study, record: TrialRecord | None) -> str:
    if record is None or not record.images:
        return ""
    return str(study.trial_dir(record.number) / record.images[-1].file)


def _bar(snapshot: Snapshot) -> str:
    total = max(1, snapshot.n_trials)
    part = snapshot.image / snapshot.n_images if snapshot.n_images else 0.0
    done = snapshot.trial + (part if snapshot.trial < total else 0.0)
    return markup.bar(min(1.0, done / total), f"Study {snapshot.name}")


def _picture(snapshot: Snapshot) -> str:
    source = thumbnail(snapshot.last_image, THUMB_PX)
    if not source:
        return f'<div class="merge-picture">{markup.empty("no picture yet")}</div>'
    score = "" if snapshot.last_score is None else f"score {snapshot.last_score:.4f}"
    return (
        f'<figure class="merge-picture"><img src="{source}" alt="last picture">'
        f"<figcaption>{markup.text(score or 'last picture')}</figcaption></figure>"
    )


def _best(snapshot: Snapshot) -> str:
    if snapshot.best_score is None:
        return ""
    trial = f"trial {snapshot.best_trial}"
    if snapshot.best_label:
        trial += f" ({snapshot.best_label})"
    cells = [("Best so far", f"{snapshot.best_score:.4f}", trial)]
    for name, score in snapshot.baselines:
        title = _BASELINE_NAMES.get(name, name)
        delta = snapshot.best_score - score
        cells.append((title, f"{score:.4f}", f"best is {delta:+.4f}"))
    inner = "".join(
        f'<div class="merge-fact"><span>{markup.text(title)}</span>'
        f"<b>{markup.text(value)}</b><small>{markup.text(more)}</small></div>"
        for title, value, more in cells
    )
    return f'<div class="merge-facts">{inner}</div>'


def thumbnail(path: str, side_px: int) -> str:
    """A picture as a small data URI; "" when there is none."""
    if not path:
        return ""
    try:
        changed = Path(path).stat().st_mtime_ns
        return _thumbnail(path, changed, side_px)
    except OSError as fault:
        _log.debug("no thumbnail of %s: %s", path, fault)
        return ""


@lru_cache(maxsize=256)
def _thumbnail(path: str, changed_ns: int, side_px: int) -> str:
    from PIL import Image

    del changed_ns  # part of the cache's key only
    with Image.open(path) as image:
        small = image.convert("RGB")
    return data_uri(small, side_px)


def data_uri(picture: Picture, side_px: int) -> str:
    """A picture as a JPEG inside a text, its longest side at most so many pixels."""
    small = picture.convert("RGB")
    small.thumbnail((side_px, side_px))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def trial_table(records: Sequence[TrialRecord]) -> str:
    """The best and the latest attempts as a table."""
    if not records:
        return markup.empty("No trial yet.")
    best = ranked(records)[:N_BEST_ROWS]
    last = [r for r in reversed(records) if r not in best][:N_LAST_ROWS]
    n_more = len(records) - len(best) - len(last)
    rows = "".join(_row(record, rank) for rank, record in enumerate(best, 1))
    rows += "".join(_row(record, None) for record in last)
    more = f"{n_more} more in the report and in trials.csv." if n_more else ""
    return (
        '<table class="merge-table"><thead><tr><th>Rank</th><th>Trial</th>'
        "<th>Score</th><th>Pictures</th><th>Time</th><th>Block values or reason</th>"
        f"</tr></thead><tbody>{rows}</tbody></table>"
        f'<div class="merge-state">{more}</div>'
    )


def _row(record: TrialRecord, rank: int | None) -> str:
    name = f"{record.number}" + (f" ({record.label})" if record.label else "")
    score = record.state if record.score is None else f"{record.score:.4f}"
    if is_estimate(record):
        score = f"~{score} ({record.rung or record.state})"
    detail = markup.text(record.reason) or charts.block_bars(record.point)
    cells = (
        "" if rank is None else str(rank),
        name,
        score,
        str(len(record.images)),
        markup.duration(record.seconds),
    )
    inner = "".join(f"<td>{markup.text(cell)}</td>" for cell in cells)
    return f'<tr>{inner}<td class="merge-wide">{detail}</td></tr>'


def result_table(result: StudyResult) -> str:
    """What the unseen seeds say: finalists, parents and the 0.5 merge."""
    rows = ""
    ranked = sorted(result.candidates, key=lambda c: -c.score)
    for candidate in ranked:
        mark = " (winner)" if candidate.label == result.winner else ""
        search = candidate.search_score
        cells = (
            candidate.label + mark,
            f"{candidate.score:.4f}",
            bounds(candidate.interval()),
            "" if search is None else f"{search:.4f}",
            str(len(candidate.images)),
        )
        inner = "".join(f"<td>{markup.text(cell)}</td>" for cell in cells)
        kind = ' class="merge-winner"' if mark else ""
        rows += f"<tr{kind}>{inner}</tr>"
    lines = markup.lines(_difference_words(d) for d in result.differences)
    note = markup.errors([result.note]) if result.note else ""
    return (
        '<div class="merge-heading">On seeds that the search never saw</div>'
        '<table class="merge-table"><thead><tr><th>Model</th><th>Score</th>'
        "<th>95 % interval</th><th>In the search</th><th>Pictures</th></tr></thead>"
        f'<tbody>{rows}</tbody></table><div class="merge-note">{lines}</div>{note}'
    )


def bounds(one: Interval) -> str:
    """An interval's bounds; "" where a single picture tells nothing of them."""
    if one.low is None or one.high is None:
        return ""
    return f"{one.low:.4f} to {one.high:.4f}"


def _difference_words(delta: Difference) -> str:
    spread = ""
    if delta.low is not None and delta.high is not None:
        spread = f" (95 %: {delta.low:+.4f} to {delta.high:+.4f})"
    clear = "" if delta.is_clear else "; no clear difference"
    return (
        f"Winner minus {delta.rival}: {delta.mean:+.4f}{spread} a picture, better in "
        f"{delta.n_better} of {delta.n_images}{clear}."
    )
