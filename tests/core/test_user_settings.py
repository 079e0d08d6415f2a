"""The user's settings: what is read, what is refused, and in which words."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from lib_merge.core.user_settings import (
    DEFAULTS,
    NAMES,
    UserSettings,
    read_settings,
    text_of,
)


def test_nothing_stored_gives_the_defaults_without_a_problem() -> None:
    assert read_settings({}) == (DEFAULTS, ())


def test_what_was_written_is_read_back() -> None:
    settings = UserSettings(
        recipes_dir="/a/b", memory_mb=512, merge_device="cuda:1", storage_url="x:y"
    )
    assert read_settings(asdict(settings)) == (settings, ())


def test_values_of_a_form_are_trimmed_and_rounded() -> None:
    values = {"memory_mb": 1024.0, "merge_device": " CUDA:0 ", "studies_dir": " s "}
    settings, problems = read_settings(values)
    assert problems == ()
    assert (settings.memory_mb, settings.merge_device) == (1024, "cuda:0")
    assert settings.studies_dir == "s"
    assert settings.budget_bytes == 1 << 30


@pytest.mark.parametrize("value", [None, "", 0, "0", 0.0])
def test_no_memory_budget_leaves_it_to_the_engine(value: object) -> None:
    settings, problems = read_settings({"memory_mb": value})
    assert problems == ()
    assert settings.budget_bytes is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("memory_mb", 3, "at least 64"),
        ("memory_mb", "much", "'much' is no number"),
        ("memory_mb", float("nan"), "cannot be"),
        ("memory_mb", -5, "cannot be"),
        ("merge_device", "gpu", "'gpu' is no device"),
        ("scorer_device", "cuda:x", "no device"),
        ("recipes_dir", 7, "is no text"),
        ("studies_dir", "a\nb", "line break"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_bad_value_keeps_the_default_and_is_named(
    name: str, value: object, said: str
) -> None:
    settings, problems = read_settings({name: value, "storage_url": "kept"})
    assert settings == UserSettings(storage_url="kept")
    assert len(problems) == 1
    assert said in problems[0]
    assert problems[0].startswith(text_of(name).label)


def test_unknown_names_are_passed_over() -> None:
    assert read_settings({"colour": "red"}) == (DEFAULTS, ())


def test_every_setting_has_a_label_and_an_explanation() -> None:
    assert all(text_of(name).label and text_of(name).info for name in NAMES)
