"""Settings, folders, listing, the whole way of one study, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib_merge.autombw.exports import RECIPE_TXT_ORDER, recipe_txt
from lib_merge.autombw.payloads import Payload
from lib_merge.autombw.report import verdict, write_report
from lib_merge.autombw.results import Candidate, StudyResult, difference
from lib_merge.autombw.runner import StudyRunner
from lib_merge.autombw.search import SAMPLERS
from lib_merge.autombw.settings import StudySettings, shots
from lib_merge.autombw.snapshot import Snapshot
from lib_merge.autombw.space import BlockRange, Space
from lib_merge.autombw.study import (
    Study,
    create_study,
    extend_study,
    find_study,
    list_studies,
    live_snapshot,
    open_study,
)
from lib_merge.autombw.tally import TALLIES
from lib_merge.core.blocks import BlockId
from lib_merge.core.recipe import Recipe
from lib_merge.errors import OutputError, StudyError, UnknownIdError
from tests.support.fake_scorer import FakeScorer
from tests.support.fake_study_host import BLOCKS, FakeStudyHost, fake_settings, quality

Make = Callable[..., Study]
Run = Callable[[Study], StudyRunner]

names = st.text("abcXYZ019-_. é", min_size=1, max_size=20).filter(
    lambda text: any(c.isalnum() for c in text)
)
payloads = st.builds(
    Payload,
    name=names,
    prompt=st.text(min_size=1).filter(lambda t: bool(t.strip())),
    seed=st.integers(-1, 2**32 - 1),
    n_iter=st.integers(1, 4),
    cfg_scale=st.floats(0, 30),
    reverse_scoring=st.booleans(),
)
limits = st.tuples(st.floats(-1, 2), st.floats(-1, 2)).map(sorted)


@settings(max_examples=40, deadline=None)
@given(
    name=names,
    payload=st.lists(payloads, min_size=1, max_size=3),
    limits=st.lists(limits, min_size=1, max_size=8),
    sampler=st.sampled_from(sorted(SAMPLERS)),
    tally=st.sampled_from(sorted(TALLIES)),
    n_trials=st.integers(1, 999),
    checkpoint=st.none() | st.just("o.safetensors"),
)
def test_settings_round_trip_through_json(
    name: str,
    payload: list[Payload],
    limits: list[list[float]],
    sampler: str,
    tally: str,
    n_trials: int,
    checkpoint: str | None,
) -> None:
    """Written to text and read again they are equal."""
    ranges = tuple(
        BlockRange(BlockId(block), low, high)
        for block, (low, high) in zip(BLOCKS, limits, strict=False)
    )
    if all(r.is_fixed for r in ranges):
        ranges = (*ranges, BlockRange(BlockId("extra")))
    chosen = fake_settings(
        name=name,
        payloads=tuple(payload),
        ranges=ranges,
        sampler=sampler,
        tally=tally,
        n_trials=n_trials,
        checkpoint=checkpoint,
    )
    text = json.dumps(chosen.to_json())
    assert StudySettings.from_json(json.loads(text)) == chosen


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"payloads": ()}, "at least one payload"),
        ({"models": ("a",)}, "at least two models"),
        ({"ranges": (BlockRange(BlockId("M00"), 0.5, 0.5),)}, "Every block is fixed"),
        ({"n_trials": 0}, "n_trials is 0; it must be at least 1"),
        ({"compute_dtype": "float16"}, "Precision float16"),
        ({"save_dtype": "int8"}, "Save type int8"),
    ],
    ids=["payloads", "models", "fixed", "trials", "precision", "save"],
)
def test_settings_that_cannot_run_are_refused(
    changes: dict[str, object], message: str
) -> None:
    """Before there is a folder."""
    with pytest.raises(StudyError, match=message):
        fake_settings(**changes)


def test_unknown_sampler_tally_and_name_are_refused() -> None:
    """With what is known, or what to do."""
    with pytest.raises(UnknownIdError, match="Unknown sampler 'anneal'; use one of: g"):
        fake_settings(sampler="anneal")
    with pytest.raises(UnknownIdError, match="Unknown tally"):
        fake_settings(tally="x")
    with pytest.raises(OutputError, match="cannot name a study"):
        fake_settings(name="///")
    with pytest.raises(StudyError, match=r"Block M00: the range 1 to 0 is no range"):
        BlockRange(BlockId("M00"), 1.0, 0.0)


def test_all_problems_are_reported_at_once() -> None:
    """Not one after the other."""
    with pytest.raises(StudyError, match=r"payload(.|\n)*two models(.|\n)*n_seeds is"):
        fake_settings(payloads=(), models=(), n_seeds=0)


def test_start_points_are_moved_into_the_ranges_and_not_repeated() -> None:
    """All A, all B, 0.5; clamped ones are called near."""
    free = (BlockRange(BlockId("IN00")), BlockRange(BlockId("M00")))
    assert [s.label for s in Space(free).start_points()] == ["A", "B", "uniform"]
    assert Space(free).start_points()[2].point == {"IN00": 0.5, "M00": 0.5}
    tight = (BlockRange(BlockId("IN00"), 0.6, 0.9), BlockRange(BlockId("M00"), 0.2, 1))
    assert [(s.label, s.point) for s in Space(tight).start_points()] == [
        ("near A", {"IN00": 0.6, "M00": 0.2}),
        ("near B", {"IN00": 0.9, "M00": 1.0}),
        ("near uniform", {"IN00": 0.6, "M00": 0.5}),
    ]
    same = (BlockRange(BlockId("IN00"), 1.0, 2.0),)
    assert len(Space(same).start_points()) == 1


def test_held_out_seeds_are_none_of_the_search() -> None:
    """And every candidate has the same ones."""
    study = fake_settings(n_seeds=3, n_held_out=4)
    searched = {(s.payload.name, s.request.seed) for s in shots(study)}
    held_out = {
        (s.payload.name, s.request.seed) for s in shots(study, is_held_out=True)
    }
    assert len(searched) == study.n_images == 9
    assert len(held_out) == study.n_held_out_images == 12
    assert not searched & held_out
    files = [s.file for s in shots(study)]
    assert len(set(files)) == 9
    assert files[0] == "p00_s0.png"


@pytest.fixture
def done(make_study: Make, run: Run, host: FakeStudyHost) -> Study:
    """A finished study of the default sampler."""
    study = make_study(sampler="tpe", n_trials=14, n_held_out=2)
    run(study)
    return open_study(study.folder)


def test_finished_study_keeps_everything(done: Study, host: FakeStudyHost) -> None:
    """Folder, records, pictures, exports; the user's model is back."""
    present = {path.name for path in done.folder.iterdir()}
    assert {
        "settings.json",
        "journal.log",
        "trials",
        "held_out",
        "result.json",
        "best.recipe.json",
        "recipe.txt",
        "trials.csv",
        "report.html",
    } <= present
    records = done.records()
    assert len(records) == 14
    assert [r.label for r in records[:4]] == ["A", "B", "uniform", ""]
    for record in records:
        folder = done.trial_dir(record.number)
        assert len(record.images) == 3
        for image in record.images:
            with Image.open(folder / image.file) as picture:
                assert picture.size == (16, 16)
    assert host.loader.loaded() == Path("users_own.safetensors")
    assert host.loader.weights is None
    assert not done.is_running()


def test_scores_are_the_landscapes_own(done: Study) -> None:
    """Raw is what the pixels held, score its sigmoid, the trial's their mean."""
    import math
    import statistics

    for record in done.records():
        for image in record.images:
            expected = quality(record.point, image.seed)
            assert image.raw == pytest.approx(expected, abs=1e-5)
            assert image.score == pytest.approx(1 / (1 + math.exp(-image.raw)))
        mean = statistics.fmean(image.score for image in record.images)
        assert record.score == pytest.approx(mean, abs=1e-12)


def test_result_names_the_best_finalist_on_held_out_seeds(done: Study) -> None:
    """With paired differences to the parents and the uniform merge."""
    result = done.result()
    assert result is not None
    finalists = [c for c in result.candidates if c.is_finalist]
    assert len(finalists) == 5
    assert result.best.score == max(c.score for c in finalists)
    assert {"A", "B", "uniform"} <= {c.label for c in result.candidates}
    for rival in result.differences:
        other = result.candidate(rival.rival)
        assert rival.mean == pytest.approx(result.best.mean - other.mean, abs=1e-12)
        assert rival.n_images == 6
    better = result.candidate("A").score < result.best.score
    assert better
    assert result.best.score > result.candidate("B").score
    recipe = Recipe.from_json(json.loads(done.recipe_path.read_text()))
    assert recipe == done.settings.recipe(result.best.point)
    assert StudyResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_scorer_reads_clean_prompts(
    make_study: Make, scorer: FakeScorer, run: Run
) -> None:
    """Emphasis is for the text encoder."""
    run(make_study(n_trials=1))
    assert set(scorer.prompts) == {"a cat", "a dog"}


def test_reversed_payload_counts_the_other_way(make_study: Make, run: Run) -> None:
    """reverse_scoring is honoured, the raw value kept."""
    payload = Payload(name="x", prompt="x", seed=1, reverse_scoring=True)
    study = make_study(payloads=(payload,), n_trials=1)
    run(study)
    (record,) = study.records()
    raw = record.images[0].raw
    assert (raw < 0) == (record.images[0].score > 0.5)


def test_finished_study_run_again_renders_nothing(
    done: Study, host: FakeStudyHost, run: Run
) -> None:
    """Its result is simply there."""
    n_rendered = host.renderer.n_rendered
    assert run(done).snapshot().state == "complete"
    assert host.renderer.n_rendered == n_rendered


def test_extended_study_adds_trials_to_those_it_has(
    done: Study, host: FakeStudyHost, run: Run
) -> None:
    """More trials, then the finalists that are new."""
    before = done.records()
    run(extend_study(done, 16))
    after = open_study(done.folder)
    assert after.records()[:14] == before
    assert len(after.records()) == 16
    with pytest.raises(StudyError, match="can be raised, not lowered to 3"):
        extend_study(after, 3)


def test_interrupted_finals_go_on_where_they_stopped(
    make_study: Make, host: FakeStudyHost, scorer: FakeScorer, run: Run
) -> None:
    """Candidates that were measured are not measured again."""
    from lib_merge.errors import Cancelled

    study = make_study(n_trials=6)

    def accident(n_rendered: int) -> None:
        if n_rendered >= 6 * 3 + 2 * 6:
            raise Cancelled("enough")

    host.renderer.before_render = accident
    assert run(study).snapshot().state == "stopped"
    n_before = host.renderer.n_rendered
    host.renderer.before_render = None
    run(study)
    result = study.result()
    assert result is not None
    assert len(result.candidates) >= 6
    assert host.renderer.n_rendered - n_before == (len(result.candidates) - 2) * 6


def test_live_snapshot_is_readable_by_others(done: Study) -> None:
    """What the runner said last, as JSON."""
    last = live_snapshot(done)
    assert last is not None
    assert last.state == "complete"
    assert last.trial == last.n_trials == 14
    assert len(last.scores) == 14
    assert dict(last.baselines).keys() == {"A", "B", "uniform"}
    assert Path(last.last_image).is_file()
    assert Snapshot.from_json(json.loads(json.dumps(last.to_json()))) == last


def test_listing_and_finding_studies(
    done: Study, make_study: Make, tmp_path: Path
) -> None:
    """By name or folder; damaged ones are listed as such."""
    make_study(name="other")
    broken = tmp_path / "studies" / "broken"
    broken.mkdir()
    (broken / "settings.json").write_text("{")
    found = {s.name: (s.state, s.n_complete) for s in list_studies(tmp_path)}
    assert found == {
        "fake": ("complete", 14),
        "other": ("new", 0),
        "broken": ("damaged", 0),
    }
    assert find_study(tmp_path, "other").settings.name == "other"
    assert find_study(tmp_path, str(done.folder)).settings == done.settings
    with pytest.raises(StudyError, match=r"no study 'third'.* Known: .*fake"):
        find_study(tmp_path, "third")
    with pytest.raises(StudyError, match=r"exists in .*; resume it, or choose"):
        create_study(tmp_path, fake_settings(name="other"))
    with pytest.raises(StudyError, match="holds no study"):
        open_study(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds no MergeLab study settings"),
        ('{"format": "mergelab-study", "version": 9}', "version 9"),
        ('{"format": "mergelab-study", "version": 1}', "is damaged"),
        ("nothing", "cannot be read"),
    ],
)
def test_settings_file_that_is_none_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    """One clear error."""
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(StudyError, match=message):
        open_study(tmp_path)


def test_recipe_txt_has_the_published_order() -> None:
    """27 weights: IN, M00, OUT00.., OUT, TIME_EMBED; other blocks by name."""
    study = fake_settings()
    point = {"CLIP_L": 0.25, "TIME_EMBED": 0.9, "OUT": 0.8, "IN01": 0.1, "OUT01": 0.7}
    lines = recipe_txt(study, point).splitlines()
    assert lines[0] == "modelA=model_a.safetensors"
    assert lines[1] == "modelB=model_b.safetensors"
    assert "CLIP_L=0.25" in lines
    weights = lines[-1].split(",")
    assert len(weights) == len(RECIPE_TXT_ORDER) == 27
    assert (weights[1], weights[14], weights[25], weights[26]) == (
        "0.1",
        "0.7",
        "0.8",
        "0.9",
    )


class Page(HTMLParser):
    """Collects tags, and complains about what is not closed."""

    VOID = frozenset({"meta", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_is_one_whole_page_without_any_other_file(done: Study) -> None:
    """Well-formed, pictures inside, no script, nothing from anywhere."""
    page = Page()
    text = done.report_path.read_text()
    page.feed(text)
    page.close()
    assert page.open == []
    links = [a for _, attrs in page.tags for a in ("src", "href") if a in attrs]
    sources = [str(attrs["src"]) for _, attrs in page.tags if "src" in attrs]
    assert len(links) == len(sources) > 20
    assert all(s.startswith("data:image/png;base64,iVBOR") for s in sources)
    kinds = {tag for tag, _ in page.tags}
    assert not kinds & {"script", "link", "iframe", "object"}
    assert {"svg", "polyline", "rect", "table"} <= kinds
    result = done.result()
    assert result is not None
    assert f"{result.best.score:.4f}" in text


def test_report_escapes_what_users_typed(make_study: Make, run: Run) -> None:
    """A prompt is text, not markup."""
    payload = Payload(name="<b>", prompt="<script>alert(1)</script> & co", seed=1)
    study = make_study(payloads=(payload,), n_trials=2)
    run(study)
    text = study.report_path.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_report_of_a_study_without_trials_is_written(make_study: Make) -> None:
    """It says so."""
    study = make_study()
    text = write_report(study.folder).read_text()
    assert "No trial is scored yet" in text
    assert "The finalists are not scored yet" in text


def result_of(winner: list[float], rival: list[float]) -> StudyResult:
    """A result of a winner against A."""
    from lib_merge.autombw.records import ImageScore

    def candidate(label: str, scores: list[float], number: int | None) -> Candidate:
        images = tuple(
            ImageScore(str(i), "p", 0, "x", {"fake": 0.0}, score)
            for i, score in enumerate(scores)
        )
        return Candidate(label, number, {}, None, sum(scores) / len(scores), images)

    best, other = candidate("trial 7", winner, 7), candidate("A", rival, None)
    return StudyResult((best, other), "trial 7", (difference(best, other),), 1.0)


@pytest.mark.parametrize(
    ("winner", "rival", "meaning"),
    [
        ([0.5, 0.6, 0.7], [0.1, 0.21, 0.3], "better"),
        ([0.1, 0.21, 0.3], [0.5, 0.6, 0.7], "worse"),
        ([0.5, 0.1, 0.7], [0.1, 0.5, 0.69], "cannot tell from no difference"),
        ([0.5], [0.1], "cannot tell from no difference"),
    ],
    ids=["better", "worse", "unclear", "one-picture"],
)
def test_verdict_says_no_more_than_the_pictures_do(
    winner: list[float], rival: list[float], meaning: str
) -> None:
    """Two standard errors of the paired difference, or it is unclear."""
    assert meaning in verdict(result_of(winner, rival), "A")


def test_paired_difference_by_hand() -> None:
    """Deltas 0.1, 0.3: mean 0.2, standard error 0.1."""
    (found,) = result_of([0.5, 0.8], [0.4, 0.5]).differences
    assert found.mean == pytest.approx(0.2)
    assert found.standard_error == pytest.approx(0.1)
    assert (found.n_images, found.n_better) == (2, 2)


def test_checkpoint_that_cannot_be_saved_keeps_the_result(
    make_study: Make, run: Run, tmp_path: Path
) -> None:
    """The models of the fake host are no files: the note says what went wrong."""
    study = make_study(n_trials=3, checkpoint=str(tmp_path / "o.safetensors"))
    run(study)
    result = study.result()
    assert result is not None
    assert result.checkpoint is None
    assert "The checkpoint was not saved: " in result.note
    assert not list(tmp_path.glob("*.safetensors"))


def test_records_survive_a_damaged_one(done: Study) -> None:
    """One unreadable file hides one trial, not the study."""
    path = done.trial_dir(5) / "record.json"
    path.write_text("{")
    assert len(open_study(done.folder).records()) == 13


def test_trials_of_another_seed_differ(make_study: Make, run: Run) -> None:
    """The seed is the sampler's."""
    one, two = make_study(name="one"), make_study(name="two", seed=4)
    run(one)
    run(two)
    assert one.records()[3].point != two.records()[3].point
    assert replace(one.settings, seed=4, name="two") == two.settings
