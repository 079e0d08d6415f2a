"""The report: one HTML file with curve, weights, held-out scores and pictures in it."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence
from pathlib import Path

from lib_merge.autombw import _svg
from lib_merge.autombw._files import write_bytes
from lib_merge.autombw.records import TrialRecord
from lib_merge.autombw.results import Candidate, StudyResult
from lib_merge.autombw.study import Study, open_study

N_TOP = 5
"""Trials shown with pictures."""

MAX_PICTURES = 24
"""Pictures shown of one trial or candidate."""

_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem}
table{border-collapse:collapse;margin:.6rem 0}
th,td{padding:.25rem .7rem;border-bottom:1px solid #8885;text-align:right}
th:first-child,td:first-child{text-align:left}
.num{font-variant-numeric:tabular-nums}.win{font-weight:600}
.shots{display:flex;flex-wrap:wrap;gap:.4rem;margin:.4rem 0 1rem}
figure{margin:0;width:8.5rem}figure img{width:100%;image-rendering:auto;display:block}
figcaption{font-size:.75rem;overflow-wrap:anywhere;opacity:.85}
svg{width:100%;height:auto;display:block}
.scroll{overflow-x:auto}code{font-size:.85em;overflow-wrap:anywhere}
"""


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
    result = study.result()
    records = study.records()
    name = html.escape(study.settings.name)
    parts = [
        f"<h1>AutoMBW study {name}</h1>",
        _summary(study, records, result),
        *([] if result is None else [_held_out(result), _pictures(study, result)]),
        "<h2>Learning curve</h2>",
        _svg.learning_curve(records),
        "<h2>Block weights</h2>",
        _weights(study, result),
        "<h2>Best trials</h2>",
        *(_trial(study, record) for record in _top(records)),
        *_failures(records),
        _settings(study),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>AutoMBW study {name}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _summary(
    study: Study, records: Sequence[TrialRecord], result: StudyResult | None
) -> str:
    n_done = sum(record.is_complete for record in records)
    hours = sum(record.seconds for record in records) / 3600
    text = f"{n_done} of {study.settings.n_trials} trials scored in {hours:.2f} hours."
    if result is None:
        best = study.best()
        if best is not None and best.score is not None:
            text += f" Best so far: trial {best.number} with {best.score:.4f}."
        return f"<p>{text} The finalists are not scored yet.</p>"
    verdicts = [verdict(result, rival.rival) for rival in result.differences]
    lines = [text, f"The winner is {result.winner}.", *verdicts]
    if result.checkpoint:
        lines.append(f"Saved as {result.checkpoint}.")
    if result.note:
        lines.append(result.note)
    return f"<p>{html.escape(' '.join(lines))}</p>"


def verdict(result: StudyResult, rival: str) -> str:
    """One honest sentence on winner against rival: difference, error, what it means."""
    found = next(d for d in result.differences if d.rival == rival)
    error = found.standard_error
    spread = "" if error is None else f" ± {error:.4f}"
    if error is None or abs(found.mean) < 2 * error:
        meaning = "which these pictures cannot tell from no difference"
    else:
        meaning = "better" if found.mean > 0 else "worse"
    return (
        f"Against {rival}: {found.mean:+.4f}{spread} a picture on held-out seeds, "
        f"{meaning} ({found.n_better} of {found.n_images} pictures higher)."
    )


def _held_out(result: StudyResult) -> str:
    rows = []
    against = {d.rival: d for d in result.differences}
    for one in sorted(result.candidates, key=lambda c: -c.score):
        error = one.standard_error
        found = against.get(one.label)
        paired = "" if found is None else f"{found.mean:+.4f}"
        if found is not None and found.standard_error is not None:
            paired += f" ± {found.standard_error:.4f}"
        search = "" if one.search_score is None else f"{one.search_score:.4f}"
        cells = [
            html.escape(one.label),
            f"{one.score:.4f}",
            "" if error is None else f"± {error:.4f}",
            str(len(one.images)),
            search,
            paired,
        ]
        mark = ' class="win"' if one.label == result.winner else ""
        rows.append(f"<tr{mark}>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>")
    heads = ("model", "score", "error", "pictures", "in the search", "winner minus it")
    head = "".join(f"<th>{text}</th>" for text in heads)
    return (
        "<h2>Held-out seeds</h2><p>Every model rendered the same prompts with seeds "
        "that the search never saw; errors are standard errors, the last column is "
        "paired picture by picture.</p>"
        f'<div class="scroll"><table class="num"><tr>{head}</tr>{"".join(rows)}'
        "</table></div>"
    )


def _pictures(study: Study, result: StudyResult) -> str:
    shown = [result.best, *(c for c in result.candidates if c is not result.best)]
    keep = [c for c in shown if c is result.best or c.label in ("A", "B", "uniform")]
    parts = [_candidate_shots(study, candidate) for candidate in keep]
    return "<h2>Pictures from held-out seeds</h2>" + "".join(parts)


def _candidate_shots(study: Study, candidate: Candidate) -> str:
    folder = study.held_out_dir / candidate.label.replace(" ", "_")
    figures = _figures(folder, candidate.images)
    title = html.escape(f"{candidate.label}: {candidate.score:.4f}")
    return f'<h3>{title}</h3><div class="shots">{figures}</div>'


def _figures(folder: Path, images: Sequence[object]) -> str:
    return "".join(_figure(folder, image) for image in images[:MAX_PICTURES])


def _figure(folder: Path, image: object) -> str:
    file, prompt = getattr(image, "file", ""), getattr(image, "prompt", "")
    score, seed = getattr(image, "score", 0.0), getattr(image, "seed", 0)
    caption = html.escape(f"{score:.3f} · {prompt[:80]} · seed {seed}")
    try:
        data = base64.b64encode((folder / file).read_bytes()).decode()
    except OSError:
        return f"<figure><figcaption>{caption} (picture deleted)</figcaption></figure>"
    return (
        f'<figure><img alt="{html.escape(prompt[:80], quote=True)}" '
        f'src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption>'
        "</figure>"
    )


def _weights(study: Study, result: StudyResult | None) -> str:
    best = study.best()
    point = result.best.point if result is not None else (best.point if best else {})
    if not point:
        return "<p>No trial is scored yet.</p>"
    letters = "0 is A, 1 is B"
    return f"<p>{letters}.</p>" + _svg.weight_bars(point)


def _top(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    scored = [record for record in records if record.score is not None]
    return sorted(scored, key=lambda r: (-(r.score or 0.0), r.number))[:N_TOP]


def _trial(study: Study, record: TrialRecord) -> str:
    label = f" ({record.label})" if record.label else ""
    title = html.escape(f"Trial {record.number}{label}: {record.score:.4f}")
    figures = _figures(study.trial_dir(record.number), record.images)
    return f'<h3>{title}</h3><div class="shots">{figures}</div>'


def _failures(records: Sequence[TrialRecord]) -> Iterator[str]:
    failed = [record for record in records if not record.is_complete]
    if failed:
        rows = "".join(
            f"<tr><td>{r.number}</td><td>{r.state}</td>"
            f'<td style="text-align:left">{html.escape(r.reason)}</td></tr>'
            for r in failed
        )
        yield (
            "<h2>Attempts without a score</h2><p>None of these counts as a low score."
            '</p><div class="scroll"><table><tr><th>trial</th><th>state</th><th>reason'
            f"</th></tr>{rows}</table></div>"
        )


def _settings(study: Study) -> str:
    settings = study.settings
    rows = {
        "method": f"{settings.method}, searching {settings.param}",
        "models": ", ".join(settings.models),
        "architecture": settings.arch_id,
        "scorer": settings.scorer,
        "tally": f"{settings.tally} over sigmoid(raw score)",
        "sampler": f"{settings.sampler}, seed {settings.seed}",
        "pictures": f"{settings.n_images} a trial, {settings.n_held_out_images} a "
        "candidate on held-out seeds",
        "precision": f"computed in {settings.compute_dtype}, "
        f"saved as {settings.save_dtype}",
    }
    rows |= {f"payload {p.name}": p.prompt for p in settings.payloads}
    cells = "".join(
        f'<tr><td>{html.escape(k)}</td><td style="text-align:left">'
        f"<code>{html.escape(v)}</code></td></tr>"
        for k, v in rows.items()
    )
    return f'<h2>Settings</h2><div class="scroll"><table>{cells}</table></div>'
