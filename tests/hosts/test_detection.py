"""A host is recognised by its features, and none is seen where there is none."""

from __future__ import annotations

import sys
import types

import pytest

from lib_merge.hosts import detect_host, hosts
from tests.hosts.conftest import FAKES, MakeFake


def test_registry_holds_the_webuis() -> None:
    assert hosts().ids() == ("a1111", "forge", "reforge")


def test_no_host_is_found_outside_a_webui() -> None:
    assert detect_host() is None


def test_a_stranger_named_modules_is_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modules", types.ModuleType("modules"))
    assert detect_host() is None


@pytest.mark.parametrize("host_id", FAKES)
def test_exactly_one_kind_claims_a_webui(host_id: str, make_fake: MakeFake) -> None:
    make_fake(host_id)
    found = [kind.id for kind in hosts() if kind.detect() is not None]
    assert found == [host_id]


def test_comfy_code_of_an_extension_makes_no_reforge(
    make_fake: MakeFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_fake("a1111")
    name = "ldm_patched.modules.model_management"
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    host = detect_host()
    assert host is not None
    assert host.id == "a1111"
