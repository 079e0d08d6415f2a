"""Specs: what they cover, and that every permutation leaves the outputs unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from lib_merge.analysis.rebasin.derive import COMPONENTS, derive_spec
from lib_merge.analysis.rebasin.heads import read_heads
from lib_merge.analysis.rebasin.spec import PermutationSpec
from lib_merge.arch import architectures
from lib_merge.core.blocks import Component, TensorInfo
from lib_merge.core.dtypes import DType
from lib_merge.core.seeds import derive_seed
from lib_merge.demo import MODEL_A, MODEL_B
from lib_merge.demo._layout import unet_key
from lib_merge.errors import CheckpointError, InputError
from tests.support.checkpoints import golden_rows, golden_shape
from tests.support.rebasin_models import (
    DEMO_HEADS,
    XL_HEADS,
    open_host,
    permute_loaded,
    predicted_noise,
    spec_of,
    write_xl,
)

UNET = "model.diffusion_model."


def golden_infos(arch_id: str) -> dict[str, TensorInfo]:
    """The full-size layout of an architecture."""
    rows = [row for row in golden_rows(arch_id) if row["treatment"] != "ema"]
    return {row["key"]: TensorInfo(DType.F16, golden_shape(row)) for row in rows}


def golden_spec(arch_id: str) -> PermutationSpec:
    return derive_spec(architectures().get(arch_id), golden_infos(arch_id))


@pytest.mark.parametrize(
    ("arch_id", "count"), [("sd1", 134), ("sdxl", 348)], ids=["sd1", "sdxl"]
)
def test_spec_of_the_real_layout_has_every_permutation(
    arch_id: str, count: int
) -> None:
    spec = golden_spec(arch_id)
    assert len(spec.permutations) == count
    assert spec.warnings == ()


@pytest.mark.parametrize("arch_id", ["sd1", "sdxl"])
def test_every_tensor_but_the_latents_bias_follows_a_permutation(arch_id: str) -> None:
    spec = golden_spec(arch_id)
    architecture = architectures().get(arch_id)
    left = []
    for key in golden_infos(arch_id):
        role = architecture.role_of(key)
        assert role is not None
        if role.component in COMPONENTS and key not in spec.shapes:
            left.append(key)
    wanted = [k for k in left if k.endswith(("position_ids", "logit_scale"))]
    assert sorted(left) == sorted([*wanted, f"{UNET}out.2.bias"])


def test_second_text_encoder_is_not_skipped() -> None:
    # The script in circulation leaves CLIP-G as it is in model A.
    spec = golden_spec("sdxl")
    prefix = "conditioner.embedders.1.model."
    names = {
        name
        for name, one in spec.permutations.items()
        if any(s.key.startswith(prefix) for s in one.slices)
    }
    wanted = {"clip_g.stream", "clip_g.pooled"}
    for index in range(32):
        wanted |= {f"clip_g.{index}.heads", f"clip_g.{index}.mlp.hidden"}
    assert names == wanted


def test_both_halves_of_geglu_follow_one_permutation() -> None:
    spec = golden_spec("sd1")
    layer = "input_blocks.1.1.transformer_blocks.0.ff"
    slices = spec.permutations[f"{layer}.hidden"].slices
    first = [s for s in slices if s.key == f"{UNET}{layer}.net.0.proj.weight"]
    assert [(s.axis, s.start, s.offset, s.length) for s in first] == [
        (0, 0, 0, 1280),
        (0, 1280, 0, 1280),
    ]


def test_skip_connection_carries_the_stream_of_its_input_block() -> None:
    spec = golden_spec("sd1")
    slices = spec.permutations["input_blocks.0.0.stream"].slices
    # OUT09 to OUT11 read IN02, IN01 and IN00 beside 640, 320 and 320 channels.
    found = {
        s.key: (s.axis, s.start)
        for s in slices
        if "output_blocks" in s.key and s.key.endswith("skip_connection.weight")
    }
    assert found == {
        f"{UNET}output_blocks.9.0.skip_connection.weight": (1, 640),
        f"{UNET}output_blocks.10.0.skip_connection.weight": (1, 320),
        f"{UNET}output_blocks.11.0.skip_connection.weight": (1, 320),
    }


def test_cross_attention_of_sdxl_reads_both_text_encoders_side_by_side() -> None:
    spec = golden_spec("sdxl")
    key = f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    runs = [
        (name, s.start, s.length)
        for name in ("clip_l.stream", "clip_g.stream")
        for s in spec.permutations[name].slices_of(key, 1)
    ]
    assert runs == [("clip_l.stream", 0, 768), ("clip_g.stream", 768, 1280)]


def test_context_stays_in_order_where_the_text_encoder_is_missing() -> None:
    infos = {k: v for k, v in golden_infos("sd1").items() if k.startswith(UNET)}
    spec = derive_spec(architectures().get("sd1"), infos)
    key = f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    assert spec.names_on(key, axis=1) == ()
    assert {p.component for p in spec.permutations.values()} == {Component.UNET}


def test_text_encoder_of_the_old_spelling_is_followed() -> None:
    long = "cond_stage_model.transformer.text_model."
    infos = {
        key.replace(long, "cond_stage_model.transformer."): info
        for key, info in golden_infos("sd1").items()
    }
    spec = derive_spec(architectures().get("sd1"), infos)
    assert len(spec.permutations) == 134


def test_attention_of_unknown_heads_is_left_alone_with_a_warning() -> None:
    spec = spec_of(MODEL_A, {})
    assert not any("clip_l" in n and "heads" in n for n in spec.permutations)
    assert len(spec.warnings) == 1
    assert "--heads clip_l=4" in spec.warnings[0]


def test_neighbours_share_a_tensor_and_know_each_other() -> None:
    spec = golden_spec("sd1")
    for name, others in spec.neighbours.items():
        assert name not in others
        assert all(name in spec.neighbours[other] for other in others)
    assert "time_embed.stream" in spec.neighbours["input_blocks.1.0.hidden"]


def test_apply_puts_the_chosen_channel_in_place() -> None:
    spec = golden_spec("sd1")
    key = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
    order = np.arange(768)[::-1].copy()
    values = torch.arange(768, dtype=torch.float16)
    found = spec.apply(key, values, {"clip_l.stream": order})
    assert torch.equal(found, values.flip(0))
    assert spec.apply(key, values, spec.identity()) is values


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bfloat16, torch.float64])
def test_apply_keeps_the_bits_of_every_type(dtype: torch.dtype) -> None:
    spec = golden_spec("sd1")
    key = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
    values = torch.linspace(-3, 3, 768).to(dtype)
    order = np.roll(np.arange(768), 5)
    found = spec.apply(key, values, {"clip_l.stream": order})
    assert found.dtype is dtype
    wanted = values.double()[torch.from_numpy(order)]
    assert torch.equal(found.double(), wanted)


@pytest.mark.parametrize("source", [MODEL_A, MODEL_B], ids=["demo_a", "demo_b"])
def test_outputs_of_the_demo_are_unchanged_by_any_permutation(source: Path) -> None:
    host = open_host()
    host.loader.load(source)
    wanted = predicted_noise(host)
    permute_loaded(host, source, spec_of(source, DEMO_HEADS))
    assert (predicted_noise(host) - wanted).abs().max() <= 1e-10
    assert wanted.abs().max() > 0.1


@pytest.mark.slow
def test_outputs_of_sdxl_are_unchanged_by_any_permutation(tmp_path: Path) -> None:
    source = write_xl(tmp_path, seed=1)
    host = open_host(tmp_path)
    host.loader.load(source)
    wanted = predicted_noise(host)
    permute_loaded(host, source, spec_of(source, XL_HEADS))
    assert (predicted_noise(host) - wanted).abs().max() <= 1e-10
    assert wanted.abs().max() > 0.1


class RandomUnet:
    """An SD1 UNet in memory: diffusers' model, weights by single-file name."""

    def __init__(self, widths: list[int]) -> None:
        from diffusers import UNet2DConditionModel

        with torch.device("meta"):
            unet: Any = UNet2DConditionModel(
                block_out_channels=widths,
                down_block_types=[*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
                up_block_types=["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
                cross_attention_dim=768,
                attention_head_dim=8,
            )
        self.unet = unet.eval()
        self.names = {unet_key(name): name for name in unet.state_dict()}
        self.weights = {
            key: _random_weight(key, unet.get_parameter(name).shape)
            for key, name in self.names.items()
        }
        infos = {
            key: TensorInfo(DType.F64, tuple(weight.shape))
            for key, weight in self.weights.items()
        }
        self.spec = derive_spec(architectures().get("sd1"), infos)

    @torch.no_grad()
    def noise(self) -> torch.Tensor:
        """What it computes of fixed latents."""
        state = {name: self.weights[key] for key, name in self.names.items()}
        self.unet.load_state_dict(state, assign=True)
        generator = torch.Generator().manual_seed(7)
        latents = torch.randn(1, 4, 8, 8, generator=generator, dtype=torch.float64)
        context = torch.randn(1, 77, 768, generator=generator, dtype=torch.float64)
        found: torch.Tensor = self.unet(latents, torch.tensor([501]), context).sample
        return found

    def permute(self, chosen: Mapping[str, np.ndarray]) -> None:
        """Permute the weights, one tensor after the other."""
        for key in self.spec.shapes:
            self.weights[key] = self.spec.apply(key, self.weights[key], chosen)


def _random_weight(key: str, shape: torch.Size) -> torch.Tensor:
    generator = torch.Generator().manual_seed(derive_seed(key))
    values = torch.empty(shape, dtype=torch.float64).normal_(generator=generator)
    if len(shape) > 1:
        return values.mul_(shape[1:].numel() ** -0.5)
    return values.mul_(0.2).add_(1.0 if key.endswith(".weight") else 0.0)


@pytest.fixture(scope="module")
def uneven() -> tuple[RandomUnet, torch.Tensor]:
    """A UNet whose levels differ in width, and what it computes."""
    model = RandomUnet([32, 64, 128, 128])
    return model, model.noise()


@pytest.fixture
def small(uneven: tuple[RandomUnet, torch.Tensor]) -> Iterator[RandomUnet]:
    """That UNet, which a test may permute."""
    model, _ = uneven
    weights = dict(model.weights)
    yield model
    model.weights = weights


Uneven = tuple[RandomUnet, torch.Tensor]


def test_outputs_of_uneven_widths_are_unchanged_by_any_permutation(
    uneven: Uneven, small: RandomUnet
) -> None:
    small.permute(small.spec.random(4))
    assert (small.noise() - uneven[1]).abs().max() <= 1e-10
    assert uneven[1].abs().max() > 0.1


def test_outputs_change_when_a_stream_ignores_the_groups(
    uneven: Uneven, small: RandomUnet
) -> None:
    order = np.random.default_rng(1).permutation(64)
    small.permute({"input_blocks.4.0.stream": order})
    assert (small.noise() - uneven[1]).abs().max() > 1e-4


def test_outputs_change_when_heads_are_torn_apart(
    uneven: Uneven, small: RandomUnet
) -> None:
    order = np.arange(64)
    order[:32] = np.random.default_rng(1).permutation(32)
    small.permute({"input_blocks.1.1.transformer_blocks.0.attn1.heads": order})
    assert (small.noise() - uneven[1]).abs().max() > 1e-6


@pytest.mark.slow
@pytest.mark.skipif(
    psutil.virtual_memory().available < 10 << 30,
    reason="needs 10 GB of free memory",
)
def test_outputs_of_a_full_size_unet_are_unchanged_by_any_permutation() -> None:
    """860 million random float64 weights, about 7 GB of memory."""
    model = RandomUnet([320, 640, 1280, 1280])
    assert sum(weight.numel() for weight in model.weights.values()) == 859_520_964
    before = model.noise()
    model.permute(model.spec.random(5))
    assert (model.noise() - before).abs().max() <= 1e-10
    assert before.abs().max() > 0.1


def test_unknown_tensor_in_the_unet_is_refused_by_name() -> None:
    infos = golden_infos("sd1")
    infos[f"{UNET}input_blocks.1.1.adapter.weight"] = TensorInfo(DType.F16, (320, 8))
    with pytest.raises(CheckpointError, match=r"1 tensors .*adapter\.weight"):
        derive_spec(architectures().get("sd1"), infos)


def test_missing_tensor_is_named() -> None:
    infos = golden_infos("sd1")
    del infos[f"{UNET}input_blocks.1.0.out_layers.0.weight"]
    with pytest.raises(CheckpointError, match=r"no tensor .*out_layers\.0\.weight"):
        derive_spec(architectures().get("sd1"), infos)


def test_width_that_is_no_whole_number_of_groups_is_refused() -> None:
    infos = {
        key: TensorInfo(DType.F16, tuple(321 if s == 320 else s for s in info.shape))
        for key, info in golden_infos("sd1").items()
    }
    with pytest.raises(CheckpointError, match="321 channels in 32 groups"):
        derive_spec(architectures().get("sd1"), infos)


def test_sd2_is_refused_as_an_architecture_without_a_spec() -> None:
    with pytest.raises(CheckpointError, match=r"Stable Diffusion 2\.x.*sd1, sdxl"):
        derive_spec(architectures().get("sd2"), golden_infos("sd2"))


def test_heads_are_read_by_component() -> None:
    assert read_heads("unet=8, CLIP_L=4") == {Component.UNET: 8, Component.CLIP_L: 4}
    assert read_heads(None) == {}


@pytest.mark.parametrize("text", ["vae=2", "clip_l", "unet=0", "unet=x"])
def test_heads_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="no number of heads"):
        read_heads(text)
