"""The standalone renderer: samplers, seeds, batches, the hires pass, interrupts."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL.Image import Image

from lib_merge.core.ports import RenderRequest
from lib_merge.errors import Cancelled, HostError
from lib_merge.hosts.diffusers import SAMPLERS, DiffusersHost
from tests.support.tiny_pipelines import write_checkpoint, write_pipeline

REQUEST = RenderRequest(
    prompt="a red circle", seed=5, steps=2, width=64, height=64, sampler_name="Euler"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("renderer")
    pipeline = write_pipeline(place, "sd1")
    write_checkpoint(place / "a.safetensors", pipeline, "sd1", 1)
    return place


@pytest.fixture(scope="module")
def host(folder: Path) -> DiffusersHost:
    made = DiffusersHost([folder], folder / "out", folder / "data")
    made.loader.load(folder / "a.safetensors")
    return made


def pixels(image: Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def same(one: Image, other: Image) -> bool:
    return bool(np.array_equal(pixels(one), pixels(other)))


@pytest.mark.parametrize("name", [*SAMPLERS, "DPM++ 2M Karras", "Euler Karras"])
def test_every_listed_sampler_renders_its_size(host: DiffusersHost, name: str) -> None:
    (image,) = host.renderer.render([replace(REQUEST, sampler_name=name)])
    assert image.size == (64, 64)
    assert float(pixels(image).std()) > 0


def test_karras_changes_the_picture(host: DiffusersHost) -> None:
    plain = replace(REQUEST, steps=4)
    (one,) = host.renderer.render([plain])
    (other,) = host.renderer.render([replace(plain, scheduler="Karras")])
    (again,) = host.renderer.render([plain])
    assert not same(one, other)
    assert same(one, again)


def test_seed_and_prompt_decide_the_picture(host: DiffusersHost) -> None:
    first, second, third, fourth = host.renderer.render(
        [
            REQUEST,
            replace(REQUEST, seed=6),
            replace(REQUEST, prompt="a blue square"),
            REQUEST,
        ]
    )
    assert same(first, fourth)
    assert not same(first, second)
    assert not same(first, third)


def test_unlike_requests_come_back_in_their_order(host: DiffusersHost) -> None:
    wide = replace(REQUEST, width=128)
    images = host.renderer.render([REQUEST, wide, REQUEST])
    assert [image.size for image in images] == [(64, 64), (128, 64), (64, 64)]
    assert same(images[0], images[2])


def test_hires_pass_enlarges(host: DiffusersHost) -> None:
    request = replace(REQUEST, enable_hr=True, hr_scale=2.0, denoising_strength=0.6)
    (image,) = host.renderer.render([request])
    assert image.size == (128, 128)


def test_unknown_sampler_is_refused_with_the_known_ones(host: DiffusersHost) -> None:
    with pytest.raises(HostError, match=r"'Eulr'.*use one of: Euler"):
        host.renderer.render([replace(REQUEST, sampler_name="Eulr")])


def test_interrupt_ends_the_picture_and_the_next_one_is_whole(
    host: DiffusersHost,
) -> None:
    (wanted,) = host.renderer.render([REQUEST])
    timer = threading.Timer(0.3, host.jobs.interrupt)
    timer.start()
    with pytest.raises(Cancelled, match="interrupted"):
        host.renderer.render([replace(REQUEST, steps=500)])
    timer.join()
    (image,) = host.renderer.render([REQUEST])
    assert same(image, wanted)


def test_rendering_without_a_model_says_so(folder: Path) -> None:
    empty = DiffusersHost([folder], folder / "out", folder / "data")
    with pytest.raises(HostError, match="load one first"):
        empty.renderer.render([REQUEST])


def test_loading_what_is_no_checkpoint_names_the_file(
    folder: Path, tmp_path: Path
) -> None:
    host = DiffusersHost([folder], folder / "out", folder / "data")
    with pytest.raises(HostError, match=r"nothing\.safetensors is not there"):
        host.loader.load(tmp_path / "nothing.safetensors")
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no checkpoint")
    with pytest.raises(HostError, match=r"cannot load bad\.safetensors"):
        host.loader.load(bad)


def test_checkpoint_of_odd_widths_finds_its_configs_elsewhere(
    folder: Path, tmp_path: Path
) -> None:
    """A copy of a small model in another folder."""
    copy = tmp_path / "models" / "copy.safetensors"
    copy.parent.mkdir()
    copy.write_bytes((folder / "a.safetensors").read_bytes())
    out = tmp_path / "out"
    found = DiffusersHost([copy.parent], out, out, config_dirs=[folder])
    found.loader.load(copy)
    assert [e.title for e in found.catalog.checkpoints()] == ["copy.safetensors"]


def test_checkpoint_without_configs_says_where_to_put_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, whatever the hub's client has to say."""
    host = DiffusersHost([folder], tmp_path, tmp_path)

    def build(path: Path) -> None:
        raise OSError("No name.\nAn error happened while ...")

    monkeypatch.setattr(host.loader, "_build", build)
    says = r"OSError: No name\. It must .* their own in a folder 'pipeline' in or"
    with pytest.raises(HostError, match=says) as caught:
        host.loader.load(folder / "a.safetensors")
    assert "\n" not in str(caught.value)


def test_unreadable_file_leaves_the_loaded_model(
    host: DiffusersHost, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no checkpoint")
    before = (host.loader.loaded(), host.loader.identity())
    with pytest.raises(HostError, match="in safetensors format"):
        host.loader.load(bad)
    assert (host.loader.loaded(), host.loader.identity()) == before
    host.renderer.render([REQUEST])


def test_catalog_lists_models_and_saved_merges(folder: Path, tmp_path: Path) -> None:
    host = DiffusersHost([folder], tmp_path / "out", tmp_path / "data")
    assert [e.title for e in host.catalog.checkpoints()] == ["a.safetensors"]
    saved = host.catalog.output_dir() / "m.safetensors"
    saved.write_bytes((folder / "a.safetensors").read_bytes())
    assert host.catalog.register(saved).path == saved
    titles = [e.title for e in host.catalog.checkpoints()]
    assert titles == ["a.safetensors", "m.safetensors"]


def test_clip_skip_changes_the_picture_as_the_webui_counts_it(
    host: DiffusersHost,
) -> None:
    """1 is the last layer, as without it."""
    plain, last, earlier = host.renderer.render(
        [REQUEST, replace(REQUEST, clip_skip=1), replace(REQUEST, clip_skip=2)]
    )
    assert same(plain, last)
    assert not same(plain, earlier)


def test_hires_pass_has_a_prompt_sampler_and_scale_of_its_own(
    host: DiffusersHost,
) -> None:
    """Each of them changes the picture; empty ones take those of the first pass."""
    large = replace(REQUEST, enable_hr=True, hr_scale=2.0, steps=4)
    plain, repeated = host.renderer.render(
        [large, replace(large, hr_prompt=large.prompt, hr_sampler_name="Euler")]
    )
    assert plain.size == (128, 128)
    assert same(plain, repeated)
    changes: list[dict[str, object]] = [
        {"hr_prompt": "a blue square"},
        {"hr_negative_prompt": "a blue square"},
        {"hr_sampler_name": "DDIM"},
        {"hr_cfg": 3.0},
        {"hr_upscaler": "Latent (nearest)"},
    ]
    for change in changes:
        (other,) = host.renderer.render([replace(large, **change)])  # type: ignore[arg-type]
        assert not same(plain, other), change


def test_what_diffusers_cannot_do_is_told(host: DiffusersHost) -> None:
    """One sentence each; nothing of a plain request."""
    assert host.renderer.unsupported(REQUEST) == ()
    odd = replace(
        REQUEST,
        prompt="(a:1.2) <lora:x:1>",
        restore_faces=True,
        tiling=True,
        vae="x.pt",
        styles=("film",),
        override_settings=(("randn_source", "CPU"),),
        subseed_strength=0.5,
        enable_hr=True,
        hr_upscaler="R-ESRGAN 4x+",
    )
    told = host.renderer.unsupported(odd)
    words = (
        *("emphasis", "no faces", "no tiles", "own VAE, not 'x.pt'"),
        *("no styles (film)", "randn_source = 'CPU'", "variation", "'R-ESRGAN 4x+'"),
    )
    assert len(told) == len(words)
    assert all(word in text for word, text in zip(words, told, strict=True))
