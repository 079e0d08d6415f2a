"""`study run --space --start`: read into settings, without rendering anything."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from lib_merge.autombw.payloads import Payload
from lib_merge.autombw.preflight import new_settings
from lib_merge.autombw.settings import StudySettings
from lib_merge.autombw.study import create_study
from lib_merge.cli._study_starts import add_space, with_starts
from lib_merge.demo import MODEL_A, MODEL_B
from lib_merge.errors import InputError, MergeError, RecipeError

PAYLOADS = (Payload("p", "a cat", seed=1),)


def settings_of(method: str = "weighted_sum", space: str = "") -> StudySettings:
    """Settings over the demo's models."""
    models = [str(MODEL_A), str(MODEL_B)]
    return new_settings("new", method, models, payloads=PAYLOADS, space=space)


def started(tmp_path: Path, *words: str, space: str = "") -> StudySettings:
    """Settings with starts as the command line names them."""
    parser = argparse.ArgumentParser()
    add_space(parser)
    args = parser.parse_args(words)
    args.out = tmp_path
    return with_starts(settings_of(space=space), args)


def test_space_is_read_for_the_models_own_blocks() -> None:
    settings = settings_of(space="tied=symmetric; BASE=0; /attn/=0..1")
    names = {axis.name for axis in settings.space.free}
    assert "IN00+OUT11" in names
    assert "/attn/" in names
    assert "CLIP_L" not in names
    with pytest.raises(RecipeError, match="no further parameter"):
        settings_of(space="gamma=0..1")


def test_pool_is_searched_by_shares() -> None:
    settings = settings_of("weighted_mean")
    assert [axis.name for axis in settings.space.free] == ["weight@1", "weight@2"]
    with pytest.raises(RecipeError, match="nothing to search"):
        settings_of("uniform_soup")


def test_presets_numbers_and_files_are_starts(tmp_path: Path) -> None:
    numbers = ",".join(["0.25"] * 27)
    file = tmp_path / "old.tsv"
    file.write_text("MINE\t" + ",".join(["0.75"] * 25) + "\n", encoding="utf-8")
    words = ["--start", "valley", "--start", f"autombw_csv:{numbers}"]
    settings = started(tmp_path, *words, "--start", str(file))
    assert [start.label for start in settings.starts] == [
        "preset valley",
        "given numbers",
        "old.tsv MINE",
    ]
    assert settings.starts[1].point["IN05"] == 0.25
    assert settings.starts[2].point["OUT03"] == 0.75


def test_order_must_be_named_where_several_fit(tmp_path: Path) -> None:
    """27 numbers alone are the main hazard of old files."""
    with pytest.raises(MergeError, match="autombw_recipe"):
        started(tmp_path, "--start", ",".join(["0.25"] * 27))


def test_unknown_start_is_refused(tmp_path: Path) -> None:
    create_study(tmp_path, settings_of())
    with pytest.raises(InputError, match=r"no such preset or file.*Known: new"):
        started(tmp_path, "--start", "nope")
    with pytest.raises(MergeError, match="no measured trial"):
        started(tmp_path, "--start", "new")
