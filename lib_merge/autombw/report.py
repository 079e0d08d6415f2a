"""The report: one HTML file with scores, curves, weights and pictures in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lib_merge.autombw import _report_parts, _report_search
from lib_merge.autombw._album import Album
from lib_merge.autombw._files import write_bytes
from lib_merge.autombw._report_parts import verdict
from lib_merge.autombw._report_style import facts, page, paragraph
from lib_merge.autombw.leaderboard import baselines, is_estimate, ranked
from lib_merge.autombw.records import TrialRecord
from lib_merge.autombw.results import StudyResult
from lib_merge.autombw.study import Study, open_study

__all__ = ["report_html", "verdict", "write_report"]


def write_report(folder: Path) -> Path:
    """Write report.html into a study's folder; it needs no other file and no script.

    Args:
        folder: The study's folder; the study may still be running.

    Returns:
        The report's path.

    Raises:
        StudyError: The folder holds no study.
        DiskFullError: No room; an earlier report stays.
    """
    study = open_study(folder)
    write_bytes(study.report_path, report_html(study).encode("utf-8"))
    return study.report_path


def report_html(study: Study) -> str:
    """The whole report as one HTML document."""
    result, records = study.result(), study.records()
    album = Album()
    parts = []
    if result is not None:
        parts.append(_report_parts.held_out(study, result))
        parts.append(_report_parts.pictures(study, result, album))
        parts.append(_report_parts.gap(result, records))
    parts.append(_report_search.curve(study, records))
    point, title = _best_point(records, result)
    if point:
        parts.append(_report_search.weights(point, title))
    parts.append(_report_search.axes(records))
    parts.append(_report_search.leaderboard(study, records, album))
    parts.append(_report_search.rungs(study, records))
    parts.append(_report_search.diversity(records))
    parts.append(_report_parts.failures(records))
    parts.append(_report_search.settings(study))
    if point:
        parts.append(_report_search.recipe(study, point))
    if album.n_left_out:
        words = f"{album.n_left_out} pictures were left out to keep this file small."
        parts.append(paragraph(words, "soft"))
    name = f"AutoMBW study {study.settings.name}"
    return page(name, [_summary(study, records, result), *parts])


def _best_point(
    records: Sequence[TrialRecord], result: StudyResult | None
) -> tuple[Mapping[str, float], str]:
    if result is not None:
        return result.best.point, f"Block weights of the winner, {result.winner}"
    best = next(iter(ranked(records)), None)
    if best is None:
        return {}, ""
    return best.point, f"Block weights of the best so far, trial {best.number}"


def _summary(
    study: Study, records: Sequence[TrialRecord], result: StudyResult | None
) -> str:
    done = ranked(records)
    n_guesses = sum(is_estimate(record) for record in records)
    hours = sum(record.seconds for record in records) / 3600
    more = f", {n_guesses} given up early or screened" if n_guesses else ""
    text = (
        f"{len(done)} of {study.settings.n_trials} trials scored whole{more}, in "
        f"{hours:.2f} hours."
    )
    cells = []
    if done:
        label = f" ({done[0].label})" if done[0].label else ""
        shown = f"trial {done[0].number}{label}"
        cells.append(("best in the search", f"{done[0].score:.4f}", shown))
    for label, record in baselines(records):
        cells.append((label, f"{record.score:.4f}", "in the search"))
    if result is None:
        text += " The finalists are not scored yet."
        return facts(cells) + paragraph(text)
    rows = [("winner, unseen seeds", f"{result.best.score:.4f}", result.winner), *cells]
    lines = [text, f"The winner is {result.winner}."]
    if result.checkpoint:
        lines.append(f"Saved as {result.checkpoint}.")
    if result.note:
        lines.append(result.note)
    verdicts = [paragraph(verdict(result, d.rival)) for d in result.differences]
    return facts(rows) + paragraph(" ".join(lines)) + "".join(verdicts)
