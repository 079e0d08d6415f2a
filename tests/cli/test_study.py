"""`study run|resume|status|export` on a real tiny pipeline, as a user types it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from lib_merge.autombw import scorers as scorer_package
from lib_merge.autombw.study import find_study
from lib_merge.cli import main
from lib_merge.core.ports import Scorer
from lib_merge.core.recipe import Recipe
from lib_merge.core.registry import Registry
from tests.autombw.test_real_host import Redness
from tests.support.tiny_pipelines import write_checkpoint, write_pipeline

pytest.importorskip("diffusers")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny SD1 checkpoints with their pipeline's configs, and a payload."""
    folder = tmp_path_factory.mktemp("models")
    pipeline = write_pipeline(folder, "sd1")
    for seed, name in enumerate("ab"):
        write_checkpoint(folder / f"{name}.safetensors", pipeline, "sd1", seed + 1)
    payload = {"prompt": "a red circle", "seed": 5, "steps": 2, "sampler_name": "Euler"}
    payload |= {"width": 64, "height": 64, "cfg_scale": 3.0, "n_iter": 2}
    (folder / "payloads").mkdir()
    (folder / "payloads" / "red.json").write_text(json.dumps(payload))
    return folder


@pytest.fixture(autouse=True)
def redness(monkeypatch: pytest.MonkeyPatch) -> None:
    """One registered scorer that needs no weights."""
    registry: Registry[Scorer] = Registry("scorer")
    registry.add(Redness())
    monkeypatch.setattr(scorer_package, "scorers", lambda: registry)


def command(models: Path, out: Path, *more: str) -> list[str]:
    """The words of `study run`."""
    words = ["study", "run", "weighted_sum", "a.safetensors", "b.safetensors"]
    words += ["--models", str(models), "--payloads", str(models / "payloads")]
    words += ["--scorer", "redness", "--sampler", "random", "--held-out", "1"]
    return [*words, "--name", "mine", "--out", str(out), *more]


def test_study_from_run_to_export(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run, list, look, add trials, export: every word that scripts rely on."""
    winner = tmp_path / "winner.safetensors"
    assert main(command(models, tmp_path, "--trials", "3", "--save", str(winner))) == 0
    said = capsys.readouterr().out
    assert "trial 3/3" in said
    assert "<- winner" in said
    assert "sha256" in said
    assert winner.is_file()
    assert main(["study", "status", "--out", str(tmp_path)]) == 0
    assert "mine" in (listed := capsys.readouterr().out)
    assert "3/3 trials" in listed
    assert (
        main(["study", "resume", "mine", "--trials", "4", "--out", str(tmp_path)]) == 0
    )
    assert "Going on after 3 trials" in capsys.readouterr().out
    assert main(["study", "status", "mine", "--out", str(tmp_path)]) == 0
    assert "4 of 4 scored" in capsys.readouterr().out
    _check_export(tmp_path)


def _check_export(out: Path) -> None:
    words = ["study", "export", "mine", "--out", str(out)]
    for kind in ("recipe", "csv", "txt", "report"):
        words += [f"--{kind}", str(out / f"x.{kind}")]
    assert main(words) == 0
    study = find_study(out, "mine")
    result = study.result()
    assert result is not None
    recipe = Recipe.from_json(json.loads((out / "x.recipe").read_text()))
    assert recipe == study.settings.recipe(result.best.point)
    rows = list(csv.DictReader((out / "x.csv").open()))
    assert [row["state"] for row in rows] == ["complete"] * 4
    assert rows[1]["M00"] == "1.0"
    assert (out / "x.txt").read_text().startswith("modelA=a.safetensors")
    assert (out / "x.report").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--scorer", "rednes"], 2, "did you mean 'redness'"),
        (["--sampler", "anneal"], 2, "Unknown sampler 'anneal'"),
        (["--trials", "0"], 1, "n_trials is 0"),
        (["--payloads", "gone.json"], 2, "gone.json cannot be read"),
        (["--name", "///"], 2, "cannot name a study"),
    ],
    ids=["scorer", "sampler", "trials", "payload", "name"],
)
def test_wrong_words_leave_nothing_behind(
    more: list[str],
    code: int,
    message: str,
    models: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One sentence and an exit code, before any work."""
    assert main(command(models, tmp_path, *more)) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "studies").exists()


def test_study_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named, with those that are."""
    assert main(["study", "status", "gone", "--out", str(tmp_path)]) == 1
    assert "There is no study 'gone'" in capsys.readouterr().err
    assert main(["study", "status", "--out", str(tmp_path)]) == 0
    assert "There are no studies" in capsys.readouterr().out
