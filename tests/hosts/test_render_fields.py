"""Clip skip, VAE, styles, settings and the hires pass's own fields reach the WebUIs."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.hosts.conftest import REQUEST, MakeFake, case_of
from tests.support.fake_webui import FakeWebUi

FULL = replace(
    REQUEST,
    clip_skip=2,
    vae="kl.pt",
    styles=("film", "gone"),
    override_settings=(
        ("randn_source", "CPU"),
        ("no_such_setting", 1),
        ("sd_model_checkpoint", "other"),
    ),
    subseed=9,
    subseed_strength=0.3,
    enable_hr=True,
    hr_prompt="sharp",
    hr_negative_prompt="blurry",
    hr_sampler_name="Euler a",
    hr_scheduler="Karras",
    hr_cfg=2.5,
)


def equip(fake: FakeWebUi) -> None:
    """Settings, a style and a VAE that the host has."""
    fake.opts.data.update(
        {"randn_source": "GPU", "CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic"}
    )
    styles = SimpleNamespace(styles={"film": object()})
    sys.modules["modules.shared"].__dict__["prompt_styles"] = styles
    sys.modules["modules.sd_vae"].__dict__["vae_dict"] = {"kl.pt": "/vae/kl.pt"}


@pytest.mark.parametrize("host_id", ["a1111", "reforge", "forge"])
def test_every_field_reaches_the_job_or_is_told(
    host_id: str, make_fake: MakeFake
) -> None:
    """What is left out is said, and the rest is in the host's own job."""
    fake = make_fake(host_id)
    case = case_of(fake)
    equip(fake)
    case.host.loader.load(case.a)
    case.host.renderer.render([FULL])
    job = fake.jobs[-1]
    settings = {"randn_source": "CPU", "CLIP_stop_at_last_layers": 2}
    told = case.host.renderer.unsupported(FULL)
    if host_id != "forge":
        settings["sd_vae"] = "kl.pt"
    else:
        assert any("cannot change the VAE ('kl.pt') without loading" in t for t in told)
    assert job.override_settings == settings
    assert job.styles == ["film"]
    assert (job.subseed, job.subseed_strength) == (9, 0.3)
    assert (job.hr_prompt, job.hr_negative_prompt) == ("sharp", "blurry")
    assert job.hr_sampler_name == "Euler a"
    assert job.hr_scheduler == "Karras"
    if hasattr(job, "hr_cfg"):
        assert job.hr_cfg == 2.5
    else:
        assert any("has no hr_cfg ('2.5')" in sentence for sentence in told)
    assert any("no setting 'no_such_setting'" in sentence for sentence in told)
    assert any("sd_model_checkpoint would load another" in one for one in told)
    assert any("no style 'gone'" in sentence for sentence in told)
    assert len(told) == 3 + (host_id == "forge") + (not hasattr(job, "hr_cfg"))


def test_plain_request_changes_no_setting_and_has_nothing_to_tell(
    make_fake: MakeFake,
) -> None:
    """As before these fields were there."""
    fake = make_fake("a1111")
    case = case_of(fake)
    equip(fake)
    case.host.loader.load(case.a)
    case.host.renderer.render([REQUEST])
    job = fake.jobs[-1]
    assert job.override_settings == {}
    assert job.styles == []
    assert job.subseed == -1
    assert case.host.renderer.unsupported(REQUEST) == ()
    gone = replace(REQUEST, vae="gone.pt")
    assert case.host.renderer.unsupported(gone) == (
        "this WebUI has no VAE 'gone.pt': left out.",
    )
