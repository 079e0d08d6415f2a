"""`study export|import|report|compare|clone|delete|dashboard`, as a user types them."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import urllib.request
from pathlib import Path

import pytest

from lib_merge.autombw import dashboard
from lib_merge.autombw.runner import StudyRunner
from lib_merge.autombw.study import create_study, find_study
from lib_merge.cli import main
from lib_merge.core.recipe import Recipe
from lib_merge.formats.autombw_csv import read_csv, read_history, read_recipe_txt
from tests.formats.test_autombw_csv import OWN, RUNS
from tests.support.checkpoints import write_tiny
from tests.support.fake_scorer import FakeScorer
from tests.support.fake_study_host import FakeStudyHost, fake_settings


def finished(folder: Path, name: str = "fake", n_trials: int = 5) -> None:
    """A finished study on the fake host."""
    host = FakeStudyHost(folder)
    study = create_study(folder, fake_settings(name=name, n_trials=n_trials))
    StudyRunner(host, study, FakeScorer(), merger=host.merger).run()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished studies; copied, never written to."""
    folder = tmp_path_factory.mktemp("studies")
    finished(folder)
    finished(folder, "longer", 7)
    return folder


@pytest.fixture
def out(template: Path, tmp_path: Path) -> Path:
    """Where two finished studies are kept."""
    return Path(shutil.copytree(template, tmp_path / "out"))


def told(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command that succeeds prints."""
    assert main(["study", *map(str, words)]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command that fails says."""
    assert main(["study", *map(str, words)]) != 0
    return capsys.readouterr().err


def test_any_trial_is_exported_in_every_form(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("r.json", "r.txt", "h.tsv", "t.csv", "a.csv", "r.html")
    recipe, txt, history, table, old, report = (tmp_path / name for name in names)
    words = ["--trial", 3, "--recipe", recipe, "--txt", txt, "--history", history]
    words += ["--csv", table, "--autombw-csv", old, "--report", report]
    told(capsys, "export", "fake", "--out", out, *words)
    study = find_study(out, "fake")
    point = study.records()[3].point
    wanted = study.settings.recipe(point)
    assert Recipe.from_json(json.loads(recipe.read_text())) == wanted
    assert read_recipe_txt(txt).weights["OUT"] == pytest.approx(point["OUT"], abs=1e-6)
    assert len(read_csv(old).trials) == 5
    assert len(table.read_text().splitlines()) == 6
    assert report.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    told(capsys, "export", "fake", "--out", out, "--history", history)
    assert [row.output for row in read_history(history)] == ["fake", "fake"]
    assert "no finished trial 77" in refused(
        capsys, "export", "fake", "--out", out, "--trial", 77, "--recipe", recipe
    )
    assert "Nothing to export" in refused(capsys, "export", "fake", "--out", out)


def test_report_is_written_into_the_study_or_where_one_likes(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = Path(told(capsys, "report", "fake", "--out", out).strip())
    assert inside == find_study(out, "fake").report_path
    copy = tmp_path / "mine.html"
    told(capsys, "report", "fake", copy, "--out", out)
    assert copy.read_bytes() == inside.read_bytes()


def test_old_runs_become_studies_and_their_trials_recipes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = next(p for p in RUNS.glob("*.csv") if p.name.startswith("10b"))
    models = tmp_path / "models"
    models.mkdir()
    for seed, name in enumerate(("_17a-indigoFurryMix_v75-sd", "_18a-aoaokoPVC-sd")):
        write_tiny(models / f"{name}.safetensors", "sd2", seed)
    said = told(capsys, "import", table, "--models", models, "--out", tmp_path)
    assert "28 trials, best 0.5745 (trial 0), sd2\n" in said
    assert "not found" not in said
    name = "10b-AstolfoMix-_17a_18a"
    assert "imported" in told(capsys, "status", "--out", tmp_path)
    merged = tmp_path / "merged.safetensors"
    words = ["export", name, "--out", tmp_path, "--trial", 3, "--save", merged]
    told(capsys, *words)
    assert merged.is_file()
    assert "exists" in refused(capsys, "import", table, "--out", tmp_path)


def test_import_says_what_it_had_to_assume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = next(OWN.glob("*.csv"))
    alone = tmp_path / "alone.csv"
    shutil.copy(table, alone)
    said = told(capsys, "import", alone, "--out", tmp_path)
    assert "sd1 by default" in said
    assert "A, B not found" in said
    recipe = next(OWN.glob("*.recipe.txt"))
    said = told(capsys, "import", alone, recipe, "--name", "x", "--out", tmp_path)
    assert "_17a-indigoFurryMix_v75-sd.safetensors" in said
    assert "No table is named" in refused(capsys, "import", recipe)


def test_compare_tells_what_differs_and_who_wins(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(capsys, "compare", "fake", "longer", "--out", out)
    assert "* n_trials" in said
    assert "First winner minus second: " in said
    assert "M00" in said


def test_clone_goes_on_from_a_trial(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["clone", "fake", "--name", "next", "--from-trial", 4, "--out", out]
    assert "study resume next" in told(capsys, *words)
    study = find_study(out, "next")
    assert study.settings.starts[0].label == "trial 4 of fake"
    assert "exists" in refused(capsys, *words)


def test_delete_asks_first(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert main(["study", "delete", "fake", "--out", str(out)]) == 1
    assert find_study(out, "fake").records()
    told(capsys, "delete", "fake", "--yes", "--out", out)
    assert "There is no study 'fake'" in refused(capsys, "status", "fake", "--out", out)


def test_dashboard_that_is_not_installed_says_how_to(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard.importlib.util, "find_spec", lambda _: None)
    said = refused(capsys, "dashboard", "fake", "--out", out)
    assert "-m pip install optuna-dashboard" in said


@pytest.mark.skipif(
    importlib.util.find_spec("optuna_dashboard") is None,
    reason="optuna-dashboard is not installed",
)
@pytest.mark.slow
def test_dashboard_shows_the_trials_of_the_study_s_own_storage(out: Path) -> None:
    board = dashboard.Dashboard(find_study(out, "fake"))
    try:
        with urllib.request.urlopen(f"{board.address}api/studies") as answer:
            assert "autombw" in answer.read().decode()
    finally:
        board.close()
    assert not board.is_alive
