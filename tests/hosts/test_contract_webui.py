"""The adapters of A1111, reForge and Forge keep the host contract inside the fakes."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

from tests.contract.host_contract import HostCase, HostContract
from tests.hosts.conftest import FAKES, MakeFake, case_of


class TestWebUis(HostContract):
    """Every fake with an SD1 checkpoint."""

    @pytest.fixture(params=FAKES)
    def case(self, request: pytest.FixtureRequest, make_fake: MakeFake) -> HostCase:
        return case_of(make_fake(request.param))


@pytest.mark.parametrize("arch_id", ["sd2", "sdxl"])
@pytest.mark.parametrize("host_id", FAKES)
def test_writing_openclip_equals_loading_it(
    host_id: str, arch_id: str, make_fake: MakeFake
) -> None:
    case = case_of(make_fake(host_id, arch_id))
    case.host.loader.load(case.b)
    wanted = case.picture()
    case.host.loader.load(case.a)
    with case.host.loader.edit() as live:
        assert live.missing(tuple(load_file(case.a))) == ()
        for key, tensor in load_file(case.b).items():
            flat = tensor.reshape(-1)
            # Cut inside a row of q, so that every share of a fused tensor is met.
            cut = flat.numel() // 3 + flat.numel() // 7
            live.write(key, cut, flat[cut:])
            live.write(key, 0, flat[:cut])
    assert case.picture() == wanted
