"""What every host must do; each implementation and each fake runs it unchanged."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lib_merge.core.ports import Host, LiveModel, RenderRequest
from lib_merge.errors import Cancelled, HostError

UNET_KEY = "model.diffusion_model.middle_block.0.in_layers.2.weight"


@dataclass(frozen=True)
class HostCase:
    """A host with two checkpoints of one architecture that its catalog lists.

    Attributes:
        host: Nothing is loaded by us yet.
        a: A checkpoint.
        b: Another; schedule constants and position ids equal a's.
        request: A quick picture.
        long_request: A picture that takes a second or more.
    """

    host: Host
    a: Path
    b: Path
    request: RenderRequest
    long_request: RenderRequest

    def picture(self, **changes: object) -> bytes:
        """The pixels of one picture."""
        request = replace(self.request, **changes)  # type: ignore[arg-type]
        (image,) = self.host.renderer.render([request])
        return image.tobytes()

    def write_all(self, path: Path, keys: Sequence[str] | None = None) -> None:
        """Write a file's values over the loaded model's."""
        tensors = load_file(path)
        with self.host.loader.edit() as live:
            for key in tensors if keys is None else keys:
                live.write(key, 0, tensors[key].reshape(-1))


def pieces(n_elements: int, step: int) -> Iterator[tuple[int, int]]:
    """Ranges that cover a flat tensor, the last one shorter."""
    for start in range(0, n_elements, step):
        yield start, min(start + step, n_elements)


def write_piece(live: LiveModel, key: str, start: int, flat: torch.Tensor) -> None:
    # A buffer that is reused after the call, as the engine does.
    buffer = flat.clone()
    live.write(key, start, buffer)
    buffer.fill_(7)


class HostContract:
    """Subclass it and give a fixture `case` that returns a `HostCase`."""

    def test_id_and_label_are_given(self, case: HostCase) -> None:
        assert case.host.id.isidentifier()
        assert case.host.label.strip()

    def test_device_is_one_that_torch_knows(self, case: HostCase) -> None:
        assert torch.device(case.host.devices.device()).type in {"cpu", "cuda", "mps"}

    def test_catalog_lists_both_checkpoints(self, case: HostCase) -> None:
        entries = case.host.catalog.checkpoints()
        assert {case.a.resolve(), case.b.resolve()} <= {e.path for e in entries}
        assert len({e.title for e in entries}) == len(entries)

    def test_folders_exist_and_stay_the_same(self, case: HostCase) -> None:
        catalog = case.host.catalog
        for folder in (catalog.output_dir, catalog.data_dir):
            assert folder().is_dir()
            assert folder() == folder()

    def test_register_makes_a_saved_file_loadable(self, case: HostCase) -> None:
        path = case.host.catalog.output_dir() / "fresh.safetensors"
        shutil.copy(case.b, path)
        entry = case.host.catalog.register(path)
        assert entry.path == path.resolve()
        assert entry in case.host.catalog.checkpoints()
        case.host.loader.load(path)
        fresh = case.picture()
        case.host.loader.load(case.b)
        assert case.picture() == fresh

    def test_refresh_finds_a_file_that_was_put_there(self, case: HostCase) -> None:
        path = case.host.catalog.output_dir() / "copied_in.safetensors"
        shutil.copy(case.b, path)
        case.host.catalog.refresh()
        listed = {entry.path for entry in case.host.catalog.checkpoints()}
        assert {path.resolve(), case.a.resolve(), case.b.resolve()} <= listed
        case.host.loader.load(path)
        assert case.host.loader.loaded() == path.resolve()

    def test_a_file_saved_anew_is_loaded_anew(self, case: HostCase) -> None:
        path = case.host.catalog.output_dir() / "changing.safetensors"
        shutil.copy(case.a, path)
        case.host.catalog.register(path)
        case.host.loader.load(path)
        before = case.picture()
        shutil.copy(case.b, path)
        case.host.loader.load(path)
        assert case.picture() != before

    def test_register_refuses_a_file_that_is_not_there(self, case: HostCase) -> None:
        path = case.host.catalog.output_dir() / "absent.safetensors"
        with pytest.raises(HostError, match=r"absent\.safetensors is not there"):
            case.host.catalog.register(path)

    def test_load_is_told_by_loaded(self, case: HostCase) -> None:
        for path in (case.a, case.b, case.a):
            case.host.loader.load(path)
            assert case.host.loader.loaded() == path.resolve()

    def test_load_of_a_missing_file_keeps_the_model(self, case: HostCase) -> None:
        case.host.loader.load(case.a)
        before = case.picture()
        with pytest.raises(HostError, match=r"absent\.safetensors"):
            case.host.loader.load(case.a.with_name("absent.safetensors"))
        assert case.host.loader.loaded() == case.a.resolve()
        assert case.picture() == before

    def test_load_of_a_broken_file_keeps_the_model(self, case: HostCase) -> None:
        case.host.loader.load(case.a)
        before = case.picture()
        broken = case.host.catalog.output_dir() / "broken.safetensors"
        broken.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
        with pytest.raises(HostError, match=r"broken\.safetensors"):
            case.host.loader.load(broken)
        assert case.host.loader.loaded() == case.a.resolve()
        assert case.picture() == before

    def test_same_request_gives_the_same_picture(self, case: HostCase) -> None:
        case.host.loader.load(case.a)
        assert case.picture() == case.picture()
        assert case.picture() != case.picture(seed=case.request.seed + 1)
        assert case.picture() != case.picture(prompt="something else")

    def test_pictures_come_in_the_order_of_the_requests(self, case: HostCase) -> None:
        case.host.loader.load(case.a)
        requests = [replace(case.request, seed=seed) for seed in (5, 6, 7)]
        images = case.host.renderer.render(requests)
        for seed, image in zip((5, 6, 7), images, strict=True):
            alone = np.frombuffer(case.picture(seed=seed), dtype=np.uint8)
            together = np.frombuffer(image.tobytes(), dtype=np.uint8)
            # Sums in a batch may be rounded otherwise than alone.
            assert np.abs(alone.astype(int) - together).max() <= 2
        assert images[0].size == (case.request.width, case.request.height)
        assert images[0].mode == "RGB"
        assert case.host.renderer.render([]) == []

    def test_models_give_different_pictures(self, case: HostCase) -> None:
        case.host.loader.load(case.a)
        first = case.picture()
        case.host.loader.load(case.b)
        assert case.picture() != first

    def test_identity_changes_with_loads_only(self, case: HostCase) -> None:
        loader = case.host.loader
        loader.load(case.a)
        before = loader.identity()
        case.picture()
        case.write_all(case.b)
        loader.load(case.a)
        assert loader.identity() == before
        loader.restore()
        restored = loader.identity()
        assert restored != before
        loader.load(case.b)
        assert loader.identity() != restored
        loader.load(case.a)
        assert loader.identity() not in (before, restored)

    def test_writing_every_key_equals_loading(self, case: HostCase) -> None:
        case.host.loader.load(case.b)
        wanted = case.picture()
        case.host.loader.load(case.a)
        case.picture()
        case.write_all(case.b)
        assert case.picture() == wanted

    def test_writing_runs_from_threads_equals_loading(self, case: HostCase) -> None:
        case.host.loader.load(case.b)
        wanted = case.picture()
        case.host.loader.load(case.a)
        flat = {key: t.reshape(-1) for key, t in load_file(case.b).items()}
        with case.host.loader.edit() as live, ThreadPoolExecutor(4) as pool:
            jobs = [
                pool.submit(write_piece, live, key, start, values[start:stop])
                for key, values in flat.items()
                for start, stop in pieces(values.numel(), values.numel() // 3 + 1)
            ]
        for job in jobs:
            job.result()
        assert case.picture() == wanted

    def test_every_part_of_the_model_is_reached(self, case: HostCase) -> None:
        case.host.loader.load(case.a)
        keys = tuple(load_file(case.b))
        for prefixes in (
            ("model.diffusion_model.",),
            ("first_stage_model.decoder.", "first_stage_model.post_quant_conv."),
            ("cond_stage_model.", "conditioner."),
        ):
            before = case.picture()
            # The prompt is the same: a host's cache of it must not survive the edit.
            case.write_all(case.b, [key for key in keys if key.startswith(prefixes)])
            assert case.picture() != before, prefixes

    def test_every_key_of_the_file_has_its_place(self, case: HostCase) -> None:
        case.host.loader.load(case.a)
        keys = tuple(load_file(case.a))
        odd = "model.diffusion_model.input_blocks.99.0.weight"
        with case.host.loader.edit() as live:
            assert live.refusal() is None
            assert live.missing(keys) == ()
            assert live.missing((keys[0], odd)) == (odd,)

    def test_write_refuses_what_has_no_place(self, case: HostCase) -> None:
        case.host.loader.load(case.a)
        n_elements = load_file(case.a)[UNET_KEY].numel()
        before = case.picture()
        with case.host.loader.edit() as live:
            with pytest.raises(HostError, match=r"input_blocks\.99"):
                live.write("model.diffusion_model.input_blocks.99.w", 0, torch.ones(1))
            with pytest.raises(HostError, match=r"in_layers\.2\.weight"):
                live.write(UNET_KEY, n_elements, torch.ones(1))
            live.write("betas", 0, torch.ones(1000))
        assert case.picture() == before

    def test_restore_brings_the_file_back(self, case: HostCase) -> None:
        case.host.loader.load(case.a)
        before = case.picture()
        case.write_all(case.b)
        assert case.picture() != before
        case.host.loader.restore()
        assert case.host.loader.loaded() == case.a.resolve()
        assert case.picture() == before

    def test_a_switch_to_and_fro_brings_the_file_back(self, case: HostCase) -> None:
        case.host.loader.load(case.a)
        before = case.picture()
        case.write_all(case.b)
        case.host.loader.load(case.b)
        case.picture()
        case.host.loader.load(case.a)
        assert case.picture() == before

    def test_ten_edits_in_a_row_equal_loading_the_last(self, case: HostCase) -> None:
        case.host.loader.load(case.b)
        wanted = case.picture()
        case.host.loader.load(case.a)
        for path in (case.b, case.a) * 5:
            case.write_all(path)
            assert (case.picture() == wanted) == (path == case.b)
        case.write_all(case.b)
        assert case.picture() == wanted

    def test_an_exception_in_an_edit_frees_the_host(self, case: HostCase) -> None:
        case.host.loader.load(case.a)
        with pytest.raises(ZeroDivisionError), case.host.loader.edit():
            raise ZeroDivisionError
        case.picture()

    def test_interrupt_ends_a_picture_early(self, case: HostCase) -> None:
        case.host.loader.load(case.a)
        before = case.picture()
        timer = threading.Timer(0.2, case.host.jobs.interrupt)
        timer.start()
        with pytest.raises(Cancelled, match=r"[Ii]nterrupted|[Ss]topped"):
            case.host.renderer.render([case.long_request])
        timer.join()
        assert case.picture() == before

    def test_an_old_interrupt_does_not_stop_the_next(self, case: HostCase) -> None:
        case.host.loader.load(case.a)
        before = case.picture()
        case.host.jobs.interrupt()
        assert case.picture() == before

    def test_pictures_from_two_threads_do_not_mix(self, case: HostCase) -> None:
        case.host.loader.load(case.a)
        wanted = [case.picture(seed=seed) for seed in (1, 2)]
        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(case.picture, seed=s) for s in (1, 2, 1, 2)]
            assert [job.result() for job in jobs] == wanted * 2

    def test_an_unknown_sampler_is_refused_by_name(self, case: HostCase) -> None:
        case.host.loader.load(case.a)
        with pytest.raises(HostError, match=r"Nonsense.*Euler"):
            case.picture(sampler_name="Nonsense")
