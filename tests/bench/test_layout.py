"""The pool benchmark's models are what they are said to be."""

from __future__ import annotations

import math

from lib_merge.arch import detect_architecture
from lib_merge.core.blocks import TensorInfo
from lib_merge.core.dtypes import DType
from tests.bench._pool_contestants import pool_shape, pool_shapes
from tests.support.checkpoints import golden_rows, golden_shape

SHAPES = pool_shapes(is_full=True)


def test_pool_model_is_sd1_of_318_million_values() -> None:
    infos = {key: TensorInfo(DType.from_code(d), shape) for key, d, shape in SHAPES}
    assert detect_architecture(infos, where="pool").id == "sd1"
    n_values = sum(math.prod(shape) for _, _, shape in SHAPES)
    assert round(n_values / 1e6) == 318


def test_pool_model_keeps_the_blocks_that_are_320_wide_in_sd1() -> None:
    parts = ("input_blocks.1.", "input_blocks.2.", "output_blocks.11.", "time_embed.")
    for row in golden_rows("sd1"):
        key, shape = row["key"], golden_shape(row)
        if key.startswith(tuple(f"model.diffusion_model.{part}" for part in parts)):
            assert pool_shape(key, shape) == shape


def test_pool_model_has_no_level_wider_than_the_first() -> None:
    convolutions = {
        shape
        for key, _, shape in SHAPES
        if key.startswith("model.diffusion_model.") and len(shape) == 4
    }
    assert max(max(shape) for shape in convolutions) == 640
    assert {shape[0] for shape in convolutions} == {4, 320}
