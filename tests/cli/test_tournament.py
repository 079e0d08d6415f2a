"""`tournament run|status|resume` on real tiny pipelines, as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_merge.cli import main
from tests.cli.test_study import models, redness
from tests.support.tiny_pipelines import write_checkpoint

pytest.importorskip("diffusers")
pytestmark = pytest.mark.slow

__all__ = ["models", "redness"]


def command(folder: Path, out: Path, *more: str) -> list[str]:
    """The words of `tournament run` over four models."""
    pipeline = folder / "pipeline"
    for seed, name in enumerate("cd"):
        path = folder / f"{name}.safetensors"
        if not path.exists():
            write_checkpoint(path, pipeline, "sd1", seed + 7)
    words = ["tournament", "run", *(f"{name}.safetensors" for name in "abcd")]
    words += ["--name", "cup", "--models", str(folder)]
    words += ["--payloads", str(folder / "payloads"), "--out", str(out)]
    words += ["--scorer", "redness", "--sampler", "random", "--held-out", "1"]
    return [*words, "--trials", "1", *more]


def test_four_models_become_one_unattended(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan, three studies, three checkpoints, and the last winner."""
    assert main(command(models, tmp_path)) == 0
    said = capsys.readouterr().out
    assert "round 2: cup-2.1 = cup-1.1 + cup-1.2" in said
    assert "<- winner" in said
    saved = sorted(p.name for p in (tmp_path / "tournaments/cup").glob("*.safetensors"))
    assert saved == [f"cup-{n}.safetensors" for n in ("1.1", "1.2", "2.1")]
    assert main(["tournament", "status", "--out", str(tmp_path)]) == 0
    assert "3/3 studies" in capsys.readouterr().out
    assert main(["tournament", "resume", "cup", "--out", str(tmp_path)]) == 0


def test_dry_run_prints_plan_and_time(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From one timed picture; nothing is left behind."""
    assert main(command(models, tmp_path, "--dry-run")) == 0
    said = capsys.readouterr().out
    assert "round 1: cup-1.1 = a + b" in said
    assert "One picture takes" in said
    assert "3 studies of" in said
    assert not (tmp_path / "tournaments").exists()


def test_pool_is_one_study(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights of all four models at once."""
    assert main(command(models, tmp_path, "--kind", "pool")) == 0
    said = capsys.readouterr().out
    assert "round 1: cup-1.1 = a + b + c + d" in said
    assert (tmp_path / "tournaments/cup/cup-1.1.safetensors").is_file()
