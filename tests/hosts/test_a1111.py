"""Traps of A1111 alone."""

from __future__ import annotations

import sys
import types

import pytest
import torch

from lib_merge.errors import HostError
from tests.contract.host_contract import UNET_KEY, HostCase
from tests.hosts.conftest import MakeFake, case_of
from tests.support.fake_a1111 import FakeA1111

VAE_KEY = "first_stage_model.decoder.conv_out.weight"


@pytest.fixture
def fake(make_fake: MakeFake) -> FakeA1111:
    found = make_fake("a1111")
    assert isinstance(found, FakeA1111)
    return found


@pytest.fixture
def case(fake: FakeA1111) -> HostCase:
    return case_of(fake)


def test_label_tells_the_version(case: HostCase) -> None:
    assert case.host.label == "AUTOMATIC1111 WebUI v1.10.1"


def test_asking_about_the_model_loads_none(fake: FakeA1111, case: HostCase) -> None:
    assert case.host.loader.loaded() is None
    case.host.loader.identity()
    with pytest.raises(HostError, match="no model loaded"), case.host.loader.edit():
        pass
    assert fake.loads == []


def test_option_is_set_without_its_callback(fake: FakeA1111, case: HostCase) -> None:
    # The callback takes the lock that we hold: the fake would tell of a deadlock.
    case.host.loader.load(case.b)
    assert fake.opts.sd_model_checkpoint.startswith("b.safetensors [")


def test_layers_keep_no_backup_after_an_edit(fake: FakeA1111, case: HostCase) -> None:
    case.host.loader.load(case.a)
    case.picture(prompt="x <lora:tiny:1>")
    backups = [
        m for m in fake.data.sd_model.modules() if hasattr(m, "network_weights_backup")
    ]
    assert len(backups) > 300
    case.write_all(case.b, [UNET_KEY])
    assert all(module.network_weights_backup is None for module in backups)


def test_edit_works_without_the_lora_extension(
    case: HostCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "networks")
    case.host.loader.load(case.a)
    before = case.picture()
    case.write_all(case.b, [UNET_KEY])
    assert case.picture() != before


def test_merged_model_kept_in_memory_is_loaded_anew(
    fake: FakeA1111, case: HostCase
) -> None:
    fake.opts.data["sd_checkpoints_limit"] = 2
    case.host.loader.load(case.a)
    before = case.picture()
    case.write_all(case.b)
    case.host.loader.load(case.b)
    case.host.loader.load(case.a)
    assert case.picture() == before


def test_restore_drops_merged_models_that_are_kept_in_memory(
    fake: FakeA1111, case: HostCase
) -> None:
    fake.opts.data["sd_checkpoints_limit"] = 2
    case.host.loader.load(case.a)
    before = case.picture()
    case.write_all(case.b)
    fake.opts.set("sd_model_checkpoint", "b.safetensors")
    case.picture()
    case.host.loader.restore()
    assert case.host.loader.loaded() == case.b.resolve()
    fake.opts.set("sd_model_checkpoint", "a.safetensors")
    assert case.picture() == before


def test_restore_without_an_edit_loads_nothing(fake: FakeA1111, case: HostCase) -> None:
    case.host.loader.load(case.a)
    n_loads = len(fake.loads)
    case.host.loader.restore()
    assert len(fake.loads) == n_loads


def test_values_are_halved_first_as_a1111_does(fake: FakeA1111, case: HostCase) -> None:
    """A VAE that A1111 widened after a NaN still holds halved numbers when reloaded."""
    fake.cmd_opts.no_half = False
    case.host.loader.load(case.a)
    vae = fake.data.sd_model.first_stage_model
    vae.to(torch.float32)
    third = torch.full((1,), 1 / 3)
    with case.host.loader.edit() as live:
        live.write(VAE_KEY, 0, third)
    assert vae.decoder.conv_out.weight.view(-1)[0] == third.half().float()
    fake.cmd_opts.no_half_vae = True
    with case.host.loader.edit() as live:
        live.write(VAE_KEY, 0, third)
    assert vae.decoder.conv_out.weight.view(-1)[0] == third


def test_fp8_storage_is_refused(fake: FakeA1111, case: HostCase) -> None:
    fake.opts.data["fp8_storage"] = "Enable"
    case.host.loader.load(case.a)
    with pytest.raises(HostError, match="FP8 weight"), case.host.loader.edit():
        pass


def test_another_unet_in_place_is_refused(
    case: HostCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.host.loader.load(case.a)
    unet = types.SimpleNamespace(option=types.SimpleNamespace(label="[TRT] model"))
    monkeypatch.setattr("modules.sd_unet.current_unet", unet)
    with pytest.raises(HostError, match=r"\[TRT\] model.*SD Unet"):
        case.write_all(case.b)


def choose_vae(vae: torch.nn.Module, patch: pytest.MonkeyPatch) -> None:
    """What sd_vae.load_vae does: put the own VAE aside, load the other in place."""
    own = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    patch.setattr("modules.sd_vae.base_vae", own)
    patch.setattr("modules.sd_vae.loaded_vae_file", "/vae/other.safetensors")
    vae.load_state_dict({name: tensor + 1 for name, tensor in own.items()})


def test_a_vae_that_the_user_chose_is_left_alone(
    fake: FakeA1111, case: HostCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.host.loader.load(case.a)
    case.write_all(case.b, [UNET_KEY])
    before = case.host.loader.identity()
    vae = fake.data.sd_model.first_stage_model
    choose_vae(vae, monkeypatch)
    assert case.host.loader.identity() != before
    chosen = vae.decoder.conv_out.weight.clone()
    with case.host.loader.edit() as live:
        assert live.missing([VAE_KEY]) == ()
        live.write(VAE_KEY, 0, torch.full((1,), 5.0))
    assert torch.equal(vae.decoder.conv_out.weight, chosen)
    # It is in what the host brings back for "None".
    aside = sys.modules["modules.sd_vae"].base_vae
    assert aside["decoder.conv_out.weight"].view(-1)[0] == 5.0
    case.host.loader.restore()
    assert fake.loads[-1] == "a.safetensors"


def test_vae_loaded_in_place_changes_the_identity_and_leaves_the_rest_edited(
    fake: FakeA1111, case: HostCase
) -> None:
    """A VAE has a load of its own; the merged UNet is still to be restored."""
    case.host.loader.load(case.a)
    before = case.picture()
    case.write_all(case.b, [UNET_KEY])
    identity = case.host.loader.identity()
    vae = fake.data.sd_model.first_stage_model
    vae.load_state_dict(vae.state_dict())
    assert case.host.loader.identity() != identity
    case.host.loader.restore()
    assert case.picture() == before


def test_own_lora_code_is_not_mistaken_for_the_hosts(
    case: HostCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.host.loader.load(case.a)
    before = case.picture()
    monkeypatch.setitem(sys.modules, "networks", types.ModuleType("networks"))
    case.write_all(case.b, [UNET_KEY])
    monkeypatch.undo()
    assert case.picture() != before


def test_early_sd1_names_find_their_place(fake: FakeA1111, case: HostCase) -> None:
    case.host.loader.load(case.a)
    old = "cond_stage_model.transformer.final_layer_norm.weight"
    with case.host.loader.edit() as live:
        assert live.missing([old]) == ()
        live.write(old, 0, torch.full((1,), 5.0))
    text = fake.data.sd_model.cond_stage_model.wrapped.transformer.text_model
    assert text.final_layer_norm.weight.view(-1)[0] == 5.0
