"""Inline SVG for the report: axes, the learning curve, block weights, intervals.

Colours are classes of the report's own style sheet, so that light and dark agree.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence

from lib_merge.autombw.intervals import Interval
from lib_merge.autombw.leaderboard import CurvePoint

WIDTH = 900
LEFT, RIGHT, TOP, BOTTOM = 60, 110, 14, 42


def text(
    x: float, y: float, words: str, anchor: str = "start", kind: str = "tick"
) -> str:
    """Words at a place."""
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{html.escape(words)}</text>"
    )


def svg(height: float, label: str, parts: Iterable[str], width: float = WIDTH) -> str:
    """A whole picture with its description."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{html.escape(label, quote=True)}">{"".join(parts)}</svg>'
    )


def titled(words: str) -> str:
    """What the pointer is told."""
    return f"<title>{html.escape(words)}</title>"


class Axes:
    """Maps values to the picture, with ticks at round numbers.

    Args:
        xs: Lowest and highest value across.
        ys: Values upwards, of which the limits are taken.
        height: Of the picture.
    """

    def __init__(
        self, xs: tuple[float, float], ys: Sequence[float], height: float = 320
    ) -> None:
        low, high = min(ys), max(ys)
        margin = max((high - low) * 0.06, abs(high) * 1e-3, 1e-6)
        self.low, self.high = low - margin, high + margin
        self.left, self.right = xs
        self.height = height

    def x(self, value: float) -> float:
        """Across."""
        span = (self.right - self.left) or 1.0
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - self.left) / span

    def y(self, value: float) -> float:
        """Upwards."""
        part = (value - self.low) / (self.high - self.low)
        return self.height - BOTTOM - (self.height - TOP - BOTTOM) * part

    def grid(self, below: str) -> list[str]:
        """Lines and numbers of both axes, and what stands below."""
        parts = []
        for value in round_ticks(self.low, self.high):
            y = self.y(value)
            parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" '
                f'y2="{y:.1f}"/>'
            )
            parts.append(text(LEFT - 8, y + 4, f"{value:.4g}", "end"))
        for value in round_ticks(self.left, self.right, 8):
            at = self.height - BOTTOM + 17
            parts.append(text(self.x(value), at, f"{value:.4g}", "middle"))
        parts.append(text(LEFT, self.height - 6, below))
        return parts


def round_ticks(low: float, high: float, n_most: int = 5) -> list[float]:
    """Round numbers within limits."""
    raw = (high - low) / n_most
    if raw <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def learning_curve(
    points: Sequence[CurvePoint], baselines: Sequence[tuple[str, float]]
) -> str:
    """Every trial as a dot, the best so far with its interval, the parents dashed."""
    scores = [p.score for p in points if p.score is not None]
    if not scores:
        return "<p>No trial is scored yet.</p>"
    lows = [p.best.low for p in points if p.best and p.best.low is not None]
    highs = [p.best.high for p in points if p.best and p.best.high is not None]
    shown = [*scores, *(score for _, score in baselines), *lows, *highs]
    axes = Axes((1, max(len(points), 2)), shown)
    parts = axes.grid("trials, in the order of the search")
    parts += _band(points, axes)
    parts += [_baseline(score, axes) for _, score in baselines]
    parts += [_dot(i, p, axes) for i, p in enumerate(points, 1) if p.score is not None]
    steps = [(i, p.best.estimate) for i, p in enumerate(points, 1) if p.best]
    if steps:
        parts.append(f'<path class="best" d="{_stairs(steps, axes)}"/>')
    parts += _labels(steps, baselines, axes)
    return svg(axes.height, "Score of every trial and the best so far", parts)


def _band(points: Sequence[CurvePoint], axes: Axes) -> list[str]:
    """The interval of the best so far."""
    known = [
        (i, p.best.low, p.best.high)
        for i, p in enumerate(points, 1)
        if p.best and p.best.low is not None and p.best.high is not None
    ]
    if not known:
        return []
    upper = _stairs([(i, high) for i, _, high in known], axes)
    lower = _stairs([(i, low) for i, low, _ in known], axes, is_back=True)
    return [f'<path class="band" d="{upper} {lower} Z"/>']


def _stairs(
    steps: Sequence[tuple[int, float]], axes: Axes, *, is_back: bool = False
) -> str:
    """A path that keeps each level until the next; backwards, to close an area."""
    places = [(axes.x(i), axes.y(value)) for i, value in steps]
    found: list[str] = []
    for (x, y), (_, before) in zip(places, [places[0], *places], strict=False):
        found += [f"{x:.1f} {before:.1f}", f"{x:.1f} {y:.1f}"]
    unique = [p for p, q in zip(found, ["", *found], strict=False) if p != q]
    if is_back:
        return "L" + " L".join(reversed(unique))
    return "M" + " L".join(unique)


def _dot(i: int, point: CurvePoint, axes: Axes) -> str:
    score = point.score or 0.0
    words = f"trial {point.number} {point.label}: {score:.4f}"
    kind = "dot"
    if point.is_estimate:
        kind, words = "dot guess", f"{words} (estimate: not rendered whole)"
    return (
        f'<circle class="{kind}" cx="{axes.x(i):.1f}" cy="{axes.y(score):.1f}" '
        f'r="3.5">{titled(words)}</circle>'
    )


def _baseline(score: float, axes: Axes) -> str:
    y = axes.y(score)
    return (
        f'<line class="base" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" '
        f'y2="{y:.1f}"/>'
    )


def _labels(
    steps: Sequence[tuple[int, float]],
    baselines: Sequence[tuple[str, float]],
    axes: Axes,
) -> list[str]:
    """Words at the right edge, from the top down, each with room of its own."""
    wanted = [(score, label, "tick") for label, score in baselines]
    if steps:
        best = steps[-1][1]
        wanted.append((best, f"best {best:.4f}", "bold"))
    parts = []
    place = -math.inf
    for score, words, kind in sorted(wanted, key=lambda one: (-one[0], one[2])):
        place = max(axes.y(score), place + 15)
        parts.append(text(WIDTH - RIGHT + 8, place + 4, words, kind=kind))
    return parts


def weight_bars(point: Mapping[str, float], label: str) -> str:
    """One bar an axis, from 0 upwards (or downwards), with its value."""
    height, base = 262, 170
    low, high = min(0.0, *point.values()), max(1.0, *point.values())
    scale = (base - 20) / (high - low)
    zero = base + low * scale
    step = (WIDTH - 20) / len(point)
    parts = [
        f'<line class="grid" x1="10" x2="{WIDTH - 10}" y1="{zero:.1f}" '
        f'y2="{zero:.1f}"/>'
    ]
    for i, (name, value) in enumerate(point.items()):
        x = 10 + i * step
        top, size = zero - max(value, 0) * scale, abs(value) * scale
        parts.append(
            f'<rect class="bar" x="{x + 2:.1f}" y="{top:.1f}" '
            f'width="{max(step - 4, 1):.1f}" height="{max(size, 0.5):.1f}">'
            f"{titled(f'{name} {value:.4f}')}</rect>"
        )
        middle = x + step / 2
        parts.append(text(middle, top - 4, f"{value:.2f}", "middle", "tiny"))
        parts.append(
            f'<text class="tick" transform="translate({middle + 4:.1f},{base + 8}) '
            f'rotate(90)">{html.escape(name)}</text>'
        )
    return svg(height, label, parts)


def forest(rows: Sequence[tuple[str, Interval, bool]], label: str) -> str:
    """Estimates with their intervals below each other.

    Args:
        rows: (name, estimate, whether it stands out) each.
        label: What is shown.
    """
    values = [v for _, one, _ in rows for v in (one.estimate, one.low, one.high)]
    known = [value for value in values if value is not None]
    height = 24 * len(rows) + 34
    left, low, high = 150, min(known), max(known)
    margin = max((high - low) * 0.05, 1e-6)
    scale = (WIDTH - left - 90) / (high - low + 2 * margin)

    def x(value: float) -> float:
        return left + (value - low + margin) * scale

    parts = []
    for value in round_ticks(low - margin, high + margin, 6):
        parts.append(
            f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="4" '
            f'y2="{height - 24}"/>'
        )
        parts.append(text(x(value), height - 8, f"{value:.4g}", "middle"))
    for i, (name, one, is_best) in enumerate(rows):
        y, kind = 18 + 24 * i, "best" if is_best else "whisker"
        parts.append(text(left - 12, y + 4, name, "end", "bold" if is_best else "tick"))
        if one.low is not None and one.high is not None:
            parts.append(
                f'<line class="{kind}" x1="{x(one.low):.1f}" x2="{x(one.high):.1f}" '
                f'y1="{y}" y2="{y}"/>'
            )
        parts.append(
            f'<circle class="{"mark" if is_best else "dot"}" '
            f'cx="{x(one.estimate):.1f}" cy="{y}" r="4.5">'
            f"{titled(f'{name}: {one.estimate:.4f}')}</circle>"
        )
    return svg(height, label, parts)
