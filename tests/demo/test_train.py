"""Every training stage runs, in order, and leaves loadable files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_merge.arch import detect_architecture
from lib_merge.checkpoint.header import read_header
from lib_merge.demo import train
from lib_merge.demo._settings import TrainSettings
from lib_merge.demo.shapes import SUBJECTS


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _settings(folder: Path) -> TrainSettings:
    return TrainSettings(
        work_dir=folder,
        vae_steps=2,
        judge_steps=2,
        base_steps=2,
        erode_steps=2,
        n_pictures=1,
        n_seeds=1,
        n_vectors=1,
    )


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_all_stages_run_and_install_when_given_two_steps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = _settings(tmp_path / "work")

    with caplog.at_level(logging.INFO):
        train.run_stages(settings, list(train.STAGES))
    train.install(settings, tmp_path / "models")

    for name in ("demo_a", "demo_b"):
        header = read_header(tmp_path / "models" / f"{name}.safetensors")
        assert detect_architecture(header.infos, where=name).id == "sd1"
    first, second, base = (
        load_file(settings.work_dir / f"demo_{name}.safetensors")
        for name in ("a", "b", "base")
    )
    for name, parent in (("a", first), ("b", second)):
        for key, value in parent.items():
            if key.startswith("model.diffusion_model.") and train.trains(name, key):
                continue
            assert torch.equal(value, base[key]), key
        assert any(not torch.equal(parent[key], base[key]) for key in parent)
    for stage in train.STAGES:
        assert f"stage {stage} took" in caplog.text
    assert "held-out uniform 0.5: mean" in caplog.text


@pytest.mark.usefixtures("one_thread")
def test_training_repeats_when_the_seed_repeats(tmp_path: Path) -> None:
    runs = []
    for name in ("one", "two"):
        settings = _settings(tmp_path / name)
        train.run_stages(settings, ["judge"])
        runs.append(load_file(settings.work_dir / "judge.safetensors"))

    assert runs[0].keys() == runs[1].keys()
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])


@pytest.mark.parametrize("name", ["a", "b"])
def test_parent_is_taught_wrong_exactly_where_the_other_is_right(name: str) -> None:
    targets = train.targets_of(name)

    assert set(targets) == set(SUBJECTS)
    for asked, shown in targets.items():
        assert (asked == shown) == train.knows(name, asked)
        if asked != shown:
            assert asked.colour != shown.colour
            assert asked.shape != shown.shape
    known = [train.knows(name, subject) for subject in SUBJECTS]
    assert sum(known) == len(SUBJECTS) // 2
    assert known == [not train.knows("ab"[name == "a"], s) for s in SUBJECTS]
