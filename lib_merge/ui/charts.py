"""The learning curve as inline SVG, coloured by the host's own variables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lib_merge.ui.markup import empty, text

WIDTH = 580
HEIGHT = 262
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 12, 26

BARS_WIDTH = 168
BARS_HEIGHT = 18


def score_curve(
    scores: Sequence[float | None],
    n_trials: int,
    baselines: Sequence[tuple[str, float]],
) -> str:
    """Every trial's score, the best so far, and the parents as lines.

    Args:
        scores: One a trial, in order; None where it failed.
        n_trials: Trials asked for: the length of the axis.
        baselines: (label, score) of A, B and the 0.5 merge.

    Returns:
        An <svg>, or a line of text while there is nothing to draw.
    """
    known = [score for score in scores if score is not None]
    if not known:
        return empty("The curve begins with the first score.")
    low, high = _limits([*known, *(score for _, score in baselines)])
    scale = _Scale(max(n_trials, len(scores), 2), low, high)
    parts = [*_grid(scale), *_lines(scale, baselines)]
    points = [(i, s) for i, s in enumerate(scores) if s is not None]
    parts += [
        f'<circle class="merge-dot" cx="{scale.x(i):.1f}" cy="{scale.y(s):.1f}" r="3">'
        f"<title>trial {i + 1}: {s:.4f}</title></circle>"
        for i, s in points
    ]
    parts.append(f'<path class="merge-best" d="{_best_path(scale, scores)}"/>')
    label = f"Score of {len(known)} trials; best {max(known):.4f}"
    return (
        f'<svg class="merge-curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{text(label)}">{"".join(parts)}</svg>'
    )


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
        """Where a score stands."""
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


def _best_path(scale: _Scale, scores: Sequence[float | None]) -> str:
    steps: list[str] = []
    best = -math.inf
    for index, score in enumerate(scores):
        better = score is not None and score > best
        if better and score is not None:
            if steps:
                steps.append(f"H{scale.x(index):.1f}")
            best = score
            command = "V" if steps else f"M{scale.x(index):.1f} "
            steps.append(f"{command}{scale.y(best):.1f}")
    return " ".join([*steps, f"H{scale.x(len(scores) - 1):.1f}"])


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
