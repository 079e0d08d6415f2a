"""The WebUIs' checkpoint lists: titles that change, files that hide one another."""

from __future__ import annotations

import shutil

import pytest

from lib_merge.errors import HostError
from tests.contract.host_contract import HostCase
from tests.hosts.conftest import FAKES, MakeFake, case_of
from tests.support.fake_webui import FakeWebUi


@pytest.fixture(params=FAKES)
def fake(request: pytest.FixtureRequest, make_fake: MakeFake) -> FakeWebUi:
    return make_fake(request.param)


@pytest.fixture
def case(fake: FakeWebUi) -> HostCase:
    return case_of(fake)


def test_entries_tell_the_hash_once_the_host_knows_it(case: HostCase) -> None:
    case.host.loader.load(case.a)
    known = {entry.path: entry for entry in case.host.catalog.checkpoints()}
    assert known[case.b.resolve()].sha256 is None
    sha256 = known[case.a.resolve()].sha256
    assert sha256 is not None
    assert sha256[:10] in known[case.a.resolve()].title


def test_output_folder_is_the_one_given_to_the_host(
    fake: FakeWebUi, case: HostCase
) -> None:
    assert case.host.catalog.output_dir() == fake.models.resolve()
    fake.cmd_opts.ckpt_dir = str(fake.folder / "elsewhere")
    assert case.host.catalog.output_dir() == (fake.folder / "elsewhere").resolve()


def test_data_folder_is_beside_the_hosts_own_data(
    fake: FakeWebUi, case: HostCase
) -> None:
    assert case.host.catalog.data_dir() == fake.folder.resolve() / "mergelab"


def test_register_replaces_the_record_of_former_contents(case: HostCase) -> None:
    path = case.host.catalog.output_dir() / "merge.safetensors"
    shutil.copy(case.a, path)
    case.host.catalog.register(path)
    case.host.loader.load(path)
    old = case.picture()
    case.host.loader.load(case.a)
    shutil.copy(case.b, path)
    entry = case.host.catalog.register(path)
    entries = case.host.catalog.checkpoints()
    assert [e for e in entries if e.path == path.resolve()] == [entry]
    case.host.loader.load(path)
    assert case.picture() != old


def test_file_that_is_saved_anew_is_loaded_anew(case: HostCase) -> None:
    """The hosts take an equal name for the equal model."""
    path = case.host.catalog.output_dir() / "merge.safetensors"
    pictures = []
    for source in (case.a, case.b, case.b):
        path.unlink(missing_ok=True)
        shutil.copy(source, path)
        case.host.catalog.register(path)
        case.host.loader.load(path)
        pictures.append(case.picture())
    case.host.loader.load(case.b)
    assert pictures[0] != pictures[1] == pictures[2] == case.picture()


def test_register_refuses_to_hide_another_file(fake: FakeWebUi, case: HostCase) -> None:
    outside = fake.folder / "a.safetensors"
    shutil.copy(case.b, outside)
    with pytest.raises(HostError, match=r"would hide .*a\.safetensors.*rename it"):
        case.host.catalog.register(outside)
    assert len(case.host.catalog.checkpoints()) == 2


def test_file_outside_the_hosts_folders_is_loadable(
    fake: FakeWebUi, case: HostCase
) -> None:
    outside = fake.folder / "outside.safetensors"
    shutil.copy(case.b, outside)
    case.host.loader.load(outside)
    assert case.host.loader.loaded() == outside.resolve()
    case.picture()
    assert case.host.loader.loaded() == outside.resolve()


def test_listed_file_that_was_deleted_is_told(fake: FakeWebUi, case: HostCase) -> None:
    case.b.unlink()
    shutil.copy(case.a, case.b)
    case.host.catalog.register(case.b)
    case.b.unlink()
    with pytest.raises(HostError, match=r"b\.safetensors is not there any more"):
        case.host.loader.load(case.b)
