"""Both parents have SD1's keys, load with diffusers and draw something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lib_merge.arch import detect_architecture
from lib_merge.checkpoint.header import read_header
from lib_merge.core.blocks import Treatment
from lib_merge.demo import (
    DEMO_PROMPTS,
    JUDGE_WEIGHTS,
    MODEL_A,
    MODEL_B,
    PAYLOADS_DIR,
    PIPELINE_DIR,
    RENDER,
    _layout,
    _measure,
    train,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "sd1.tsv"
PARENTS = pytest.mark.parametrize("path", [MODEL_A, MODEL_B], ids=["a", "b"])


def _golden_keys(prefix: str) -> set[str]:
    lines = GOLDEN.read_text(encoding="utf-8").splitlines()[1:]
    keys = (line.split("\t")[0] for line in lines)
    return {key for key in keys if key.startswith(prefix)}


@PARENTS
@pytest.mark.parametrize(
    ("prefix", "count"),
    [("model.diffusion_model.", 686), ("first_stage_model.", 248)],
    ids=["unet", "vae"],
)
def test_parent_has_the_keys_of_sd1(path: Path, prefix: str, count: int) -> None:
    with safe_open(path, framework="pt") as file:
        keys = {key for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118

    assert keys == _golden_keys(prefix)
    assert len(keys) == count


@PARENTS
def test_parent_is_sd1_with_a_role_for_every_key(path: Path) -> None:
    header = read_header(path)

    architecture = detect_architecture(header.infos, where=path.name)

    assert architecture.id == "sd1"
    roles = {key: architecture.role_of(key) for key in header.infos}
    assert None not in roles.values()
    assert set(header.infos) <= _golden_keys("")
    blocks = {role.block for role in roles.values() if role is not None}
    assert {block.id for block in architecture.weighted_blocks()} <= blocks
    ids = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    role = roles[ids]
    assert role is not None
    assert role.treatment is Treatment.COPY


def test_parents_are_float16_and_small() -> None:
    files = [MODEL_A, MODEL_B, JUDGE_WEIGHTS]

    assert sum(path.stat().st_size for path in files) <= 20e6
    for path in files:
        kept = ("betas", "alphas_cumprod")
        floats = {
            value.dtype
            for key, value in load_file(path).items()
            if value.is_floating_point() and key not in kept
        }
        assert floats == {torch.float16}


def test_parents_differ_in_every_unet_block_and_nowhere_else() -> None:
    first, second = load_file(MODEL_A), load_file(MODEL_B)

    changed = {key for key in first if not torch.equal(first[key], second[key])}

    blocks = set()
    for key in changed:
        role = _measure.role_of(key)
        assert role is not None
        blocks.add(role.block)
    assert blocks == set(_measure.BLOCKS)


@pytest.fixture(scope="module")
def pipe_a() -> object:
    return train.load_pipeline(MODEL_A)


def test_pipeline_holds_the_stored_values_when_loaded(pipe_a: object) -> None:
    stored = load_file(MODEL_A)

    for name, value in pipe_a.unet.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(value, stored[_layout.unet_key(name)].float()), name


def test_pictures_repeat_and_are_not_flat(pipe_a: object) -> None:
    prompts = list(DEMO_PROMPTS[:2])

    pictures = [np.asarray(p) for p in _measure.render(pipe_a, prompts, seed=1)]
    again = [np.asarray(p) for p in _measure.render(pipe_a, prompts, seed=1)]

    for picture, repeated in zip(pictures, again, strict=True):
        assert picture.shape == (RENDER.height, RENDER.width, 3)
        assert picture.std() > 10
        assert np.array_equal(picture, repeated)


def test_pipeline_and_payload_folders_are_complete() -> None:
    names = ("unet", "vae", "text_encoder", "scheduler")
    assert all(any((PIPELINE_DIR / name).glob("*config.json")) for name in names)
    assert len(list(PAYLOADS_DIR.glob("*.json"))) == len(DEMO_PROMPTS)
