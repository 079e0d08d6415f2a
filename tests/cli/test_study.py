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


def test_dry_run_times_a_picture_and_leaves_nothing(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence with the time that the study would take."""
    words = command(models, tmp_path, "--trials", "50", "--dry-run")
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "One picture takes" in said
    assert "50 trials of" in said
    assert not (tmp_path / "studies").exists()


def test_parent_with_nan_is_named_before_the_first_trial(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every trial would fail with it; asked to keep NaN, the study is started."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(models / "b.safetensors")
    key = next(k for k in tensors if k.endswith("input_blocks.0.0.weight"))
    tensors[key].view(-1)[3] = torch.nan
    bad = tmp_path / "bad.safetensors"
    save_file(tensors, bad)
    words = command(models, tmp_path, "--trials", "1", "--dry-run")
    words[4] = str(bad)
    assert main(words) == 2
    assert (
        f"bad.safetensors holds NaN or infinity in 1 tensors, the first is {key}"
        in (capsys.readouterr().err)
    )


def test_study_is_joined_through_its_storage(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another folder, as on another machine, shows what the first one found."""
    storage = f"journal:{tmp_path / 'shared.log'}"
    words = command(models, tmp_path / "one", "--trials", "3", "--storage", storage)
    assert main([*words, "--block", "IN00=0.5", "--tie", "mid=M00,OUT00"]) == 0
    assert "All 3 trials are done." in capsys.readouterr().out
    out = ["--out", str(tmp_path / "two")]
    assert main(["study", "join", "--storage", storage, *out]) == 0
    assert "<- winner" in capsys.readouterr().out
    assert main(["study", "status", "mine", *out]) == 0
    said = capsys.readouterr().out
    assert f"storage  {storage}" in said
    assert "3 of 3 scored" in said
    point = find_study(tmp_path / "two", "mine").records()[-1].point
    assert point["IN00"] == 0.5
    assert "mid" in point
    assert "M00" not in point


def test_study_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named, with those that are."""
    assert main(["study", "status", "gone", "--out", str(tmp_path)]) == 1
    assert "There is no study 'gone'" in capsys.readouterr().err
    assert main(["study", "status", "--out", str(tmp_path)]) == 0
    assert "There are no studies" in capsys.readouterr().out
