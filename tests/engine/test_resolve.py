"""Models of a recipe are found by path, by name, by hash; else the message helps."""

from __future__ import annotations

import pytest

from lib_merge.checkpoint.hashes import file_sha256
from lib_merge.core.recipe import ModelNode, Recipe
from lib_merge.engine.resolve import recipe_models
from lib_merge.errors import RecipeError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "one.safetensors").write_bytes(b"one")
    (tmp_path / "two.safetensors").write_bytes(b"two")
    (tmp_path / "old.ckpt").write_bytes(b"old")
    return tmp_path


def found(path, folders=(), sha256=None, **options):
    recipe = Recipe(nodes=(ModelNode(path, sha256),))
    resolved = recipe_models(recipe, folders, **options)
    return dict(resolved.models())[0].path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two.safetensors", "two.safetensors"),
        ("two", "two.safetensors"),
        ("old", "old.ckpt"),
        ("one.safetensors", "sub/one.safetensors"),
        ("sub/one.safetensors", "sub/one.safetensors"),
        ("sub/one", "sub/one.safetensors"),
        ("D:\\models\\one.safetensors", "sub/one.safetensors"),
    ],
    ids=["name", "stem", "ckpt", "in_subfolder", "relative", "both", "windows"],
)
def test_model_is_found_in_folders_when_given_as(folder, text, expected):
    assert found(text, [folder]) == str(folder / expected)


def test_model_is_found_when_the_path_is_absolute(folder):
    path = str(folder / "two.safetensors")
    assert found(path) == path


def test_model_is_found_relative_to_the_current_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert found("two.safetensors") == str(folder / "two.safetensors")


def test_right_one_is_chosen_when_names_are_equal_and_hashes_known(folder):
    other = folder / "sub" / "two.safetensors"
    other.write_bytes(b"another two")
    file_sha256(folder / "two.safetensors")
    wanted = file_sha256(other)
    assert found("two.safetensors", [folder], wanted) == str(other)


def test_renamed_model_is_found_by_reading_only_when_allowed(folder):
    import hashlib

    sha256 = hashlib.sha256(b"one").hexdigest()
    with pytest.raises(RecipeError, match="was not found"):
        found("gone.safetensors", [folder], sha256)
    path = found("gone.safetensors", [folder], sha256, may_hash=True)
    assert path == str(folder / "sub" / "one.safetensors")


def test_every_missing_model_is_named(folder):
    recipe = Recipe(nodes=(ModelNode("x"), ModelNode("two"), ModelNode("y")))
    with pytest.raises(RecipeError, match="'x' was not found") as caught:
        recipe_models(recipe, [folder])
    assert len(caught.value.problems) == 2
    assert str(folder) in caught.value.problems[0]
