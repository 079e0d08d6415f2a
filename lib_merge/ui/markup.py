"""Small pieces of HTML: every text is escaped, every class begins with "merge-"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from lib_merge.ui.jobs import JobState, JobView

_UNITS = ("B", "kB", "MB", "GB", "TB")


def text(value: object) -> str:
    """A value as text that is safe inside HTML and inside an attribute."""
    return escape(str(value), quote=True)


def size(n_bytes: float) -> str:
    """Bytes for a reader: 2.13 GB."""
    value, unit = float(n_bytes), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}" if value < 1000 else f"{value:.0f} TB"


def duration(seconds: float) -> str:
    """Seconds for a reader: 45 s, 3 min 20 s, 7 h 05 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 trial, 2 trials."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def note(message: str) -> str:
    """A neutral line."""
    return f'<div class="merge-note">{text(message)}</div>'


MAX_HINTS = 3


def hints(sentences: Sequence[str]) -> str:
    """Small print; of many sentences the first few."""
    if not sentences:
        return ""
    n_more = len(sentences) - MAX_HINTS
    more = [f"And {n_more} more."] if n_more > 0 else []
    shown = lines([*sentences[:MAX_HINTS], *more])
    return f'<div class="merge-hints">{shown}</div>'


def empty(message: str) -> str:
    """What stands where something will appear."""
    return f'<div class="merge-empty">{text(message)}</div>'


def success(message: str) -> str:
    """A line that says what went well."""
    return f'<div class="merge-note merge-good" role="status">{text(message)}</div>'


def scroll(inner: str, label: str) -> str:
    """HTML in a box of limited height, which the keyboard can scroll, too."""
    return (
        f'<div class="merge-scroll" tabindex="0" role="region" '
        f'aria-label="{text(label)}">{inner}</div>'
    )


def notes(sentences: Iterable[str]) -> str:
    """Lines that say what went well."""
    return f'<div class="merge-note merge-good" role="status">{lines(sentences)}</div>'


def link(words: str, address: str, shown: str) -> str:
    """A line that leads to an address of this machine."""
    return (
        f'<div class="merge-note merge-good" role="status">{text(words)} '
        f'<a href="{text(address)}" target="_blank" rel="noopener">{text(shown)}</a>'
        "</div>"
    )


def errors(problems: Iterable[str]) -> str:
    """One or more problems, each a sentence."""
    return f'<div class="merge-note merge-bad" role="alert">{lines(problems)}</div>'


def lines(sentences: Iterable[str]) -> str:
    """Sentences below each other; no list, because hosts style lists their own way."""
    return "".join(f'<div class="merge-line">{text(s)}</div>' for s in sentences)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of texts."""
    head = "".join(f"<th>{text(cell)}</th>" for cell in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return (
        f'<table class="merge-table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def job(view: JobView | None) -> str:
    """A job: its bar while it runs, its result afterwards."""
    if view is None:
        return ""
    if view.state.is_active:
        return _running(view)
    if view.state is JobState.DONE:
        return success(f"{view.title}: {view.message}")
    if view.state is JobState.STOPPED:
        return note(f"{view.title}: {view.message}")
    return errors(view.message.splitlines() or [f"{view.title} failed."])


def bar(fraction: float | None, label: str) -> str:
    """A progress bar; without a fraction it only says that work goes on."""
    percent = 0.0 if fraction is None else 100 * min(max(fraction, 0.0), 1.0)
    busy = " merge-busy" if fraction is None else ""
    return (
        f'<div class="merge-bar{busy}" role="progressbar" aria-label="{text(label)}" '
        f'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent:.0f}">'
        f'<div class="merge-bar-fill" style="width:{percent:.1f}%"></div></div>'
    )


def _running(view: JobView) -> str:
    facts = [view.label or "starting"]
    if view.state is JobState.STOPPING:
        facts = ["stopping"]
    if view.fraction is not None:
        facts.append(f"{100 * view.fraction:.0f} %")
    if view.rate:
        is_bytes = view.unit == "B"
        rate = size(view.rate) if is_bytes else f"{view.rate:.3g} {view.unit}"
        facts.append(f"{rate}/s")
    if view.eta_s is not None:
        facts.append(f"{duration(view.eta_s)} left")
    line = text(" · ".join(facts))
    return (
        f'<div class="merge-job" data-merge-busy="1"><div class="merge-job-line">'
        f"<b>{text(view.title)}</b><span>{line}</span></div>"
        f"{bar(view.fraction, view.title)}</div>"
    )
