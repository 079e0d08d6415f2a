"""Traps of Forge alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_merge.errors import HostError
from tests.contract.host_contract import UNET_KEY, HostCase
from tests.hosts.conftest import MakeFake, case_of
from tests.support.checkpoints import tiny_tensors, write_checkpoint
from tests.support.fake_forge import FakeForge, FakeInitialModel

TOKENS = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
NORM = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
VAE_KEY = "first_stage_model.decoder.conv_out.weight"


@pytest.fixture
def fake(make_fake: MakeFake) -> FakeForge:
    found = make_fake("forge")
    assert isinstance(found, FakeForge)
    return found


@pytest.fixture
def case(fake: FakeForge) -> HostCase:
    return case_of(fake)


def test_label_tells_the_version(case: HostCase) -> None:
    assert case.host.label == "Forge WebUI f2.0.1"


def test_initial_model_counts_as_none(fake: FakeForge, case: HostCase) -> None:
    assert isinstance(fake.data.sd_model, FakeInitialModel)
    assert case.host.loader.loaded() is None
    before = case.host.loader.identity()
    with pytest.raises(HostError, match="no model loaded"), case.host.loader.edit():
        pass
    case.host.loader.restore()
    assert fake.loads == []
    case.host.loader.load(case.a)
    assert case.host.loader.identity() != before


def test_missing_model_counts_as_none(fake: FakeForge, case: HostCase) -> None:
    fake.data.sd_model = None
    assert case.host.loader.loaded() is None
    case.host.loader.load(case.a)
    case.write_all(case.b)


def test_weights_are_inference_tensors(fake: FakeForge, case: HostCase) -> None:
    """The fake is faithful: a plain copy_ fails, and ours does not."""
    case.host.loader.load(case.a)
    unet = fake.data.sd_model.forge_objects.unet.model.diffusion_model
    with torch.no_grad(), pytest.raises(RuntimeError, match="inference tensor"):
        unet.out.get_submodule("2").weight.copy_(torch.zeros(()))
    case.write_all(case.b, [UNET_KEY])


def test_pending_reload_shows_in_the_identity(fake: FakeForge, case: HostCase) -> None:
    case.host.loader.load(case.a)
    before = case.host.loader.identity()
    fake.opts.data["forge_additional_modules"] = ["/vae/other.pt"]
    fake.refresh_model_loading_parameters()
    assert case.host.loader.identity() != before
    # And load() does not take the old model for the wanted one.
    n_loads = len(fake.loads)
    case.host.loader.load(case.a)
    assert len(fake.loads) == n_loads + 1


def test_load_of_the_loaded_file_loads_nothing(fake: FakeForge, case: HostCase) -> None:
    case.host.loader.load(case.a)
    case.host.loader.load(case.a)
    case.picture()
    assert fake.loads == ["a.safetensors"]


def test_failed_load_leaves_no_hash_of_a_model_that_is_gone(
    fake: FakeForge, case: HostCase
) -> None:
    case.host.loader.load(case.a)
    before = case.picture()
    broken = fake.models / "broken.safetensors"
    broken.write_bytes(b"no checkpoint")
    with pytest.raises(HostError, match=r"broken\.safetensors.*recognize model type"):
        case.host.loader.load(broken)
    assert fake.opts.sd_model_checkpoint.startswith("a.safetensors")
    assert case.picture() == before


def test_host_that_takes_another_checkpoint_is_found_out(
    fake: FakeForge, case: HostCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refresh() -> None:
        first = next(iter(fake.lists["list"].values()))
        fake.data.forge_loading_parameters = {"checkpoint_info": first}

    entry = "modules_forge.main_entry.refresh_model_loading_parameters"
    monkeypatch.setattr(entry, refresh)
    with pytest.raises(HostError, match=r"did not load .*b\.safetensors; it has .*a\."):
        case.host.loader.load(case.b)


def test_embeddings_are_rounded_as_on_loading(
    fake: FakeForge, case: HostCase, tmp_path: Path
) -> None:
    """Forge loads them in half precision and widens them at the first prompt."""
    wide = fake.models / "wide.safetensors"
    write_checkpoint(wide, tiny_tensors("sd1", 5, dtype=torch.float32))
    case.host.catalog.register(wide)
    case.host.loader.load(wide)
    wanted = case.picture()
    case.host.loader.load(case.a)
    case.picture()
    case.write_all(wide)
    assert case.picture() == wanted


def test_renders_run_on_the_main_thread_under_the_lock(
    fake: FakeForge, case: HostCase
) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(case.host.loader.load, case.a).result()
        picture = pool.submit(case.picture).result()
    assert fake.render_threads == [fake.main_thread.thread.ident]
    assert case.picture() == picture


def test_exceptions_come_back_from_the_main_thread(
    fake: FakeForge, case: HostCase
) -> None:
    fake.data.forge_hash = "nothing"
    broken = fake.models / "broken.safetensors"
    broken.write_bytes(b"no checkpoint")
    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(HostError, match="recognize model type"),
    ):
        pool.submit(case.host.loader.load, broken).result()


def test_hires_pass_names_no_other_modules(fake: FakeForge, case: HostCase) -> None:
    case.host.loader.load(case.a)
    case.picture(enable_hr=True, hr_upscaler="Latent")
    assert fake.jobs[-1].hr_additional_modules == ["Use same choices"]


def add_module(fake: FakeForge, path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path)
    fake.opts.data["forge_additional_modules"] = [str(path)]


@pytest.mark.parametrize(
    ("key", "width", "free", "taken"),
    [
        ("decoder.conv_in.weight", 4, NORM, VAE_KEY),
        ("text_model.encoder.layers.0.layer_norm1.bias", 768, VAE_KEY, NORM),
        ("text_model.encoder.layers.0.layer_norm1.bias", 1280, VAE_KEY, None),
    ],
    ids=["vae", "clip_l", "clip_g"],
)
def test_parts_from_other_files_are_left_alone(
    fake: FakeForge,
    case: HostCase,
    tmp_path: Path,
    key: str,
    width: int,
    free: str,
    taken: str | None,
) -> None:
    add_module(fake, tmp_path / "x" / "part.safetensors", {key: torch.zeros(width)})
    case.host.loader.load(case.a)
    before = case.picture()
    if taken is not None:
        case.write_all(case.b, [taken])
        assert case.picture() == before
    else:
        case.write_all(case.b, [NORM])
        assert case.picture() != before
    written = case.picture()
    case.write_all(case.b, [free])
    assert case.picture() != written
    with case.host.loader.edit() as live:
        assert live.missing([NORM, VAE_KEY]) == ()


@pytest.mark.parametrize(("folder", "taken"), [("VAE", VAE_KEY), ("text", NORM)])
def test_pickled_parts_are_told_by_their_folder(
    fake: FakeForge, case: HostCase, tmp_path: Path, folder: str, taken: str
) -> None:
    fake.opts.data["forge_additional_modules"] = [str(tmp_path / folder / "part.pt")]
    case.host.loader.load(case.a)
    before = case.picture()
    case.write_all(case.b, [taken])
    assert case.picture() == before


def test_newer_patchers_are_unpatched_by_unloading(
    fake: FakeForge, case: HostCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neo's patcher is ComfyUI's: it has a backup and no refresh_loras."""
    case.host.loader.load(case.a)
    objects = fake.data.sd_model.forge_objects_original
    calls: list[str] = []

    class Patcher:
        backup: dict[str, object]
        offload_device = "cpu"

        def __init__(self, model: object, backup: dict[str, object]) -> None:
            self.model, self.backup = model, backup

        def unpatch_model(self, device: object) -> None:
            calls.append("unpatch")

    objects.unet = Patcher(objects.unet.model, {})
    objects.clip.patcher = Patcher(objects.clip.cond_stage_model, {"key": 1})
    management = type(pytest)("backend.memory_management")
    management.unload_all_models = lambda: calls.append("unload")
    package = type(pytest)("backend")
    package.memory_management = management
    monkeypatch.setitem(__import__("sys").modules, "backend", package)
    case.write_all(case.b, [UNET_KEY])
    assert calls == ["unload", "unpatch"]


def test_the_chosen_checkpoint_is_an_entry_of_forges_own_list(
    fake: FakeForge, case: HostCase
) -> None:
    """Its list has names without hashes, and shows nothing for any other text."""
    case.host.loader.load(case.b)
    assert fake.opts.data["sd_model_checkpoint"] == "b.safetensors"
    case.picture()
    case.host.loader.load(case.b)
    assert fake.opts.data["sd_model_checkpoint"] == "b.safetensors"
