"""Inline SVG for the report: the learning curve and the block weights."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

from lib_merge.autombw.records import TrialRecord
from lib_merge.autombw.space import BASELINES

_WIDTH, _HEIGHT = 900, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 110, 14, 40
_INK = "currentColor"
_BEST, _TRIAL, _BASE = "#c2410c", "#2563eb", "#6b7280"


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" text-anchor="{anchor}" '
        f'fill="{_INK}">{html.escape(words)}</text>'
    )


def _svg(height: int, label: str, parts: Iterable[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{html.escape(label, quote=True)}" '
        f'font-family="system-ui,sans-serif">{"".join(parts)}</svg>'
    )


class _Axes:
    """Maps trials and scores to the picture."""

    def __init__(self, n: int, scores: Sequence[float]) -> None:
        low, high = min(scores), max(scores)
        margin = max((high - low) * 0.08, 1e-3)
        self.low, self.high = low - margin, high + margin
        self.n = max(n - 1, 1)

    def x(self, index: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * index / self.n

    def y(self, score: float) -> float:
        share = (score - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    def grid(self) -> list[str]:
        parts = []
        for i in range(5):
            score = self.low + (self.high - self.low) * i / 4
            y = self.y(score)
            parts.append(
                f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
                f'stroke="{_INK}" stroke-opacity=".15"/>'
            )
            parts.append(_text(_LEFT - 8, y + 4, f"{score:.3f}", "end"))
        for i in sorted({0, self.n // 4, self.n // 2, 3 * self.n // 4, self.n}):
            parts.append(_text(self.x(i), _HEIGHT - 18, str(i + 1), "middle"))
        parts.append(_text(_LEFT, _HEIGHT - 2, "scored trials, in order"))
        return parts


def learning_curve(records: Sequence[TrialRecord]) -> str:
    """Every scored trial as a dot, the best so far as a line, baselines dashed."""
    done = [r for r in records if r.score is not None]
    scores = [r.score for r in done if r.score is not None]
    if not scores:
        return "<p>No trial is scored yet.</p>"
    axes = _Axes(len(scores), scores)
    parts = axes.grid()
    parts += _baseline_lines(done, axes)
    best = scores[0]
    steps: list[str] = []
    for i, score in enumerate(scores):
        if score > best and steps:
            steps.append(f"{axes.x(i):.1f},{axes.y(best):.1f}")
        best = max(best, score)
        steps.append(f"{axes.x(i):.1f},{axes.y(best):.1f}")
    parts.append(
        f'<polyline points="{" ".join(steps)}" fill="none" stroke="{_BEST}" '
        'stroke-width="2"/>'
    )
    for i, (record, score) in enumerate(zip(done, scores, strict=True)):
        title = html.escape(f"trial {record.number} {record.label}: {score:.4f}")
        parts.append(
            f'<circle cx="{axes.x(i):.1f}" cy="{axes.y(score):.1f}" r="3.5" '
            f'fill="{_TRIAL}"><title>{title}</title></circle>'
        )
    end = axes.y(best)
    parts.append(_text(_WIDTH - _RIGHT + 8, end + 4, f"best {best:.4f}"))
    return _svg(_HEIGHT, "Score of every trial and the best so far", parts)


def _baseline_lines(done: Sequence[TrialRecord], axes: _Axes) -> list[str]:
    names = [label for label, _ in BASELINES]
    lines = []
    for record in done:
        if record.label in names and record.score is not None:
            y = axes.y(record.score)
            lines.append(
                f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
                f'stroke="{_BASE}" stroke-dasharray="5 4"/>'
            )
            lines.append(_text(_WIDTH - _RIGHT + 8, y + 4, record.label))
    return lines


def weight_bars(point: Mapping[str, float]) -> str:
    """One bar a block, from 0 upwards (or downwards), with its value."""
    height, base = 230, 170
    low, high = min(0.0, *point.values()), max(1.0, *point.values())
    scale = (base - 20) / (high - low)
    zero = base + low * scale
    step = (_WIDTH - 20) / len(point)
    parts = [
        f'<line x1="10" x2="{_WIDTH - 10}" y1="{zero:.1f}" y2="{zero:.1f}" '
        f'stroke="{_INK}" stroke-opacity=".4"/>'
    ]
    for i, (name, value) in enumerate(point.items()):
        x = 10 + i * step
        top, size = zero - max(value, 0) * scale, abs(value) * scale
        parts.append(
            f'<rect x="{x + 2:.1f}" y="{top:.1f}" width="{step - 4:.1f}" '
            f'height="{max(size, 0.5):.1f}" fill="{_TRIAL}"><title>'
            f"{html.escape(name)} {value:.4f}</title></rect>"
        )
        middle = x + step / 2
        parts.append(
            f'<text x="{middle:.1f}" y="{top - 4:.1f}" font-size="9" '
            f'text-anchor="middle" fill="{_INK}">{value:.2f}</text>'
        )
        parts.append(
            f'<text transform="translate({middle + 4:.1f},{base + 8}) rotate(90)" '
            f'font-size="11" fill="{_INK}">{html.escape(name)}</text>'
        )
    return _svg(height, "Weight of every block of the best merge", parts)
