"""Live merges: equal to the saved file, only what changes is written, faults undone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_merge.core.blocks import BlockId
from lib_merge.core.dtypes import DType
from lib_merge.core.recipe import Setting, simple_recipe
from lib_merge.engine.live import LiveMerger
from lib_merge.engine.progress import JobProgress
from lib_merge.engine.run import RunOptions
from lib_merge.engine.save import merge_to_file
from lib_merge.errors import Cancelled, HostError, NonFiniteError, RecipeError
from tests.support.checkpoints import tiny_part, write_checkpoint

UNET_KEY = "model.diffusion_model.input_blocks.4.0.in_layers.0.weight"
OUT_KEY = "model.diffusion_model.out.2.weight"
NOT_IN_MODEL = (
    "betas",
    "cond_stage_model.transformer.text_model.embeddings.position_ids",
)


class FakeLoader:
    """Holds a model in float16 like a WebUI, its parameters cast on the way in."""

    def __init__(self, *, refusal: str | None = None) -> None:
        self.path: Path | None = None
        self.params: dict[str, torch.Tensor] = {}
        self.n_loads = 0
        self.written: list[str] = []
        self.fail_after: int | None = None
        self._refusal = refusal
        self._lock = threading.Lock()
        self.is_open = False

    def loaded(self) -> Path | None:
        return self.path

    def load(self, path: Path) -> None:
        if path != self.path:
            self._load(path)

    def _load(self, path: Path) -> None:
        self.path = path
        self.n_loads += 1
        self.params = {
            key: tensor.half()
            for key, tensor in load_file(path).items()
            if key not in NOT_IN_MODEL
        }

    def identity(self) -> object:
        return self.n_loads

    def restore(self) -> None:
        assert self.path is not None
        self._load(self.path)

    @contextmanager
    def edit(self) -> Iterator[FakeLoader]:
        assert not self.is_open
        self.is_open = True
        self.written = []
        try:
            yield self
        finally:
            self.is_open = False

    def refusal(self) -> str | None:
        return self._refusal

    def missing(self, keys: Sequence[str]) -> tuple[str, ...]:
        return tuple(key for key in keys if key not in self.params)

    def write(self, key: str, start: int, values: torch.Tensor) -> None:
        with self._lock:
            assert self.is_open
            if self.fail_after is not None and len(self.written) >= self.fail_after:
                raise RuntimeError("the host lost its model")
            self.written.append(key)
            flat = self.params[key].view(-1)
            flat[start : start + len(values)] = values.to(flat.dtype)


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate("abc"):
        tensors = tiny_part(seed + 1, dtype=torch.float32)
        write_checkpoint(tmp_path / f"{name}.safetensors", tensors)
    return tmp_path


def recipe_of(folder, names="ab", *, alpha=0.3, blocks=(), **options):
    files = tuple(str(folder / f"{name}.safetensors") for name in names)
    setting = Setting(alpha, tuple((BlockId(b), v) for b, v in blocks))
    return simple_recipe("weighted_sum", files, {"alpha": setting}, **options)


def assert_live_equals_saved(loader, recipe, folder):
    """The live model is, bit by bit, the saved file really loaded."""
    saved = merge_to_file(recipe, folder / "saved.safetensors", overwrite=True)
    other = FakeLoader()
    other.load(saved.path)
    assert set(other.params) == set(loader.params)
    for key, tensor in other.params.items():
        assert torch.equal(tensor, loader.params[key]), key


@pytest.mark.parametrize(
    "save_dtype", [DType.F16, DType.BF16, DType.F8_E4M3, DType.F32, None], ids=str
)
@pytest.mark.parametrize("n_threads", [1, 3], ids=["one", "three"])
def test_live_model_equals_the_saved_file_when_merged(folder, save_dtype, n_threads):
    loader = FakeLoader()
    merger = LiveMerger(loader)
    recipe = recipe_of(folder, save_dtype=save_dtype)
    merger.merge(recipe, options=RunOptions(n_threads=n_threads))
    assert_live_equals_saved(loader, recipe, folder)
    assert merger.is_merged()
    assert merger.recipe() == recipe


def test_live_model_stays_equal_when_recipes_follow_each_other(folder):
    loader = FakeLoader()
    merger = LiveMerger(loader)
    recipes = [
        recipe_of(folder),
        recipe_of(folder, blocks=(("IN04", 0.9),)),
        recipe_of(folder, "ac"),
        recipe_of(folder, "ab", alpha=0.0),
        recipe_of(folder, "ba", alpha=0.7),
        recipe_of(folder, "ba", alpha=0.7, save_dtype=DType.BF16),
    ]
    for recipe in recipes:
        merger.merge(recipe, options=RunOptions(cache_bytes=1 << 30))
        assert_live_equals_saved(loader, recipe, folder)


def test_only_changed_keys_are_written_when_one_block_changes(folder):
    loader = FakeLoader()
    merger = LiveMerger(loader)
    merger.merge(recipe_of(folder))
    assert loader.n_loads == 1
    report = merger.merge(recipe_of(folder, blocks=(("IN04", 0.9),)))
    assert {key.split(".")[3] for key in loader.written} == {"4"}
    assert report.n_changed_keys == len(set(loader.written)) == 4
    assert loader.n_loads == 1


def test_nothing_is_written_when_the_recipe_is_live_already(folder):
    loader = FakeLoader()
    merger = LiveMerger(loader)
    first = merger.merge(recipe_of(folder))
    loader.written = []
    report = merger.merge(recipe_of(folder))
    assert (report.n_changed_keys, loader.written) == (0, [])
    assert report.recipe_digest == first.recipe_digest


def test_unchanged_keys_are_left_alone_when_the_model_was_just_loaded(folder):
    loader = FakeLoader()
    LiveMerger(loader).merge(recipe_of(folder, save_dtype=DType.F32))
    assert not any(key.startswith("first_stage_model.") for key in loader.written)


def test_everything_is_written_when_somebody_merged_before_us(folder):
    loader = FakeLoader()
    LiveMerger(loader).merge(recipe_of(folder, alpha=0.9))
    recipe = recipe_of(folder, components=())
    LiveMerger(loader).merge(recipe)
    assert loader.n_loads == 1
    assert_live_equals_saved(loader, recipe, folder)


def test_merge_starts_over_when_somebody_loaded_another_model(folder):
    loader = FakeLoader()
    merger = LiveMerger(loader)
    merger.merge(recipe_of(folder))
    loader.load(folder / "c.safetensors")
    assert not merger.is_merged()
    assert merger.recipe() is None
    recipe = recipe_of(folder, blocks=(("IN04", 0.9),))
    merger.merge(recipe)
    assert loader.path == folder / "a.safetensors"
    assert_live_equals_saved(loader, recipe, folder)


def test_merge_starts_over_when_the_host_reloaded_the_same_file(folder):
    loader = FakeLoader()
    merger = LiveMerger(loader)
    merger.merge(recipe_of(folder))
    loader.restore()
    recipe = recipe_of(folder, blocks=(("IN04", 0.9),))
    merger.merge(recipe)
    assert_live_equals_saved(loader, recipe, folder)


def test_restore_brings_the_first_model_back(folder):
    loader = FakeLoader()
    merger = LiveMerger(loader)
    merger.merge(recipe_of(folder))
    merger.restore()
    assert not merger.is_merged()
    original = load_file(folder / "a.safetensors")
    for key, tensor in loader.params.items():
        assert torch.equal(tensor, original[key].half())
    loads = loader.n_loads
    merger.restore()
    assert loader.n_loads == loads


@pytest.mark.parametrize("n_threads", [1, 3], ids=["one", "three"])
def test_model_is_restored_when_the_host_fails_midway(folder, n_threads):
    loader = FakeLoader()
    merger = LiveMerger(loader)
    merger.merge(recipe_of(folder))
    loader.fail_after = 3
    with pytest.raises(RuntimeError, match="lost its model"):
        merger.merge(
            recipe_of(folder, alpha=0.8), options=RunOptions(n_threads=n_threads)
        )
    original = load_file(folder / "a.safetensors")
    assert all(torch.equal(t, original[k].half()) for k, t in loader.params.items())
    assert not merger.is_merged()
    loader.fail_after = None
    recipe = recipe_of(folder, alpha=0.8)
    merger.merge(recipe)
    assert_live_equals_saved(loader, recipe, folder)


def test_error_says_so_when_a_result_is_not_finite_and_the_model_was_restored(folder):
    tensors = tiny_part(9)
    tensors[OUT_KEY].fill_(60_000)
    write_checkpoint(folder / "b.safetensors", tensors)
    loader = FakeLoader()
    with pytest.raises(NonFiniteError, match=r"does not fit .*model was restored\."):
        LiveMerger(loader).merge(recipe_of(folder, alpha=2.0))
    original = load_file(folder / "a.safetensors")
    assert all(torch.equal(t, original[k].half()) for k, t in loader.params.items())


def test_model_is_restored_when_the_user_cancels(folder):
    progress = JobProgress(lambda s: s.done and progress.cancel(), min_interval_s=0)
    loader = FakeLoader()
    with pytest.raises(Cancelled, match="model was restored"):
        LiveMerger(loader).merge(recipe_of(folder), progress=progress)
    original = load_file(folder / "a.safetensors")
    assert all(torch.equal(t, original[k].half()) for k, t in loader.params.items())


def test_error_names_both_faults_when_restoring_fails_too(folder, monkeypatch):
    loader = FakeLoader()
    loader.fail_after = 1

    def fail() -> None:
        raise HostError("the file is gone")

    monkeypatch.setattr(loader, "restore", fail)
    with pytest.raises(HostError, match=r"lost its model.*the file is gone"):
        LiveMerger(loader).merge(recipe_of(folder))


def test_merge_refuses_and_touches_nothing_when_the_host_refuses(folder):
    loader = FakeLoader(refusal="its weights are quantised")
    with pytest.raises(HostError, match="its weights are quantised"):
        LiveMerger(loader).merge(recipe_of(folder))
    assert loader.written == []
    assert loader.n_loads == 1


def test_nothing_is_loaded_when_the_recipe_is_wrong(folder):
    loader = FakeLoader()
    with pytest.raises(RecipeError, match="alpha=9"):
        LiveMerger(loader).merge(recipe_of(folder, alpha=9))
    assert loader.n_loads == 0


def test_keys_without_a_place_are_skipped_and_named(folder):
    class Smaller(FakeLoader):
        def missing(self, keys):
            return (UNET_KEY,)

    report = LiveMerger(Smaller()).merge(recipe_of(folder))
    assert report.skipped_keys == (UNET_KEY,)
