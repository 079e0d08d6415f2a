"""Inline SVG for the report: maps over trials, lines over axes, importances, clouds."""

from __future__ import annotations

import html
from collections.abc import Sequence

from lib_merge.autombw._svg import WIDTH, Axes, svg, text, titled
from lib_merge.autombw.gaps import Overfit
from lib_merge.autombw.importances import Importances
from lib_merge.autombw.leaderboard import Lines, WeightMap

N_SHADES = 11
"""Classes s0 to s10 of the style sheet: from A's colour over grey to B's."""

N_LEVELS = 6
"""Classes l0 to l5: lines of low to high scores."""


def weight_map(found: WeightMap) -> str:
    """A row an axis, a column a trial, coloured by value; one path a colour."""
    names, row = 96, 13
    height = row * len(found.axes) + 46
    step = (WIDTH - names - 10) / len(found.numbers)
    paths: list[list[str]] = [[] for _ in range(N_SHADES)]
    for i, values in enumerate(found.rows):
        for start, stop, shade in _runs(values):
            x, width = names + start * step, (stop - start) * step
            paths[shade].append(
                f"M{x:.1f} {i * row + 2}h{width:.1f}v{row - 1}h{-width:.1f}z"
            )
    parts = [
        f'<path class="s{shade}" d="{"".join(path)}"/>'
        for shade, path in enumerate(paths)
        if path
    ]
    parts += [
        text(names - 8, i * row + 12, axis, "end", "small")
        for i, axis in enumerate(found.axes)
    ]
    below = row * len(found.axes) + 18
    for i in sorted({0, len(found.numbers) // 2, len(found.numbers) - 1}):
        words = str(found.numbers[i])
        parts.append(text(names + (i + 0.5) * step, below, words, "middle"))
    parts.append(text(names, below + 20, "trial"))
    parts += _legend(found.low, found.high, below + 8)
    return svg(height, "Value of every axis in every trial", parts)


def _runs(values: Sequence[float]) -> list[tuple[int, int, int]]:
    """(start, stop, shade) of neighbours that share a shade."""
    shades = [min(N_SHADES - 1, int(value * N_SHADES)) for value in values]
    found = []
    start = 0
    for i in range(1, len(shades) + 1):
        if i == len(shades) or shades[i] != shades[start]:
            found.append((start, i, shades[start]))
            start = i
    return found


def _legend(low: float, high: float, y: float) -> list[str]:
    left = WIDTH - 10 - N_SHADES * 16 - 40
    parts = [
        f'<rect class="s{i}" x="{left + i * 16}" y="{y:.0f}" width="16" height="10"/>'
        for i in range(N_SHADES)
    ]
    parts.append(text(left - 6, y + 10, f"{low:.3g}", "end"))
    return [*parts, text(left + N_SHADES * 16 + 6, y + 10, f"{high:.3g}")]


def parallel(lines: Lines) -> str:
    """One line a trial over all axes; the best one drawn last and thick."""
    height, top, bottom = 330, 16, 250
    step = (WIDTH - 60) / max(1, len(lines.axes) - 1)
    low, high = min(lines.lows), max(lines.highs)
    parts = []
    for i, axis in enumerate(lines.axes):
        x = 30 + i * step
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
            f'<text class="tick" transform="translate({x + 4:.1f},{bottom + 8}) '
            f'rotate(90)">{html.escape(axis)}</text>'
        )
    parts.append(text(26, bottom + 4, f"{low:.3g}", "end", "small"))
    parts.append(text(26, top + 4, f"{high:.3g}", "end", "small"))
    n = len(lines.numbers)
    for rank, (number, score) in enumerate(
        zip(lines.numbers, lines.scores, strict=True)
    ):
        places = (
            f"{30 + i * step:.0f},{bottom - (bottom - top) * _part(v, low, high):.0f}"
            for i, v in enumerate(lines.values[rank])
        )
        level = min(N_LEVELS - 1, rank * N_LEVELS // n)
        kind = "best" if rank == n - 1 else f"line l{level}"
        parts.append(
            f'<polyline class="{kind}" points="{" ".join(places)}">'
            f"{titled(f'trial {number}: {score:.4f}')}</polyline>"
        )
    return svg(height, "Every trial as a line over the axes of the search", parts)


def _part(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def importance_bars(found: Importances) -> str:
    """A bar an axis, the trend in words; luck as a line, if it fits on the scale."""
    names, row = 96, 17
    height = row * len(found.axes) + 30
    top = found.axes[0].share
    is_drawn = found.luck is not None and found.luck < 1.3 * top
    top = max(top, found.luck or 0.0) if is_drawn else top
    scale = (WIDTH - names - 210) / top
    parts = []
    for i, one in enumerate(found.axes):
        y = i * row + 4
        is_real = found.luck is None or one.share > found.luck
        parts.append(text(names - 8, y + 11, one.axis, "end", "small"))
        parts.append(
            f'<rect class="{"bar" if is_real else "bar faint"}" x="{names}" y="{y}" '
            f'width="{max(one.share * scale, 0.5):.1f}" height="{row - 4}">'
            f"{titled(f'{one.axis}: {one.share:.1%}')}</rect>"
        )
        words = f"{one.share:.1%}  {one.trend_words}"
        parts.append(text(names + one.share * scale + 6, y + 11, words, kind="small"))
    if found.luck is not None and is_drawn:
        x = names + found.luck * scale
        bottom = row * len(found.axes) + 6
        parts.append(
            f'<line class="base" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{bottom}"/>'
        )
        parts.append(text(x + 4, bottom + 14, "what luck alone gives", kind="small"))
    return svg(height, "Importance of every axis", parts)


def gains(found: Overfit) -> str:
    """For each payload the winner's gain in the search and on unseen seeds."""
    names, row = 190, 22
    height = row * len(found.prompts) + 56
    values = [0.0, *(p.held_out for p in found.prompts)]
    values += [p.search for p in found.prompts if p.search is not None]
    low, high = min(values), max(values)
    scale = (WIDTH - names - 60) / ((high - low) or 1.0)

    def x(value: float) -> float:
        return names + 20 + (value - low) * scale

    bottom = row * len(found.prompts) + 8
    parts = [
        f'<line class="grid" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="0" y2="{bottom}"/>'
    ]
    for i, prompt in enumerate(found.prompts):
        y = i * row + 14
        name = prompt.payload if len(prompt.payload) < 27 else prompt.payload[:25] + "…"
        parts.append(text(names, y + 4, name, "end", "small"))
        if prompt.search is not None:
            parts.append(
                f'<line class="whisker" x1="{x(prompt.search):.1f}" '
                f'x2="{x(prompt.held_out):.1f}" y1="{y}" y2="{y}"/>'
            )
            words = f"in the search {prompt.search:+.4f}"
            parts.append(_circle(x(prompt.search), y, "dot guess", words))
        words = f"on unseen seeds {prompt.held_out:+.4f}"
        parts.append(_circle(x(prompt.held_out), y, "mark", words))
    parts.append(text(x(0), bottom + 16, "0", "middle"))
    y = bottom + 36
    parts += [_circle(names + 26, y - 4, "dot guess", "")]
    parts.append(text(names + 36, y, "gain in the search", kind="small"))
    parts += [_circle(names + 186, y - 4, "mark", "")]
    parts.append(text(names + 196, y, "gain on unseen seeds", kind="small"))
    return svg(height, "Gain over the parent by payload", parts)


def _circle(x: float, y: float, kind: str, words: str) -> str:
    title = titled(words) if words else ""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y}" r="4.5">{title}</circle>'


def cloud(
    points: Sequence[tuple[float, float, str, bool]], across: str, label: str
) -> str:
    """Trials by two numbers.

    Args:
        points: (across, upwards, words, whether it stands out) each.
        across: What is counted across.
        label: What is shown.
    """
    xs = [point[0] for point in points]
    margin = max((max(xs) - min(xs)) * 0.05, 1e-6)
    axes = Axes((min(xs) - margin, max(xs) + margin), [p[1] for p in points], 300)
    parts = axes.grid(across)
    marked = sorted(p for p in points if p[3])
    if len(marked) > 1:
        places = (f"{axes.x(p[0]):.1f},{axes.y(p[1]):.1f}" for p in marked)
        parts.append(f'<polyline class="best" points="{" ".join(places)}"/>')
    for x, y, words, is_marked in sorted(points, key=lambda p: p[3]):
        kind = "mark" if is_marked else "dot"
        parts.append(_circle(axes.x(x), round(axes.y(y), 1), kind, words))
    return svg(axes.height, label, parts)


def mini_bars(point: Sequence[tuple[str, float]]) -> str:
    """A trial's values as a row of small bars, from 0 to the largest of 1 and them."""
    width, height = 230, 30
    top = max(1.0, *(abs(value) for _, value in point))
    step = width / len(point)
    bars = "".join(
        f'<rect class="bar" x="{i * step:.1f}" width="{max(step - 1, 1):.1f}" '
        f'y="{height * (1 - abs(v) / top):.1f}" '
        f'height="{max(height * abs(v) / top, 0.6):.1f}">'
        f"{titled(f'{n} {v:.3f}')}</rect>"
        for i, (n, v) in enumerate(point)
    )
    return svg(height, "Values of every axis", [bars], width)
