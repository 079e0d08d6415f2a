"""A merge of a model that has a configuration beside it gets that configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_merge.core.recipe import simple_recipe
from lib_merge.engine.save import merge_to_file
from tests.support.checkpoints import write_tiny


@pytest.fixture
def models(tmp_path: Path) -> tuple[str, str]:
    a = write_tiny(tmp_path / "a.safetensors", "sd1", 1)
    b = write_tiny(tmp_path / "b.safetensors", "sd1", 2)
    return str(a), str(b)


def test_configuration_of_the_first_model_goes_with_the_merge(
    models: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text("model: v\n", encoding="utf-8")
    saved = merge_to_file(
        simple_recipe("weighted_sum", models), tmp_path / "o.safetensors"
    )
    assert (tmp_path / "o.yaml").read_text(encoding="utf-8") == "model: v\n"
    assert saved.warnings == ()
    assert not list(tmp_path.glob(".*"))


def test_configuration_that_is_there_already_stays(
    models: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text("model: v\n", encoding="utf-8")
    (tmp_path / "o.yaml").write_text("my own\n", encoding="utf-8")
    merge_to_file(simple_recipe("weighted_sum", models), tmp_path / "o.safetensors")
    assert (tmp_path / "o.yaml").read_text(encoding="utf-8") == "my own\n"


def test_no_configuration_is_made_up(models: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("of the second\n", encoding="utf-8")
    merge_to_file(simple_recipe("weighted_sum", models), tmp_path / "o.safetensors")
    assert not (tmp_path / "o.yaml").exists()


def test_configuration_that_cannot_be_copied_is_a_warning(
    models: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yaml").write_text("model: v\n", encoding="utf-8")

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    saved = merge_to_file(
        simple_recipe("weighted_sum", models), tmp_path / "o.safetensors"
    )
    assert saved.path.is_file()
    assert any("No space left" in warning for warning in saved.warnings)
