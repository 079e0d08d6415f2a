"""Traps of reForge and Forge Classic alone."""

from __future__ import annotations

import dataclasses
import gc
import sys
import types
import weakref

import pytest
import torch

from lib_merge.errors import HostError
from tests.contract.host_contract import UNET_KEY, HostCase
from tests.hosts.conftest import MakeFake, case_of
from tests.hosts.test_a1111 import VAE_KEY, choose_vae
from tests.support.fake_jobs import StableDiffusionProcessing
from tests.support.fake_reforge import OLD_CLIP_G, FakeReforge

NORM = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
PROJECTION = "conditioner.embedders.1.model.text_projection"


@pytest.fixture
def fake(make_fake: MakeFake) -> FakeReforge:
    found = make_fake("reforge")
    assert isinstance(found, FakeReforge)
    return found


@pytest.fixture
def case(fake: FakeReforge) -> HostCase:
    return case_of(fake)


def test_option_follows_the_load(fake: FakeReforge, case: HostCase) -> None:
    """reForge does not set it, and the next picture would switch back."""
    case.host.loader.load(case.b)
    case.picture()
    assert case.host.loader.loaded() == case.b.resolve()
    assert fake.loads == ["b.safetensors"]


def test_merged_model_kept_in_memory_is_loaded_anew(
    fake: FakeReforge, case: HostCase
) -> None:
    fake.opts.data["sd_checkpoints_limit"] = 2
    case.host.loader.load(case.a)
    before = case.picture()
    case.write_all(case.b)
    case.host.loader.load(case.b)
    case.host.loader.load(case.a)
    assert case.picture() == before


class Emptied(torch.nn.Module):
    """What reForge leaves of a model before it loads the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["_parameters"] = None


def test_a_page_may_ask_while_reforge_empties_the_model(
    fake: FakeReforge, case: HostCase
) -> None:
    loader = case.host.loader
    loader.load(case.a)
    before = loader.identity()
    whole = fake.data.sd_model
    fake.data.sd_model = Emptied()
    assert loader.loaded() is None
    assert loader.identity() != before
    fake.data.sd_model = Emptied()
    fake.data.sd_model.__dict__["sd_checkpoint_info"] = whole.sd_checkpoint_info
    assert loader.identity() != before
    fake.data.sd_model = whole
    assert loader.identity() == before


def test_restore_leaves_no_reference_to_the_old_object(
    fake: FakeReforge, case: HostCase
) -> None:
    case.host.loader.load(case.a)
    case.write_all(case.b)
    old = weakref.ref(fake.data.sd_model.forge_objects.unet.model)
    case.host.loader.restore()
    gc.collect()
    assert old() is None


def test_classic_that_ignores_a_forced_reload_is_made_to(
    fake: FakeReforge, case: HostCase
) -> None:
    fake.honours_forced_reload = False
    case.host.loader.load(case.a)
    before = case.picture()
    case.write_all(case.b)
    case.host.loader.restore()
    assert case.picture() == before


def test_classic_without_scheduler_field_is_served(make_fake: MakeFake) -> None:
    fake = make_fake("reforge")
    kind = dataclasses.make_dataclass("Old", [], bases=(StableDiffusionProcessing,))
    fake.processing_type = kind
    fake.job_type = fake._job_type()
    sys.modules["modules.processing"].StableDiffusionProcessing = (  # type: ignore[attr-defined]
        fake.job_type.__mro__[1]
    )
    processing = sys.modules["modules.processing"]
    processing.StableDiffusionProcessingTxt2Img = fake.job_type  # type: ignore[attr-defined]
    del sys.modules["modules.sd_samplers"].get_sampler_and_scheduler
    case = case_of(fake)
    case.host.loader.load(case.a)
    case.picture()
    assert not hasattr(fake.jobs[-1], "scheduler")
    with pytest.raises(HostError, match="no sampler 'DPM\\+\\+ 2M Karras'"):
        case.picture(sampler_name="DPM++ 2M Karras")


def test_clip_on_another_device_is_unpatched_too(
    fake: FakeReforge, case: HostCase
) -> None:
    """unload_all_models empties the main device only; the fake's CLIP is elsewhere."""
    case.host.loader.load(case.b)
    wanted = case.picture()
    case.host.loader.load(case.a)
    case.picture(prompt="x <lora:tiny:1>")
    clip = fake.data.sd_model.forge_objects.clip.patcher
    assert clip.device != "main"
    assert clip.backup
    case.write_all(case.b)
    assert not clip.backup
    assert case.picture() == wanted


def test_a_vae_that_the_user_chose_is_left_alone(
    fake: FakeReforge, case: HostCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.host.loader.load(case.a)
    case.picture()
    vae = fake.data.sd_model.forge_objects.vae.first_stage_model
    choose_vae(vae, monkeypatch)
    before = case.picture()
    case.write_all(case.b, [VAE_KEY])
    assert case.picture() == before
    aside = sys.modules["modules.sd_vae"].base_vae
    chosen = vae.decoder.conv_out.weight
    assert not torch.equal(aside["decoder.conv_out.weight"] + 1, chosen)


def separate_text_encoder(
    fake: FakeReforge, filename: str, patch: pytest.MonkeyPatch
) -> None:
    clip = fake.data.sd_model.forge_objects.clip
    module = types.ModuleType("modules.sd_text_encoder")
    info = types.SimpleNamespace(filename=filename)
    module.current_text_encoder = types.SimpleNamespace(  # type: ignore[attr-defined]
        clip_model=clip, te_info=info
    )
    patch.setitem(sys.modules, "modules.sd_text_encoder", module)


def test_text_encoder_of_another_file_is_left_alone(
    fake: FakeReforge, case: HostCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.host.loader.load(case.a)
    before = case.picture()
    separate_text_encoder(fake, "/te/other.safetensors", monkeypatch)
    case.write_all(case.b, [NORM])
    assert case.picture() == before
    case.write_all(case.b, [UNET_KEY])
    assert case.picture() != before


def test_separate_text_encoder_of_the_same_file_is_written(
    fake: FakeReforge, case: HostCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "Automatic" reads the checkpoint's own encoder from the same file apart."""
    case.host.loader.load(case.a)
    before = case.picture()
    separate_text_encoder(fake, str(case.a), monkeypatch)
    case.write_all(case.b, [NORM])
    assert case.picture() != before


@pytest.mark.parametrize("is_old", [False, True], ids=["new", "old"])
def test_text_projection_of_clip_g_goes_where_reforge_reads_it(
    make_fake: MakeFake, is_old: bool
) -> None:
    fake = make_fake("reforge", "sdxl")
    assert isinstance(fake, FakeReforge)
    fake.opts.data[OLD_CLIP_G] = is_old
    case = case_of(fake)
    case.host.loader.load(case.b)
    wanted = case.picture()
    case.host.loader.load(case.a)
    case.write_all(case.b)
    assert case.picture() == wanted
    clip_g = fake.data.sd_model.forge_objects.clip.cond_stage_model.clip_g
    width = clip_g.text_projection.shape[0]
    assert torch.equal(clip_g.text_projection, torch.eye(width)) == is_old
    with case.host.loader.edit() as live:
        assert live.missing([PROJECTION]) == ()
