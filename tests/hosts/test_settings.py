"""Where hosts keep the user's settings: the WebUI's options, or a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lib_merge.core.user_settings import NAMES, UserSettings, read_settings, text_of
from lib_merge.errors import HostError
from lib_merge.hosts import detect_host
from lib_merge.hosts._folders import Folders
from lib_merge.hosts._settings import PREFIX, SECTION, add_options
from lib_merge.hosts._settings_file import SettingsFile
from tests.hosts.conftest import FAKES, MakeFake

GIVEN = UserSettings(outputs_dir="merges", memory_mb=512, scorer_device="cpu")


@pytest.mark.parametrize("host_id", list(FAKES))
def test_webui_keeps_them_as_its_own_settings(
    make_fake: MakeFake, host_id: str
) -> None:
    fake = make_fake(host_id)
    add_options(sys.modules["modules.shared"])
    labels = fake.opts.data_labels
    assert list(labels) == [PREFIX + name for name in NAMES]
    assert {option.section for option in labels.values()} == {SECTION}
    assert labels[PREFIX + "memory_mb"].comment == text_of("memory_mb").info
    host = detect_host()
    assert host is not None
    assert read_settings(host.settings.read()) == (UserSettings(), ())
    host.settings.write(GIVEN)
    assert read_settings(host.settings.read()) == (GIVEN, ())
    stored = json.loads((fake.folder / "config.json").read_text(encoding="utf-8"))
    assert stored[PREFIX + "memory_mb"] == 512


def test_webui_without_our_section_has_the_defaults(make_fake: MakeFake) -> None:
    make_fake("a1111")
    host = detect_host()
    assert host is not None
    assert read_settings(host.settings.read()) == (UserSettings(), ())


def test_merges_go_into_the_users_folder_inside_the_checkpoint_folder(
    make_fake: MakeFake,
) -> None:
    fake = make_fake("a1111")
    host = detect_host()
    assert host is not None
    assert host.catalog.output_dir() == fake.models.resolve()
    host.settings.write(UserSettings(outputs_dir="merges"))
    assert host.catalog.output_dir() == (fake.models / "merges").resolve()
    assert host.settings.problems(UserSettings(outputs_dir="merges")) == ()


@pytest.mark.parametrize("folder", ["../elsewhere", "/"], ids=["up", "root"])
def test_a_folder_that_the_webui_would_not_list_is_refused_and_not_used(
    make_fake: MakeFake, folder: str
) -> None:
    fake = make_fake("forge")
    host = detect_host()
    assert host is not None
    settings = UserSettings(outputs_dir=folder)
    host.settings.write(settings)
    assert host.catalog.output_dir() == fake.models.resolve()
    (problem,) = host.settings.problems(settings)
    assert "outside" in problem
    assert str(fake.models.resolve()) in problem


def test_frozen_settings_are_said(
    make_fake: MakeFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = make_fake("a1111")
    host = detect_host()
    assert host is not None

    def frozen(name: str, value: object) -> None:
        raise AssertionError("changing settings is disabled")

    monkeypatch.setattr(fake.opts, "set", frozen)
    with pytest.raises(HostError, match="--freeze-settings"):
        host.settings.write(GIVEN)


def test_file_keeps_them_and_a_damaged_one_says_so(tmp_path: Path) -> None:
    store = SettingsFile(tmp_path / "deep" / "settings.json")
    assert store.read() == {}
    store.write(GIVEN)
    assert read_settings(store.read()) == (GIVEN, ())
    assert store.problems(GIVEN) == ()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["settings.json"]
    Path(store.place).write_text("{", encoding="utf-8")
    assert store.read() == {}
    assert "cannot be read" in store.problems(UserSettings())[0]


def test_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    store = SettingsFile(tmp_path / "taken" / "settings.json")
    with pytest.raises(HostError, match="cannot be written"):
        store.write(GIVEN)


def test_standalone_lists_what_lies_in_the_users_output_folder(tmp_path: Path) -> None:
    store = SettingsFile(tmp_path / "settings.json")
    folders = Folders([tmp_path], tmp_path / "out", tmp_path, store)
    assert folders.output_dir() == tmp_path / "out"
    store.write(UserSettings(outputs_dir=str(tmp_path / "mine")))
    assert folders.output_dir() == tmp_path / "mine"
    (tmp_path / "mine" / "m.safetensors").write_bytes(b"")
    assert [entry.title for entry in folders.checkpoints()] == ["m.safetensors"]
