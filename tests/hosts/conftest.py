"""The three fake WebUIs with two tiny checkpoints each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lib_merge.core.ports import RenderRequest
from lib_merge.hosts import detect_host
from tests.contract.host_contract import HostCase
from tests.support.checkpoints import write_tiny
from tests.support.fake_a1111 import FakeA1111
from tests.support.fake_forge import FakeForge
from tests.support.fake_reforge import FakeReforge
from tests.support.fake_webui import FakeWebUi

FAKES: dict[str, type[FakeWebUi]] = {
    "a1111": FakeA1111,
    "reforge": FakeReforge,
    "forge": FakeForge,
}

REQUEST = RenderRequest(prompt="a red cat", seed=3, steps=2, width=16, height=16)


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with a.safetensors and b.safetensors of an architecture, made once."""
    made: dict[str, Path] = {}

    def folder(arch_id: str) -> Path:
        if arch_id not in made:
            place = made[arch_id] = tmp_path_factory.mktemp(arch_id)
            write_tiny(place / "a.safetensors", arch_id, 1)
            write_tiny(place / "b.safetensors", arch_id, 2)
        return made[arch_id]

    return folder


MakeFake = Callable[..., FakeWebUi]


@pytest.fixture
def make_fake(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_files: Callable[[str], Path],
) -> MakeFake:
    """Make and install a fake WebUI that lists a.safetensors and b.safetensors."""

    def make(host_id: str, arch_id: str = "sd1") -> FakeWebUi:
        fake = FAKES[host_id](tmp_path / host_id)
        for name in ("a", "b"):
            path = fake.models / f"{name}.safetensors"
            path.symlink_to(tiny_files(arch_id) / path.name)
            fake.add_checkpoint(path)
        fake.install(monkeypatch)
        return fake

    return make


def case_of(fake: FakeWebUi) -> HostCase:
    """The host that is detected inside a fake, with the fake's checkpoints."""
    host = detect_host()
    assert host is not None
    assert host.id == fake.host_id
    fake.step_s = 0.001
    return HostCase(
        host=host,
        a=fake.models / "a.safetensors",
        b=fake.models / "b.safetensors",
        request=REQUEST,
        long_request=RenderRequest(prompt="long", steps=2000, width=16, height=16),
    )
