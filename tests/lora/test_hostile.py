"""LoRA files that are damaged, hostile or of something else: one clear error each."""

from __future__ import annotations

import contextlib
import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lib_merge.errors import CheckpointError, MergeError
from lib_merge.lora.file import read_lora
from lib_merge.lora.fit import bind
from lib_merge.lora.summary import summarise_lora
from tests.lora import makers

SHAPE = (12, 8)


def file_of(folder, tensors):
    path = folder / "bad.safetensors"
    tensors = {name: t.contiguous() for name, t in tensors.items()}
    save_file(tensors, str(path))
    return path


def changed(**parts):
    """A module of which some parts are others, or None for left out."""
    tensors = makers.module("lora", makers.TO_Q, SHAPE)
    for part, tensor in parts.items():
        name = f"{makers.TO_Q}.{part.replace('__', '.')}"
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
    return tensors


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (changed(lora_up__weight=None), "has alpha, down but no up"),
        (changed(lora_down__weight=None), "has alpha, up but no down"),
        (
            changed(lora_up__weight=torch.zeros(12, 5)),
            r"the ranks of up and down differ \(5 and 4\)",
        ),
        (changed(lora_up__weight=torch.zeros(12)), "up has only 1 axes"),
        (changed(lora_up__weight=torch.zeros(12, 4, 3)), "not rows by rank"),
        (changed(lora_down__weight=torch.zeros(())), "has shapes"),
        (changed(alpha=torch.zeros(2)), "is no single number"),
        (changed(dora_scale=torch.zeros(5, 1)), r"dora_scale is \[5, 1\]"),
        (changed(dora_scale=torch.zeros(1, 5)), r"dora_scale is \[1, 5\]"),
        (changed(alpha=torch.tensor(float("nan"))), "alpha' is nan"),
        (changed(alpha=torch.tensor(float("inf"))), "alpha' is inf"),
        (
            changed(lora_up__weight=torch.zeros(12, 4, dtype=torch.int32)),
            "lora_up.weight' is int32",
        ),
        (
            changed(
                lora_up__weight=torch.zeros(1, 20000),
                lora_down__weight=torch.zeros(20000, 1),
            ),
            "rank 20000 of 1 rows",
        ),
        ({f"{makers.TO_Q}.hada_w1_a": torch.zeros(4, 2)}, "no hada_w1_b"),
        (
            {f"{makers.TO_Q}.oft_blocks": torch.zeros(2, 3, 4)},
            "the sides of a block differ",
        ),
        ({"model.diffusion_model.out.2.weight": torch.zeros(2)}, "is no LoRA: none"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_file_is_refused_by_name(tensors, message, tmp_path):
    path = file_of(tmp_path, tensors)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_lora(path)
    assert str(path) in str(caught.value)


def test_two_kinds_of_names_in_one_file_are_refused(tmp_path):
    tensors = makers.module("lora", makers.TO_Q, SHAPE)
    other = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors |= {
        f"{other}.lora_A.weight": torch.zeros(2, 8),
        f"{other}.lora_B.weight": torch.zeros(12, 2),
    }
    path = file_of(tmp_path, tensors)
    with pytest.raises(CheckpointError, match=r"changes .*to_q\.weight twice"):
        bind(read_lora(path), "sd1")


def test_one_part_under_two_names_is_refused(tmp_path):
    tensors = makers.module("lora", makers.TO_Q, SHAPE)
    tensors[f"{makers.TO_Q}.lora_B.weight"] = torch.zeros(12, 4)
    with pytest.raises(CheckpointError, match="names one part twice"):
        read_lora(file_of(tmp_path, tensors))


def test_unknown_parts_are_reported_by_name(tmp_path):
    tensors = makers.module("lora", makers.TO_Q, SHAPE)
    tensors |= {"lora_unet_x.oft_diag": torch.zeros(3)}
    tensors |= {f"{makers.TO_Q}.rescale": torch.zeros(12, 1)}
    found = read_lora(file_of(tmp_path, tensors))
    assert set(found.strangers) == {"lora_unet_x.oft_diag", f"{makers.TO_Q}.rescale"}


def test_architecture_without_known_names_is_refused(tmp_path):
    path = file_of(tmp_path, makers.module("lora", makers.TO_Q, SHAPE))
    with pytest.raises(CheckpointError, match=r"LoRAs for .* cannot be read"):
        bind(read_lora(path), "pixart_of_tomorrow")


PEFT = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"lora_alpha": 8}, 2.0),
        ({"lora_alpha": 8, "use_rslora": True}, 4.0),
        ({"lora_alpha": 8, "alpha_pattern": {"attn1.to_q": 2}}, 0.5),
        ({}, 1.0),
        ({"lora_alpha": "x"}, 1.0),
        ([], 1.0),
    ],
    ids=["alpha", "rslora", "pattern", "none", "text", "list"],
)
def test_alpha_of_peft_is_read_from_its_config(config, scale, tmp_path):
    tensors = {
        f"{PEFT}.lora_A.weight": torch.zeros(4, 8),
        f"{PEFT}.lora_B.weight": torch.zeros(12, 4),
    }
    path = tmp_path / "adapter_model.safetensors"
    save_file(tensors, str(path))
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert read_lora(path).modules[0].scale == scale
    in_file = tmp_path / "pytorch_lora_weights.safetensors"
    save_file(tensors, str(in_file), {"lora_adapter_metadata": json.dumps(config)})
    assert read_lora(in_file).modules[0].scale == scale


_PARTS = st.sampled_from(
    [
        *("lora_up.weight", "lora_down.weight", "lora_mid.weight", "alpha"),
        *("dora_scale", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
        *("hada_t1", "hada_t2", "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2"),
        *("lokr_w2_a", "lokr_w2_b", "lokr_t2", "a1.weight", "a2.weight"),
        *("b1.weight", "b2.weight", "oft_blocks", "rescale", "diff", "diff_b"),
        *("w_norm", "b_norm", "nonsense"),
    ]
)
_SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(parts=st.dictionaries(_PARTS, _SHAPES, min_size=1, max_size=6))
def test_any_parts_in_any_shapes_are_read_or_refused(parts, tmp_path):
    tensors = {f"{makers.TO_Q}.{p}": torch.ones(shape) for p, shape in parts.items()}
    path = file_of(tmp_path, tensors)
    with contextlib.suppress(MergeError):
        summarise_lora(path)
