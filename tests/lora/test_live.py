"""LoRAs baked into the loaded model: the same bits as in a file."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from lib_merge.core.dtypes import DType
from lib_merge.core.recipe import Setting
from lib_merge.engine.live import LiveMerger
from tests.engine.test_live import FakeLoader, assert_live_equals_saved
from tests.lora.test_bake import few_tensors, lora_of, recipe_of


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file(few_tensors(), str(path))
    return path


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_live_model_equals_the_saved_file(kind, model, tmp_path):
    path, changes = lora_of(tmp_path, model, kind)
    loader = FakeLoader()
    recipe = recipe_of(model, (path, Setting(0.8)), save=DType.F16)
    report = LiveMerger(loader).merge(recipe)
    assert report.n_changed_keys == len(changes)
    assert_live_equals_saved(loader, recipe, tmp_path)


def test_other_strength_or_other_file_is_merged_anew(model, tmp_path):
    path, changes = lora_of(tmp_path, model)
    loader = FakeLoader()
    merger = LiveMerger(loader)
    for strength in (0.8, 0.3, 0.0):
        recipe = recipe_of(model, (path, Setting(strength)), save=DType.F16)
        assert merger.merge(recipe).n_changed_keys == len(changes)
        assert_live_equals_saved(loader, recipe, tmp_path)
    recipe = recipe_of(model, (path, Setting(0.8)), save=DType.F16)
    merger.merge(recipe)
    before = {key: t.clone() for key, t in loader.params.items()}
    lora_of(tmp_path, model, seed=60)
    merger.merge(recipe)
    assert_live_equals_saved(loader, recipe, tmp_path)
    assert not all(torch.equal(before[key], loader.params[key]) for key in changes)
