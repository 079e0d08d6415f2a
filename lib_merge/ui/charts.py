"""A study's charts as inline SVG, coloured by the host's own variables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lib_merge.autombw.importances import Importances
from lib_merge.autombw.intervals import Interval
from lib_merge.autombw.leaderboard import CurvePoint, WeightMap
from lib_merge.ui.markup import empty, text

WIDTH = 580
HEIGHT = 262
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 12, 26

MAX_TITLED = 150
"""Dots that say which trial they are; a refresh must stay small."""

BARS_WIDTH = 168
BARS_HEIGHT = 18


def score_curve(
    points: Sequence[CurvePoint],
    n_trials: int,
    baselines: Sequence[tuple[str, float]],
) -> str:
    """Every trial's score, the best so far with its interval, the parents as lines.

    Args:
        points: One a decided trial, in order.
        n_trials: Trials asked for: the length of the axis.
        baselines: (label, score) of A, B and the 0.5 merge.

    Returns:
        An <svg>, or a line of text while there is nothing to draw.
    """
    known = [(i, p) for i, p in enumerate(points) if p.score is not None]
    if not known:
        return empty("The curve begins with the first score.")
    best = [(i, p.best) for i, p in enumerate(points) if p.best is not None]
    ends = [v for _, b in best for v in (b.low, b.high) if v is not None]
    scores = [p.score for _, p in known if p.score is not None]
    low, high = _limits([*scores, *(score for _, score in baselines)])
    # The first trials' wide intervals must not flatten everything else.
    low = max(min([low, *ends]), low - (high - low) / 2)
    high = min(max([high, *ends]), high + (high - low) / 2)
    scale = _Scale(max(n_trials, len(points), 2), low, high)
    parts = [*_grid(scale), *_band(scale, best), *_lines(scale, baselines)]
    parts += _dots(scale, known)
    if best:
        steps = [(i, b.estimate) for i, b in best]
        path = _path(scale, _corners(steps, len(points) - 1))
        parts.append(f'<path class="merge-best" d="{path}"/>')
    label = f"Score of {len(known)} trials; best {max(scores):.4f}"
    return (
        f'<svg class="merge-curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{text(label)}">{"".join(parts)}</svg>'
    )


def _dots(scale: _Scale, known: Sequence[tuple[int, CurvePoint]]) -> list[str]:
    """The trials; of many, only those that were a new best say which they are."""
    if len(known) <= MAX_TITLED:
        return [_titled_dot(scale, i, p) for i, p in known]
    parts = []
    for is_guess, kind in ((False, "merge-dots"), (True, "merge-dots merge-guess")):
        # A line of no length with a round end is a dot in twelve letters.
        path = "".join(
            f"M{scale.x(i):.0f} {scale.y(p.score or 0.0):.0f}h0"
            for i, p in known
            if p.is_estimate == is_guess
        )
        parts.append(f'<path class="{kind}" d="{path}"/>')
    new_best = [
        (i, p) for i, p in known if p.best is not None and p.best.estimate == p.score
    ]
    return parts + [_titled_dot(scale, i, p) for i, p in new_best[-MAX_TITLED:]]


def _titled_dot(scale: _Scale, index: int, point: CurvePoint) -> str:
    score = point.score or 0.0
    kind = "merge-dot merge-guess" if point.is_estimate else "merge-dot"
    more = " (estimate)" if point.is_estimate else ""
    label = f" {text(point.label)}" if point.label else ""
    return (
        f'<circle class="{kind}" cx="{scale.x(index):.1f}" cy="{scale.y(score):.1f}" '
        f'r="3"><title>trial {point.number}{label}: {score:.4f}{more}</title></circle>'
    )


def _band(scale: _Scale, best: Sequence[tuple[int, Interval]]) -> list[str]:
    """The interval of the best so far."""
    known = [
        (i, b.low, b.high) for i, b in best if b.low is not None and b.high is not None
    ]
    if not known:
        return []
    last = known[-1][0]
    upper = _corners([(i, high) for i, _, high in known], last)
    lower = _corners([(i, low) for i, low, _ in known], last)
    outline = _path(scale, [*upper, *reversed(lower)])
    return [f'<path class="merge-band" d="{outline}Z"/>']


def block_bars(point: Mapping[str, float]) -> str:
    """A trial's block values as a row of small bars, in order; words as its title.

    Args:
        point: Values by block id; the bars reach from 0 to the largest of 1 and them.
    """
    if not point:
        return ""
    top = max(1.0, *(abs(value) for value in point.values()))
    step = BARS_WIDTH / len(point)
    bars = "".join(
        f'<rect class="merge-dot" x="{i * step:.1f}" width="{max(step - 1, 1):.1f}" '
        f'y="{BARS_HEIGHT * (1 - abs(v) / top):.1f}" '
        f'height="{max(BARS_HEIGHT * abs(v) / top, 0.6):.1f}"/>'
        for i, v in enumerate(point.values())
    )
    words = ", ".join(f"{block}={value:.2f}" for block, value in point.items())
    return (
        f'<svg class="merge-bars" viewBox="0 0 {BARS_WIDTH} {BARS_HEIGHT}" role="img" '
        f'aria-label="{text(words)}"><title>{text(words)}</title>{bars}</svg>'
    )


_SHADES = (
    *("#1f5fbf", "#4278c4", "#6691ca", "#8babd0", "#a9bccf"),
    *("#b9b9b9", "#cdb79c", "#d9a877", "#dd9250", "#d97a2c", "#c95f0c"),
)
"""Values from A's colour over grey to B's: data, the same in every theme."""


def weight_map(found: WeightMap) -> str:
    """A row an axis, a column a trial, coloured by value; one path a colour."""
    names, row = 84, 12
    height = row * len(found.axes) + 20
    step = (WIDTH - names) / len(found.numbers)
    paths = [""] * len(_SHADES)
    for i, values in enumerate(found.rows):
        for start, stop, shade in _runs(values):
            x, width = names + start * step, (stop - start) * step
            paths[shade] += f"M{x:.0f} {i * row}h{width + 0.5:.0f}v11H{x:.0f}z"
    parts = [
        f'<path fill="{_SHADES[shade]}" d="{path}"/>'
        for shade, path in enumerate(paths)
        if path
    ]
    parts += [
        f'<text class="merge-tick merge-small" x="{names - 6}" y="{i * row + 10}" '
        f'text-anchor="end">{text(axis)}</text>'
        for i, axis in enumerate(found.axes)
    ]
    for i in sorted({0, len(found.numbers) - 1}):
        anchor = "end" if i else "start"
        x = WIDTH if i else names
        parts.append(
            f'<text class="merge-tick merge-small" x="{x}" y="{height - 4}" '
            f'text-anchor="{anchor}">trial {found.numbers[i]}</text>'
        )
    return (
        f'<svg class="merge-map" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="Value of every axis in every trial">{"".join(parts)}</svg>'
    )


def _runs(values: Sequence[float]) -> list[tuple[int, int, int]]:
    """(start, stop, shade) of neighbours that share a shade."""
    shades = [min(len(_SHADES) - 1, int(value * len(_SHADES))) for value in values]
    found = []
    start = 0
    for i in range(1, len(shades) + 1):
        if i == len(shades) or shades[i] != shades[start]:
            found.append((start, i, shades[start]))
            start = i
    return found


def importance_bars(found: Importances, values: Mapping[str, float]) -> str:
    """A row an axis: its share as a bar, the best trial's value, and the trend.

    Args:
        found: The axes, the most important first.
        values: Of the best trial.
    """
    top = found.axes[0].share or 1.0
    rows = "".join(
        f'<tr><td>{text(one.axis)}</td><td class="merge-share">'
        f'<div class="merge-bar-fill" style="width:{100 * one.share / top:.0f}%"></div>'
        f"</td><td>{one.share:.1%}</td><td>{values.get(one.axis, 0.0):.3f}</td>"
        f"<td>{one.trend_words}</td></tr>"
        for one in found.axes
    )
    return (
        '<table class="merge-table"><thead><tr><th>Axis</th><th>Importance</th><th>'
        f"</th><th>Best</th><th>Trend</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def block_plan(point: Mapping[str, float], shares: Mapping[str, float]) -> str:
    """The axes in the shape of the network, coloured by importance, with values.

    Downwards on the left, upwards on the right, as far as they are IN and OUT blocks.

    Args:
        point: Of the best trial.
        shares: Importance by axis.
    """
    top = max(shares.values(), default=0.0) or 1.0
    downs = sorted(name for name in point if name.startswith("IN") and "+" not in name)
    ups = sorted(
        (n for n in point if n.startswith("OUT") and n != "OUT" and "+" not in n),
        reverse=True,
    )
    n_rows = min(len(downs), len(ups))
    pairs = zip(downs[:n_rows], ups[len(ups) - n_rows :], strict=True)
    in_pairs = [name for pair in pairs for name in pair]
    rest = [name for name in point if name not in in_pairs]
    wide = [name for name in rest if name.startswith("M0") and in_pairs]
    others = [name for name in rest if name not in wide]

    def cell(name: str, kind: str = "") -> str:
        share = shares.get(name, 0.0)
        return (
            f'<div class="merge-plan-cell{kind}" '
            f'style="--merge-share:{0.75 * share / top:.2f}" '
            f'title="{text(name)}: importance {share:.1%}"><span>{text(name)}</span>'
            f"<b>{point[name]:.3f}</b></div>"
        )

    cells = [cell(name) for name in (*others, *in_pairs)]
    if len(others) % 2:
        cells.insert(len(others), "<div></div>")
    cells += [cell(name, " merge-plan-wide") for name in wide]
    return f'<div class="merge-plan-u">{"".join(cells)}</div>'


class _Scale:
    """Trials and scores to pixels."""

    def __init__(self, n_trials: int, low: float, high: float) -> None:
        self.n_trials = n_trials
        self.low = low
        self.high = high

    def x(self, index: float) -> float:
        """Where a trial stands."""
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * index / (self.n_trials - 1)

    def y(self, score: float) -> float:
        """Where a score stands; what is off the scale, at its edge."""
        score = min(max(score, self.low), self.high)
        part = (score - self.low) / (self.high - self.low)
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * part


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or max(abs(high), 1e-6) * 0.05
    return low - margin, high + margin


def _grid(scale: _Scale) -> list[str]:
    parts = []
    for score in _ticks(scale.low, scale.high):
        y = scale.y(score)
        parts.append(
            f'<line class="merge-grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="merge-tick" x="{_LEFT - 6}" y="{y + 4:.1f}" '
            f'text-anchor="end">{score:.4g}</text>'
        )
    for trial in _trial_ticks(scale.n_trials):
        parts.append(
            f'<text class="merge-tick" x="{scale.x(trial - 1):.1f}" '
            f'y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{trial}</text>'
        )
    return parts


def _lines(scale: _Scale, baselines: Sequence[tuple[str, float]]) -> list[str]:
    parts = []
    taken: list[float] = []
    for label, score in sorted(baselines, key=lambda pair: -pair[1]):
        y = scale.y(score)
        # Labels of near lines would lie on each other: each keeps 14 pixels of its own.
        place = y - 4
        if taken and place < taken[-1] + 14:
            place = taken[-1] + 14
        taken.append(place)
        parts.append(
            f'<line class="merge-base" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="merge-tick" x="{WIDTH - _RIGHT}" y="{place:.1f}" '
            f'text-anchor="end">{text(label)} {score:.4f}</text>'
        )
    return parts


def _corners(steps: Sequence[tuple[int, float]], last: int) -> list[tuple[int, float]]:
    """The corners of a line that keeps each level until it changes."""
    found = [steps[0]]
    for index, value in steps[1:]:
        before = found[-1][1]
        if value != before:
            found += [(index, before), (index, value)]
    return [*found, (last, found[-1][1])]


def _path(scale: _Scale, corners: Sequence[tuple[int, float]]) -> str:
    """A line through corners; those that fall on one pixel are one."""
    digits = 1 if len(corners) <= MAX_TITLED else 0
    places = [
        f"{scale.x(i):.{digits}f} {scale.y(value):.{digits}f}" for i, value in corners
    ]
    apart = [p for p, before in zip(places, ["", *places], strict=False) if p != before]
    return "M" + "L".join(apart)


def _ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= raw)
    first = math.ceil(low / step)
    last = math.floor(high / step)
    return [n * step for n in range(first, last + 1)]


def _trial_ticks(n_trials: int) -> list[int]:
    step = max(1, 10 ** int(math.log10(max(n_trials, 1))) // 2)
    while n_trials / step > 8:
        step *= 2
    ticks = [1, *range(step, n_trials + 1, step)]
    return sorted(set(ticks))
