"""HTML that the pages show: escaped, complete, in the right order."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

import pytest

from lib_merge.arch import architectures
from lib_merge.autombw.intervals import Interval
from lib_merge.autombw.leaderboard import CurvePoint
from lib_merge.autombw.records import TrialRecord
from lib_merge.core.blocks import BlockId
from lib_merge.methods import methods
from lib_merge.ui import charts, markup, widgets
from lib_merge.ui.blocks_view import EditorView, editor, u_rows
from lib_merge.ui.jobs import JobState, JobView
from lib_merge.ui.study_view import trial_table

ALPHA = methods().get("weighted_sum").param("alpha")


@pytest.mark.parametrize("arch_id", ["sd1", "sd2", "sdxl"])
def test_every_weighted_block_has_one_place_in_the_u(arch_id: str) -> None:
    arch = architectures().get(arch_id)
    placed = [block.id for row in u_rows(arch) for block in row if block is not None]
    assert sorted(placed) == sorted(block.id for block in arch.weighted_blocks())


def test_in_blocks_stand_beside_the_out_blocks_they_feed() -> None:
    rows = u_rows(architectures().get("sd1"))
    pairs = {a.id: b.id for a, b in rows if a and b}
    assert pairs["IN00"] == "OUT11"
    assert pairs["IN11"] == "OUT00"
    assert rows[-1][0] is not None
    assert rows[-1][0].id == "M00"


def test_editor_shows_own_values_and_the_main_value() -> None:
    arch = architectures().get("sd1")
    view = EditorView("alpha", "alpha", 0.25, {BlockId("IN04"): 0.7})
    shown = editor(arch, view, ALPHA)
    own = re.findall(r'merge-own" data-block="(\w+)"', shown)
    assert own == ["IN04"]
    assert 'aria-label="alpha of IN04">' in shown
    assert shown.count('value="0.25"') == 2 * (len(arch.weighted_blocks()) - 1) + 1


def test_editor_says_what_is_missing() -> None:
    assert "Choose the first model" in editor(None, None, ALPHA)
    assert "no parameter" in editor(None, None, None)


def test_text_from_outside_is_escaped() -> None:
    evil = "<img src=x onerror=alert(1)>"
    view = JobView(evil, JobState.FAILED, evil)
    assert "<img" not in markup.job(view)
    assert "<img" not in markup.errors([evil])
    running = JobView(evil, JobState.RUNNING, "", label=evil, fraction=0.5)
    assert "<img" not in markup.job(running)
    record = TrialRecord(1, 1, 0, evil, {"IN00": 0.5}, "failed", reason=evil)
    assert "<img" not in trial_table([record])
    point = CurvePoint(1, evil, 0.5, is_estimate=False, best=Interval(0.5))
    assert "<img" not in charts.score_curve([point], 3, [(evil, 0.4)])
    assert "<img" not in charts.block_plan({evil: 0.5}, {evil: 0.5})


def test_running_job_shows_rate_and_time_left() -> None:
    view = JobView(
        "Merge and save",
        JobState.RUNNING,
        "",
        label="merging",
        fraction=0.25,
        rate=2.5e9,
        eta_s=75.0,
    )
    shown = markup.job(view)
    assert "25 %" in shown
    assert "2.5 GB/s" in shown
    assert "1 min 15 s left" in shown


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (2_132_000_000, "2.13 GB"), (5e15, "5000 TB")],
)
def test_sizes_are_short(n_bytes: float, text: str) -> None:
    assert markup.size(n_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.6, "1 min 00 s"), (3600, "1 h 00 min"), (25500, "7 h 05 min")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert markup.duration(seconds) == text


def points(scores: Sequence[float | None]) -> list[CurvePoint]:
    """A curve of whole trials, 0.1 of luck to each side of the best."""
    found: list[CurvePoint] = []
    best: Interval | None = None
    for number, score in enumerate(scores):
        if score is not None and (best is None or score > best.estimate):
            best = Interval(score, score - 0.1, score + 0.1)
        found.append(CurvePoint(number, "", score, is_estimate=False, best=best))
    return found


def test_curve_holds_a_dot_for_each_score_and_a_line_for_each_parent() -> None:
    scores = points([0.1, None, 0.3, 0.2])
    shown = charts.score_curve(scores, 10, [("A", 0.1), ("B", 0.05)])
    assert shown.count("<circle") == 3
    assert shown.count('class="merge-base"') == 2
    assert shown.count('class="merge-band"') == 1
    assert "best 0.3000" in shown


def test_long_curve_is_drawn_in_few_letters() -> None:
    shown = charts.score_curve(points([i / 5000 for i in range(1000)]), 1000, [])
    assert len(shown) < 80_000
    assert shown.count("h0") == 1000


def test_curve_without_a_score_says_so() -> None:
    assert "<svg" not in charts.score_curve(points([None, None]), 10, [])


@pytest.mark.parametrize("scores", [[0.5], [0.5, 0.5], [0.0, 0.0], [-3.0, 1e-9]])
def test_curve_stays_inside_for_flat_and_single_scores(scores: list[float]) -> None:
    shown = charts.score_curve(points(scores), 1, [])
    ys = [float(y) for y in re.findall(r'cy="([-\d.]+)"', shown)]
    assert all(0 <= y <= charts.HEIGHT for y in ys)
    band = re.findall(r" (-?[\d.]+)[LZ]", shown)
    assert all(0 <= float(y) <= charts.HEIGHT for y in band)


@pytest.mark.parametrize("arch_id", ["sd1", "sdxl", "sd3_medium"])
def test_plan_shows_every_axis_once(arch_id: str) -> None:
    blocks = architectures().get(arch_id).weighted_blocks()
    point = {str(block.id): 0.5 for block in blocks} | {"beta": 0.2, "IN00+OUT11": 1.0}
    shown = charts.block_plan(point, {"beta": 1.0})
    names = re.findall(r"<span>([^<]+)</span>", shown)
    assert sorted(names) == sorted(point)
    assert shown.count("--merge-share:0.75") == 1


def test_table_shows_the_best_and_the_latest_only() -> None:
    records = [
        TrialRecord(n, n, 0, "", {"IN00": 0.5}, "complete", score=n / 1000)
        for n in range(1000)
    ]
    shown = trial_table(records)
    assert shown.count("<tr>") == 1 + 24
    assert "976 more" in shown
    assert len(shown) < 20_000


def test_every_method_has_line_formula_and_source() -> None:
    for method in methods():
        shown = widgets.explanation(method)
        assert method.doc.partition("\n")[0] in html.unescape(shown)
        assert "<code>" in shown
    assert 'href="https://arxiv.org/abs/2212.04089"' in widgets.explanation(
        methods().get("add_difference")
    )


def test_help_of_inputs_comes_from_the_docstring() -> None:
    method = methods().get("add_difference")
    assert widgets.input_help(method, 0) == "The model that receives the difference"
    assert widgets.input_help(method, 2) == "The model that B was trained from"
    assert widgets.input_help(methods().get("weighted_sum"), 0) == ""
