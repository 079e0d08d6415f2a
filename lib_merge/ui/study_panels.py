"""What the AutoMBW page shows beside the live view: leaders, axes, all studies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lib_merge.autombw.importances import PED_ANOVA, importances
from lib_merge.autombw.leaderboard import Leader, leaders, ranked, weight_map
from lib_merge.ui import charts, markup
from lib_merge.ui.study_view import bounds, data_uri, thumbnail

if TYPE_CHECKING:
    from lib_merge.autombw.intervals import Interval
    from lib_merge.autombw.manage import Comparison
    from lib_merge.autombw.records import ImageScore, TrialRecord
    from lib_merge.autombw.scorers.person import Question
    from lib_merge.autombw.study import Study, StudySummary

N_LEADERS = 6
N_SHOTS = 4
SHOT_PX = 112
"""Leaders, pictures of each, and their size: all are sent with a refresh."""

QUESTION_PX = 448
"""Longest side of the two pictures that a person chooses between."""

N_COLUMNS = 240
"""Trials on the map of weights."""


def leaderboard(study: Study) -> str:
    """The best trials with intervals, gains over the parents, values and pictures."""
    found = leaders(study.records(), study.settings.tally, N_LEADERS)
    if not found:
        return markup.empty("No trial is scored yet.")
    return "".join(_leader(study, leader) for leader in found)


def _leader(study: Study, leader: Leader) -> str:
    record = leader.record
    label = f" ({record.label})" if record.label else ""
    facts = [f"95 %: {bounds(leader.score)}"] if leader.score.low is not None else []
    facts += [f"over {name} {signed(delta)}" for name, delta in leader.ahead]
    if record.diversity is not None:
        facts.append(f"diversity {record.diversity:.3f}")
    folder = study.trial_dir(record.number)
    chosen = _spread(sorted(record.images, key=lambda image: image.file))
    shots = "".join(
        f'<img src="{source}" alt="{markup.text(image.prompt[:80])}" '
        f'title="{markup.text(image.prompt[:80])}: {image.score:.3f}">'
        for image in chosen
        if (source := thumbnail(str(folder / image.file), SHOT_PX))
    )
    return (
        f'<div class="merge-leader"><div class="merge-job-line"><b>{leader.rank}. '
        f"Trial {record.number}{markup.text(label)}</b>"
        f"<span>{leader.score.estimate:.4f}</span></div>"
        f'<div class="merge-state">{markup.text(" · ".join(facts))}</div>'
        f'<div class="merge-leader-body">{charts.block_bars(record.point)}{shots}</div>'
        "</div>"
    )


def _spread(images: Sequence[ImageScore]) -> Sequence[ImageScore]:
    """A few of many, over all payloads."""
    step = max(1, len(images) // N_SHOTS)
    return images[::step][:N_SHOTS]


def pictures(study: Study, number: int | None, n_most: int) -> list[tuple[Any, str]]:
    """A trial's pictures with what they scored.

    Args:
        study: The study.
        number: The trial's, or None for the best.
        n_most: Of more pictures the first ones.
    """
    from PIL import Image

    best = next(iter(ranked(study.records())), None)
    if number is not None:
        best = next((r for r in study.records() if r.number == number), None)
    if best is None:
        return []
    shown = []
    for image in sorted(best.images, key=lambda one: one.file)[:n_most]:
        path = study.trial_dir(best.number) / image.file
        if path.exists():
            with Image.open(path) as picture:
                caption = f"{image.payload}: {image.score:.4f}"
                shown.append((picture.convert("RGB"), caption))
    return shown


def signed(one: Interval) -> str:
    """A difference with its bounds."""
    if one.low is None or one.high is None:
        return f"{one.estimate:+.4f}"
    return f"{one.estimate:+.4f} ({one.low:+.4f} to {one.high:+.4f})"


def axes(study: Study) -> str:
    """What matters, and where the search looked."""
    records = study.records()
    parts = [_importances(records)]
    shown = weight_map(records, n_most=N_COLUMNS)
    if shown is not None:
        words = "Every column is a trial: blue is A's side, orange B's."
        parts.append(f'<div class="merge-state">{words}</div>')
        parts.append(charts.weight_map(shown))
    return "".join(parts)


def _importances(records: Sequence[TrialRecord]) -> str:
    found = importances(records)
    best = next(iter(ranked(records)), None)
    if found is None or best is None:
        return markup.empty("What matters is told from five whole trials on.")
    how = "PED-ANOVA" if found.method == PED_ANOVA else "rank correlation"
    words = (
        f"By {how} over {found.n_trials} whole trials; the report also says how much "
        "of it luck would give."
    )
    shares = {one.axis: one.share for one in found.axes}
    plan = charts.block_plan(best.point, shares)
    bars = charts.importance_bars(found, best.point)
    said = (
        f'<div class="merge-heading">Values of trial {best.number}, coloured by '
        "importance</div>"
    )
    return f'{said}{plan}<div class="merge-state">{markup.text(words)}</div>{bars}'


def shelf(found: Sequence[StudySummary]) -> str:
    """All studies as a table, the last changed first."""
    if not found:
        return markup.empty("No study yet.")
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td>{markup.text(cell)}</td>"
            for cell in (
                one.name,
                one.state,
                f"{one.n_complete} of {one.n_trials}",
                "" if one.best_score is None else f"{one.best_score:.4f}",
                _date(one.modified),
            )
        )
        + "</tr>"
        for one in found
    )
    return (
        '<table class="merge-table"><thead><tr><th>Study</th><th>State</th>'
        "<th>Trials</th><th>Best</th><th>Changed</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _date(modified: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(modified))


def comparison(found: Comparison) -> str:
    """Two studies beside each other."""
    one, two = found.sides
    rows = [
        ("Models", " + ".join(one.models), " + ".join(two.models)),
        ("Whole trials", str(one.n_whole), str(two.n_whole)),
        ("Pictures", str(one.n_images), str(two.n_images)),
        ("Hours", f"{one.hours:.2f}", f"{two.hours:.2f}"),
        ("Best in the search", _number(one.best), _number(two.best)),
        ("Winner on unseen seeds", _number(one.held_out), _number(two.held_out)),
        *found.settings,
        *((axis, f"{mine:.3f}", f"{other:.3f}") for axis, mine, other in found.points),
    ]
    body = "".join(
        f"<tr>{''.join(f'<td>{markup.text(cell)}</td>' for cell in row)}</tr>"
        for row in rows
    )
    head = "".join(f"<th>{markup.text(name)}</th>" for name in ("", one.name, two.name))
    if found.winners is None:
        said = f"The winners cannot be held against each other: {found.why_not}"
    else:
        clear = "" if found.winners.is_clear else ", no clear difference"
        said = f"First winner minus second: {signed(found.winners)}{clear}."
    return (
        markup.note(said)
        + f'<table class="merge-table"><thead><tr>{head}</tr></thead>'
        + f"<tbody>{body}</tbody></table>"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def question(asked: Question) -> str:
    """Two pictures of one prompt, for a person to choose between."""
    sides = "".join(
        f'<figure class="merge-choice"><img src="{data_uri(picture, QUESTION_PX)}" '
        f'alt="{side} picture"><figcaption>{side}</figcaption></figure>'
        for side, picture in (("Left", asked.left), ("Right", asked.right))
    )
    words = f"Which picture is better for: {asked.prompt}"
    return (
        f'<div class="merge-heading">{markup.text(words)}</div>'
        f'<div class="merge-choices" data-merge-busy="1">{sides}</div>'
    )
