"""Packs of small tensors: the same bits as one by one, and what is left alone."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from lib_merge.core.blocks import BlockId
from lib_merge.core.dtypes import DType
from lib_merge.core.recipe import NonFinite, Recipe, Setting, simple_recipe
from lib_merge.engine import _packs
from lib_merge.engine.live import LiveMerger
from lib_merge.engine.run import RunOptions
from lib_merge.errors import NonFiniteError
from lib_merge.methods import methods
from tests.engine.test_live import FakeLoader
from tests.support.checkpoints import tiny_part, write_checkpoint

PACKED = RunOptions(cache_bytes=1 << 30, chunk_elements=64)
ONE_BY_ONE = RunOptions(cache_bytes=0, chunk_elements=64)

BY_VALUE = [
    method.id
    for method in methods()
    if _packs._is_by_value(method) and not method.is_pool
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate("abc"):
        tensors = tiny_part(seed + 1, dtype=torch.float32)
        write_checkpoint(tmp_path / f"{name}.safetensors", tensors)
    return tmp_path


def recipe_of(folder: Path, method: str, **options: object) -> Recipe:
    spec = methods().get(method)
    files = tuple(
        str(folder / f"{name}.safetensors") for name in "abc"[: spec.min_models]
    )
    params = {}
    if spec.block_param is not None:
        param = spec.block_param.param
        value = param.low + 0.3 * (min(param.high, 1.0) - param.low)
        blocks = ((BlockId("IN04"), value), (BlockId("M00"), param.low))
        params[spec.block_param.name] = Setting(value, blocks)
    return simple_recipe(method, files, params, **options)


def merged(recipe: Recipe, options: RunOptions) -> FakeLoader:
    loader = FakeLoader()
    merger = LiveMerger(loader)
    merger.merge(recipe, options=options)
    return loader


@pytest.mark.parametrize("method", BY_VALUE)
@pytest.mark.parametrize("dtype", [DType.F16, DType.F32], ids=str)
def test_packed_merge_has_the_same_bits(
    method: str, dtype: DType, folder: Path
) -> None:
    recipe = recipe_of(folder, method, save_dtype=dtype)
    packed, plain = merged(recipe, PACKED), merged(recipe, ONE_BY_ONE)
    assert packed.params.keys() == plain.params.keys()
    for key, values in plain.params.items():
        assert torch.equal(packed.params[key], values), key


def test_small_tensors_of_a_block_are_merged_with_one_call(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = _packs._apply
    monkeypatch.setattr(_packs, "_apply", lambda *args: calls.append(1) or real(*args))
    loader = merged(recipe_of(folder, "weighted_sum"), PACKED)
    assert 0 < len(calls) < len(loader.written) / 2


def test_packs_are_read_once_and_forgotten_with_their_models(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    real = _packs._read
    monkeypatch.setattr(_packs, "_read", lambda *args: reads.append(1) or real(*args))
    merger = LiveMerger(FakeLoader())
    recipe = recipe_of(folder, "weighted_sum")
    merger.merge(recipe, options=PACKED)
    n_reads = len(reads)
    other = recipe_of(folder, "weighted_sum", save_dtype=DType.F32)
    merger.merge(other, options=PACKED)
    assert len(reads) == n_reads
    tensors = tiny_part(9, dtype=torch.float32)
    write_checkpoint(folder / "b.safetensors", tensors)
    merger.merge(recipe, options=PACKED)
    assert len(reads) == 2 * n_reads


def test_block_stored_in_two_types_is_merged_one_by_one(folder: Path) -> None:
    tensors = tiny_part(2, dtype=torch.float32)
    for key in list(tensors)[::2]:
        if tensors[key].is_floating_point():
            tensors[key] = tensors[key].half()
    write_checkpoint(folder / "b.safetensors", tensors)
    recipe = recipe_of(folder, "weighted_sum")
    packed, plain = merged(recipe, PACKED), merged(recipe, ONE_BY_ONE)
    for key, values in plain.params.items():
        assert torch.equal(packed.params[key], values), key


def test_nan_in_a_model_is_told_as_without_packs(folder: Path) -> None:
    tensors = tiny_part(2, dtype=torch.float32)
    key = "model.diffusion_model.out.2.weight"
    tensors[key].view(-1)[0] = math.nan
    write_checkpoint(folder / "b.safetensors", tensors)
    with pytest.raises(NonFiniteError, match=f"'{key}' holds values that are NaN"):
        merged(recipe_of(folder, "weighted_sum"), PACKED)
    keep = recipe_of(folder, "weighted_sum", on_non_finite=NonFinite.KEEP)
    packed, plain = merged(keep, PACKED), merged(keep, ONE_BY_ONE)
    assert torch.equal(packed.params[key].isnan(), plain.params[key].isnan())


def test_result_that_overflows_is_told_as_without_packs(folder: Path) -> None:
    tensors = tiny_part(2, dtype=torch.float32)
    key = "model.diffusion_model.out.2.weight"
    tensors[key].view(-1)[0] = 3e6
    write_checkpoint(folder / "b.safetensors", tensors)
    with pytest.raises(NonFiniteError, match="float16"):
        merged(recipe_of(folder, "weighted_sum", save_dtype=DType.F16), PACKED)
