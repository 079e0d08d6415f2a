"""Traps that every WebUI lays: LoRA backups, lost interrupts, users in between."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from lib_merge.errors import Cancelled, HostError, MemoryLimitError
from tests.contract.host_contract import UNET_KEY, HostCase
from tests.hosts.conftest import FAKES, MakeFake, case_of
from tests.support.fake_jobs import NansException
from tests.support.fake_webui import FakeWebUi

NORM = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
LORA = "a red cat <lora:tiny:1>"


@pytest.fixture(params=FAKES)
def fake(request: pytest.FixtureRequest, make_fake: MakeFake) -> FakeWebUi:
    return make_fake(request.param)


@pytest.fixture
def case(fake: FakeWebUi) -> HostCase:
    case = case_of(fake)
    case.host.loader.load(case.a)
    return case


def from_a_worker(job: Callable[[], bytes]) -> bytes:
    """As the host's own API does; pytest's thread counts as the main thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(job).result()


# LoRA


def test_lora_in_a_payload_still_works(case: HostCase) -> None:
    plain = case.picture()
    assert case.picture(prompt=LORA) != plain
    assert case.picture() == plain


def test_write_after_a_lora_is_not_undone_later(case: HostCase) -> None:
    case.host.loader.load(case.b)
    wanted, wanted_lora = case.picture(), case.picture(prompt=LORA)
    case.host.loader.load(case.a)
    case.picture(prompt=LORA)
    case.picture()
    case.write_all(case.b)
    assert case.picture() == wanted
    assert case.picture(prompt=LORA) == wanted_lora
    assert case.picture() == wanted


def test_write_while_a_lora_is_applied_equals_loading(case: HostCase) -> None:
    case.host.loader.load(case.b)
    wanted = case.picture()
    case.host.loader.load(case.a)
    case.picture(prompt=LORA)
    case.write_all(case.b)
    assert case.picture() == wanted


def test_lora_that_was_on_during_a_write_is_applied_again(case: HostCase) -> None:
    """The Forges remember which LoRAs are applied and skip an equal wish."""
    case.host.loader.load(case.b)
    wanted = case.picture(prompt=LORA)
    case.host.loader.load(case.a)
    case.picture(prompt=LORA)
    case.write_all(case.b)
    assert case.picture(prompt=LORA) == wanted


def test_partial_write_while_a_lora_is_applied_keeps_the_rest(case: HostCase) -> None:
    case.write_all(case.b, [UNET_KEY])
    wanted = case.picture()
    case.host.loader.restore()
    case.picture(prompt=LORA)
    case.write_all(case.b, [UNET_KEY])
    assert case.picture() == wanted


def test_restore_after_a_lora_brings_the_file_back(case: HostCase) -> None:
    before = case.picture()
    case.write_all(case.b)
    case.picture(prompt=LORA)
    case.host.loader.restore()
    assert case.picture() == before


def test_identity_survives_a_users_lora(case: HostCase) -> None:
    case.write_all(case.b)
    before = case.host.loader.identity()
    case.picture(prompt=LORA)
    case.picture()
    assert case.host.loader.identity() == before


# The user in between


def test_identity_tells_that_the_user_switched(fake: FakeWebUi, case: HostCase) -> None:
    before = case.host.loader.identity()
    user_chooses(fake, "b.safetensors")
    assert case.host.loader.identity() != before
    case.picture()
    assert case.host.loader.loaded() == case.b.resolve()


def test_load_overrides_what_the_user_chose(fake: FakeWebUi, case: HostCase) -> None:
    wanted = case.picture()
    user_chooses(fake, "b.safetensors")
    case.picture()
    case.host.loader.load(case.a)
    # Not only until the next picture asks the options.
    assert case.picture() == wanted
    assert case.host.loader.loaded() == case.a.resolve()


def test_load_whose_identity_changed_gives_the_files_own_weights(
    fake: FakeWebUi, case: HostCase
) -> None:
    """Else whoever tracks the identity takes a merged model for a fresh one."""
    wanted = case.picture()
    case.write_all(case.b)
    user_chooses(fake, "b.safetensors")
    before = case.host.loader.identity()
    case.host.loader.load(case.a)
    assert case.host.loader.identity() != before
    assert case.picture() == wanted


def test_users_own_picture_sees_the_written_text_encoder(
    fake: FakeWebUi, case: HostCase
) -> None:
    """The host keeps encoded prompts by checkpoint, and does not know of our edit."""
    before = users_picture(fake)
    assert users_picture(fake) == before
    case.write_all(case.b, [NORM])
    written = users_picture(fake)
    assert written != before
    case.host.loader.restore()
    assert users_picture(fake) == before


def users_picture(fake: FakeWebUi) -> bytes:
    """A picture by the host's own txt2img."""
    job = fake.job_type(prompt="mine", width=16, height=16, steps=1)
    job.scripts = sys.modules["modules.scripts"].ScriptRunner()
    job.hr_additional_modules = []
    with fake.lock:
        return fake.process_images(job).images[0].tobytes()


def test_write_after_a_users_switch_goes_into_the_new_model(
    fake: FakeWebUi, case: HostCase
) -> None:
    case.host.loader.load(case.b)
    wanted = case.picture()
    user_chooses(fake, "a.safetensors")
    case.picture()
    case.write_all(case.b)
    assert case.picture() == wanted


def user_chooses(fake: FakeWebUi, name: str) -> None:
    fake.opts.set("sd_model_checkpoint", name)
    refresh = getattr(fake, "refresh_model_loading_parameters", None)
    if refresh is not None:
        refresh()


def test_title_that_changes_with_the_hash_still_loads(
    fake: FakeWebUi, case: HostCase
) -> None:
    titles = {entry.path: entry.title for entry in case.host.catalog.checkpoints()}
    assert "[" in titles[case.a.resolve()]
    case.picture()
    assert case.host.loader.loaded() == case.a.resolve()


# Interrupts


def while_rendering(case: HostCase, act: Callable[[], None]) -> None:
    timer = threading.Timer(0.1, act)
    timer.start()
    try:
        case.host.renderer.render([case.long_request])
    finally:
        timer.join()


def test_the_hosts_interrupt_button_cancels(fake: FakeWebUi, case: HostCase) -> None:
    with pytest.raises(Cancelled, match="interrupted"):
        while_rendering(case, fake.state.interrupt)
    # The flag stays until the next job, which must not take it for its own.
    assert fake.state.interrupted
    case.picture()


def test_reload_ui_interrupts_nothing_of_ours(fake: FakeWebUi, case: HostCase) -> None:
    """The hosts' "Reload UI" presses Interrupt first, and then serves another page."""
    shared = sys.modules["modules.shared"]
    shared.demo = SimpleNamespace(server=SimpleNamespace(should_exit=False))

    def reload() -> None:
        fake.state.interrupt()
        shared.demo.server.should_exit = True
        shared.demo = SimpleNamespace(server=SimpleNamespace(should_exit=False))

    # Long enough for a fast machine to be still at it when the button is pressed.
    request = replace(case.long_request, steps=400)
    case = replace(case, long_request=request)
    wanted = case.host.renderer.render([request])[0]
    timer = threading.Timer(0.1, reload)
    timer.start()
    assert case.host.renderer.render([request])[0].tobytes() == wanted.tobytes()
    timer.join()
    with pytest.raises(Cancelled, match="interrupted"):
        while_rendering(case, fake.state.interrupt)


def test_stop_after_this_picture_cancels(fake: FakeWebUi, case: HostCase) -> None:
    def press() -> None:
        fake.state.stopping_generation = True

    request = replace(case.long_request, steps=200)
    case = replace(case, long_request=request)
    with pytest.raises(Cancelled, match="interrupted"):
        while_rendering(case, press)


def test_a_skipped_picture_is_no_picture(fake: FakeWebUi, case: HostCase) -> None:
    with pytest.raises(HostError, match="skipped"):
        while_rendering(case, fake.state.skip)


def test_interrupt_while_waiting_for_the_lock_is_kept(
    fake: FakeWebUi, case: HostCase
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with fake.lock:
            job = pool.submit(case.picture)
            threading.Event().wait(0.1)
            case.host.jobs.interrupt()
        with pytest.raises(Cancelled, match="before the picture"):
            job.result()


# The lock


def test_edit_holds_the_hosts_lock(fake: FakeWebUi, case: HostCase) -> None:
    with case.host.loader.edit():
        assert fake.lock.owner == threading.get_ident()
    assert fake.lock.owner is None


@pytest.mark.parametrize("what", ["render", "edit", "load", "restore"])
def test_nesting_is_refused_instead_of_waiting_for_ever(
    case: HostCase, what: str
) -> None:
    def open_again() -> None:
        with case.host.loader.edit():
            pass

    jobs: dict[str, Callable[[], object]] = {
        "render": case.picture,
        "edit": open_again,
        "load": lambda: case.host.loader.load(case.b),
        "restore": case.host.loader.restore,
    }
    with (
        case.host.loader.edit(),
        pytest.raises(HostError, match="open in this very thread"),
    ):
        jobs[what]()
    case.picture()


def test_no_picture_starts_while_a_model_is_open(case: HostCase) -> None:
    before = case.picture()
    with ThreadPoolExecutor(1) as pool:
        with case.host.loader.edit():
            job = pool.submit(case.picture)
            assert not job.done()
        assert job.result() == before


# What a job looks like


def test_job_saves_nothing_and_runs_no_other_script(
    fake: FakeWebUi, case: HostCase
) -> None:
    case.picture(scheduler="Karras", tiling=True)
    job = fake.jobs[-1]
    assert job.do_not_save_samples
    assert job.do_not_save_grid
    assert job.scripts.alwayson_scripts == []
    assert job.script_args == []
    assert job.override_settings == {}
    assert job.is_closed
    assert job.tiling
    assert job.scheduler == "Karras"
    assert fake.state.job == ""


def test_hires_pass_is_asked_for_in_full(fake: FakeWebUi, case: HostCase) -> None:
    request = replace(
        case.request,
        enable_hr=True,
        hr_scale=1.5,
        hr_upscaler="Latent",
        denoising_strength=0.6,
        hr_second_pass_steps=7,
        cfg_scale=5.5,
    )
    (image,) = case.host.renderer.render([request])
    assert image.size == (24, 24)
    job = fake.jobs[-1]
    assert (job.hr_upscaler, job.denoising_strength) == ("Latent", 0.6)
    assert job.hr_second_pass_steps == 7
    assert getattr(job, "hr_cfg", 5.5) == 5.5


def test_sampler_with_its_scheduler_in_one_name_is_taken(case: HostCase) -> None:
    # The hosts take the two apart themselves, as their own API does.
    plain = case.picture(sampler_name="DPM++ 2M")
    assert case.picture(sampler_name="DPM++ 2M Karras") != plain


# Errors of the host


def test_a_hosts_exception_becomes_ours_with_its_cause(case: HostCase) -> None:
    with case.host.loader.edit() as live:
        live.write(UNET_KEY, 0, torch.full((1,), float("nan")))
    with pytest.raises(HostError, match=r"red cat.*seed 3.*NansException") as caught:
        from_a_worker(case.picture)
    assert isinstance(caught.value.__cause__, NansException)
    case.host.loader.restore()
    from_a_worker(case.picture)


def test_out_of_memory_is_an_error_of_its_own(
    fake: FakeWebUi, case: HostCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def use_loras(names: list[str]) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(fake, "use_loras", use_loras)
    with pytest.raises(MemoryLimitError, match=r"16x16.*ran out of memory"):
        from_a_worker(case.picture)


def test_no_picture_and_no_reason_is_an_error(
    fake: FakeWebUi, case: HostCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def process(job: object) -> object:
        return type("Processed", (), {"images": []})()

    monkeypatch.setattr("modules.processing.process_images", process)
    with pytest.raises(HostError, match="returned no picture"):
        case.picture()


def test_a_picture_with_transparency_comes_as_rgb(
    case: HostCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.new("RGBA", (16, 16))

    def process(job: object) -> object:
        return type("Processed", (), {"images": [image]})()

    monkeypatch.setattr("modules.processing.process_images", process)
    assert case.host.renderer.render([case.request])[0].mode == "RGB"


# Quantised weights


@pytest.mark.parametrize("mark", ["bnb_quantized", "gguf_cls", "_layout_cls"])
def test_marked_quantised_weights_are_refused(
    fake: FakeWebUi, case: HostCase, mark: str
) -> None:
    setattr(unet_weight(fake), mark, object())
    with (
        pytest.raises(HostError, match=r"quantised.*Diffusion in Low Bits"),
        case.host.loader.edit(),
    ):
        pass
    case.picture()


def test_fp8_weights_are_refused(fake: FakeWebUi, case: HostCase) -> None:
    weight = unet_weight(fake)
    with torch.inference_mode():
        weight.data = weight.data.to(torch.float8_e4m3fn)
    with pytest.raises(HostError, match="float8_e4m3fn"), case.host.loader.edit():
        pass


def unet_weight(fake: FakeWebUi) -> torch.nn.Parameter:
    model = fake.current_model()
    objects = getattr(model, "forge_objects", None)
    unet = objects.unet.model if objects else model.model
    found = unet.diffusion_model.out.get_submodule("2").weight
    assert isinstance(found, torch.nn.Parameter)
    return found


# Memory layout


def test_channels_last_weights_are_written_in_file_order(
    fake: FakeWebUi, case: HostCase
) -> None:
    case.host.loader.load(case.b)
    wanted = case.picture()
    case.host.loader.load(case.a)
    model = fake.current_model()
    objects = getattr(model, "forge_objects", None)
    unet = objects.unet.model if objects else model.model
    with torch.inference_mode():
        unet.to(memory_format=torch.channels_last)
    case.write_all(case.b)
    assert case.picture() == wanted
