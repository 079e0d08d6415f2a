"""The report's parts that say what the unseen pictures found."""

from __future__ import annotations

import html
from collections.abc import Sequence

from lib_merge.autombw import _svg, _svg_maps
from lib_merge.autombw._album import Album
from lib_merge.autombw._report_style import folded, paragraph, section, table
from lib_merge.autombw.gaps import Overfit, gaps, overfit
from lib_merge.autombw.intervals import Interval
from lib_merge.autombw.leaderboard import is_baseline
from lib_merge.autombw.records import TrialRecord
from lib_merge.autombw.results import Candidate, StudyResult
from lib_merge.autombw.study import Study


def spread(one: Interval) -> str:
    """An interval's bounds in words."""
    if one.low is None or one.high is None:
        return ""
    return f"{one.low:.4f} to {one.high:.4f}"


def signed(one: Interval) -> str:
    """A difference with its bounds."""
    if one.low is None or one.high is None:
        return f"{one.estimate:+.4f}"
    return f"{one.estimate:+.4f} ({one.low:+.4f} to {one.high:+.4f})"


def verdict(result: StudyResult, rival: str) -> str:
    """One honest sentence on winner against rival: difference, error, what it means."""
    found = next(d for d in result.differences if d.rival == rival)
    if found.low is not None and found.high is not None:
        bounds = f" (95 %: {found.low:+.4f} to {found.high:+.4f})"
    else:
        error = found.standard_error
        bounds = "" if error is None else f" ± {error:.4f}"
    if not found.is_clear:
        meaning = "which these pictures cannot tell from no difference"
    else:
        meaning = "better" if found.mean > 0 else "worse"
    return (
        f"Against {rival}: {found.mean:+.4f}{bounds} a picture on held-out seeds, "
        f"{meaning} ({found.n_better} of {found.n_images} pictures higher)."
    )


def held_out(study: Study, result: StudyResult) -> str:
    """Every candidate's score on unseen seeds."""
    tally_id = study.settings.tally
    against = {d.rival: d for d in result.differences}
    ordered = sorted(result.candidates, key=lambda c: -c.score)
    rows, dots = [], []
    for one in ordered:
        found = one.interval(tally_id)
        delta = against.get(one.label)
        paired = ""
        if delta is not None:
            paired = signed(Interval(delta.mean, delta.low, delta.high))
        search = "" if one.search_score is None else f"{one.search_score:.4f}"
        cells = (one.label, f"{one.score:.4f}", spread(found), str(len(one.images)))
        rows.append((*cells, search, paired))
        dots.append((one.label, found, one.label == result.winner))
    place = [one.label for one in ordered].index(result.winner)
    heads = ("model", "score", "95 % interval", "pictures", "in the search")
    return section(
        "held-out",
        "Held-out seeds",
        paragraph(
            "Every model rendered the same prompts with seeds that the search never "
            "saw. Intervals are over pictures; the last column is paired picture by "
            "picture, which takes out what is hard for every model. The winner is the "
            "best of the finalists here, so its own score is a little too high."
        ),
        _svg.forest(dots, "Held-out score of every model"),
        table((*heads, "winner minus it"), rows, winner=place),
    )


def gap(result: StudyResult, records: Sequence[TrialRecord]) -> str:
    """Search score against held-out score, and the overfit to the prompts."""
    rows = [
        (g.label, f"{g.search:.4f}", f"{g.held_out:.4f}", signed(g.lost))
        for g in gaps(result, records)
    ]
    parts = [
        paragraph(
            "A search picks what scored well on its own pictures; part of that is "
            "luck. What a model loses on unseen seeds shows how much. Intervals are "
            "over prompts."
        ),
        table(("model", "in the search", "on unseen seeds", "lost"), rows),
    ]
    names = [c.label for c in result.candidates if is_baseline(c.label)]
    found = [overfit(result, name, records) for name in names]
    known = [one for one in found if one is not None]
    parts += [_overfit(one, is_drawn=one is known[0]) for one in known]
    return section("gap", "Training and held-out score", *parts) if rows else ""


def _overfit(found: Overfit, *, is_drawn: bool) -> str:
    words = (
        f"Over {found.rival} the winner gained {found.search:+.4f} in the search and "
        f"{found.held_out:+.4f} on unseen seeds of the same prompts; lost: "
        f"{signed(found.lost)}."
    )
    if found.kept is not None:
        words += f" It kept {max(0.0, found.kept):.0%} of its gain."
    if found.unseen is not None:
        words += (
            f" With prompts that the search never saw it gained {signed(found.unseen)}."
        )
    if not is_drawn:
        return paragraph(words)
    title = html.escape(f"Payload overfit: gain over {found.rival} by prompt")
    return f"<h3>{title}</h3>{paragraph(words)}{_svg_maps.gains(found)}"


def pictures(study: Study, result: StudyResult, album: Album) -> str:
    """The winner's and the parents' pictures of unseen seeds, in one order."""
    shown = sorted(result.candidates, key=lambda c: c is not result.best)
    keep = [c for c in shown if c is result.best or is_baseline(c.label)]
    parts = [_candidate(study, candidate, album) for candidate in keep]
    return section(
        "pictures",
        "Pictures from held-out seeds",
        paragraph("In every row the same prompts and seeds, in the same order."),
        *parts,
    )


def _candidate(study: Study, candidate: Candidate, album: Album) -> str:
    folder = study.held_out_dir / candidate.label.replace(" ", "_")
    title = html.escape(f"{candidate.label}: {candidate.score:.4f}")
    return f"<h3>{title}</h3>{album.shots(folder, candidate.images)}"


def failures(records: Sequence[TrialRecord]) -> str:
    """What gave no score, and why."""
    failed = [record for record in records if record.score is None]
    if not failed:
        return ""
    rows = [(str(r.number), r.state, r.reason) for r in failed]
    tracebacks = [
        folded(
            f"Traceback of trial {r.number}", f"<pre>{html.escape(r.traceback)}</pre>"
        )
        for r in failed
        if r.traceback
    ]
    return section(
        "failures",
        "Attempts without a score",
        paragraph("None of these counts as a low score."),
        table(("trial", "state", "reason"), rows, n_words=3),
        *tracebacks[:20],
    )
