"""Published runs as finished studies; clones, comparison, deletion; exports back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lib_merge.autombw.exports import (
    autombw_csv,
    chosen_point,
    history_head,
    history_row,
    recipe_txt,
    trials_csv,
)
from lib_merge.autombw.manage import clone_study, compare_studies, delete_study
from lib_merge.autombw.old_runs import OldRow, OldSource, import_run, resolved
from lib_merge.autombw.report import write_report
from lib_merge.autombw.runner import StudyRunner
from lib_merge.autombw.settings import StudySettings
from lib_merge.autombw.space import BlockRange
from lib_merge.autombw.study import Study, find_study, list_studies, open_study
from lib_merge.core.blocks import BlockId
from lib_merge.core.recipe import Recipe
from lib_merge.errors import InputError, StudyError
from lib_merge.formats.autombw_csv import OldRun, read_csv, read_history, read_run
from tests.formats.test_autombw_csv import FIGURES, RUNS
from tests.support.fake_scorer import FakeScorer
from tests.support.fake_study_host import FakeStudyHost, fake_settings

Make = Callable[..., Study]
Run = Callable[[Study], StudyRunner]


def imported(tmp_path: Path, run: OldRun, arch_id: str = "sd1") -> Study:
    """A run as a study."""
    rows = [OldRow(trial.weights, trial.score) for trial in run.trials]
    models = ("a.safetensors", "b.safetensors")
    if run.recipe is not None:
        models = (run.recipe.models[0], run.recipe.models[1])
    source = OldSource("run.csv", models, arch_id, seconds=run.seconds)
    return import_run(tmp_path, run.name, rows, source)


@pytest.mark.parametrize("path", sorted(RUNS.glob("*.csv")), ids=lambda p: p.name[:4])
def test_published_run_is_a_finished_study_with_its_figures(
    path: Path, tmp_path: Path
) -> None:
    run = read_run(path)
    arch = "sd2" if len(run.name.split("b-")[0]) == 3 else "sd1"
    imported(tmp_path, run, arch)
    study = find_study(tmp_path, run.name)
    n, first, score, row, seconds = FIGURES[run.name.split("-")[0]]
    best, records = study.best(), study.records()
    assert best is not None
    assert (len(records), best.number) == (n, row)
    assert best.score == pytest.approx(score, abs=6e-5)
    assert records[0].score == pytest.approx(first, abs=6e-5)
    assert sum(r.seconds for r in records) / n == pytest.approx(seconds, abs=1.5)
    assert run.recipe is not None
    assert dict(best.point) == dict(run.recipe.weights)
    assert study.summary().state == "imported"
    # Back in AutoMBW's own forms it reads as it came.
    back = tmp_path / path.name
    back.write_text(autombw_csv(study), encoding="utf-8")
    again = read_csv(back)
    assert [t.score for t in again.trials] == [t.score for t in run.trials]
    assert [dict(t.weights) for t in again.trials] == [
        dict(t.weights) for t in run.trials
    ]
    back.with_name(f"{run.name}.recipe.txt").write_text(
        recipe_txt(study.settings, best.point), encoding="utf-8"
    )
    joined = read_run(back)
    assert joined.notes == ()
    assert joined.recipe is not None
    assert joined.recipe.models == run.recipe.models


@pytest.fixture
def old(tmp_path: Path) -> Study:
    """One published run, imported."""
    path = next(p for p in RUNS.glob("*.csv") if p.name.startswith("10b"))
    return imported(tmp_path, read_run(path))


def test_imported_study_says_where_it_is_from_and_cannot_be_run(
    old: Study, tmp_path: Path
) -> None:
    (summary,) = list_studies(tmp_path)
    assert (summary.state, summary.n_complete) == ("imported", 28)
    runner = StudyRunner(FakeStudyHost(tmp_path), old, FakeScorer())
    with pytest.raises(StudyError, match=r"was imported from run.csv and has no"):
        runner.run()
    with pytest.raises(StudyError, match="cannot be cloned"):
        clone_study(tmp_path, old, "again")


def test_report_of_an_imported_study_has_its_curve_and_no_pictures(old: Study) -> None:
    text = write_report(old.folder).read_text(encoding="utf-8")
    assert "28 of 28 trials scored whole" in text
    assert '<h2 id="curve">' in text
    assert "<img" not in text
    assert "unknown (weight 1)" in text


def test_recipe_of_an_imported_trial_merges_what_the_run_merged(old: Study) -> None:
    data = json.loads(old.recipe_path.read_text(encoding="utf-8"))
    recipe = Recipe.from_json(data)
    assert recipe == old.settings.recipe(chosen_point(old))
    assert chosen_point(old, 3) == old.records()[3].point
    with pytest.raises(StudyError, match="no finished trial 99; it has: 0 to 27"):
        chosen_point(old, 99)


def test_blocks_that_sdxl_lacks_are_dropped(tmp_path: Path) -> None:
    run = read_csv(next(p for p in RUNS.glob("*.csv") if p.name.startswith("10b")))
    study = imported(tmp_path, run, "sdxl")
    names = {str(r.block) for r in study.settings.ranges}
    assert len(names) == 21
    assert not names & {"IN09", "OUT09", "LABEL_EMB", "CLIP_L"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no trial"),
        ([OldRow({"IN00": 0.5}, float("nan"))], "trial 1: every trial"),
        ([OldRow({"IN00": 1}, 1), OldRow({"M00": 1}, 1)], "trial 2: every trial"),
        ([OldRow({"X": 0.5}, 0.5)], "names no block of Stable Diffusion 1"),
    ],
    ids=["none", "nan", "unequal", "foreign"],
)
def test_bad_rows_leave_nothing_behind(
    rows: list[OldRow], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        import_run(tmp_path, "x", rows, OldSource("f.csv", ("a", "b"), "sd1"))
    assert list_studies(tmp_path) == ()


def test_models_are_found_by_their_names(tmp_path: Path) -> None:
    paths = [tmp_path / "_05a-X.safetensors", tmp_path / "other.safetensors"]
    assert resolved(["_05a-x.ckpt", "gone.safetensors"], paths) == (
        str(paths[0]),
        "gone.safetensors",
    )


def test_clone_has_the_settings_and_starts_from_the_chosen_trial(
    make_study: Make, run: Run, tmp_path: Path
) -> None:
    study = make_study(n_trials=5)
    run(study)
    point = chosen_point(study, 4)
    clone = clone_study(tmp_path, study, "next", start=point, label="trial 4 of fake")
    assert clone.records() == ()
    assert clone.settings.starts[0].point == point
    run(clone)
    records = open_study(clone.folder).records()
    assert records[3].label == "trial 4 of fake"
    assert records[3].point == point


def test_comparison_pairs_winners_that_rendered_the_same_pictures(
    make_study: Make, run: Run
) -> None:
    one = make_study(name="one", n_trials=5)
    two = make_study(name="two", n_trials=9)
    run(one)
    found = compare_studies(one, two)
    assert found.winners is None
    assert found.why_not.startswith("Not both have scored")
    run(two)
    found = compare_studies(one, two)
    assert found.settings == (("n_trials", "5", "9"),)
    assert found.winners is not None
    results = one.result(), two.result()
    assert results[0] is not None
    assert results[1] is not None
    delta = results[0].best.score - results[1].best.score
    assert found.winners.estimate == pytest.approx(delta)
    assert [side.n_whole for side in found.sides] == [5, 9]
    assert len(found.points) == 8
    other = make_study(name="three", n_trials=5, n_held_out=1)
    run(other)
    assert "prompts or seeds" in compare_studies(one, other).why_not


def test_delete_removes_the_folder_and_refuses_while_it_runs(
    make_study: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study()
    monkeypatch.setattr(Study, "is_running", lambda _: True)
    with pytest.raises(StudyError, match="is running; stop it"):
        delete_study(study)
    monkeypatch.undo()
    delete_study(study)
    assert list(study.folder.parent.iterdir()) == []


def test_tables_of_tied_blocks_give_every_block_its_value(
    make_study: Make, run: Run
) -> None:
    ranges = (
        BlockRange(BlockId("IN00"), group="downs"),
        BlockRange(BlockId("IN01"), group="downs"),
        BlockRange(BlockId("M00")),
    )
    study = make_study(ranges=ranges, n_trials=4)
    run(study)
    point = chosen_point(study, 3)
    (row,) = list(csv.DictReader(io.StringIO(autombw_csv(study))))[3:]
    assert float(row["0"]) == float(row["1"]) == point["downs"]
    assert trials_csv(study).splitlines()[0].endswith("reason,downs,M00")
    line = recipe_txt(study.settings, point).splitlines()[-1].split(",")
    assert line[0] == line[1] == f"{point['downs']:.6g}"


def test_history_row_reads_back(make_study: Make, run: Run, tmp_path: Path) -> None:
    study = make_study(n_trials=4)
    run(study)
    path = tmp_path / "history.tsv"
    point = chosen_point(study, 1)
    path.write_text(history_head() + history_row(study, point), encoding="utf-8")
    (found,) = read_history(path)
    assert found.models == ("model_a.safetensors", "model_b.safetensors")
    assert (found.output, found.weights["OUT"]) == ("fake", point["OUT"])
    assert found.fields["tally_type"] == "arithmetic"


def test_another_method_is_named_in_recipe_txt() -> None:
    settings: StudySettings = fake_settings(method="slerp")
    point = dict.fromkeys(("M00", "OUT"), 0.5)
    assert "method=slerp" in recipe_txt(settings, point)
