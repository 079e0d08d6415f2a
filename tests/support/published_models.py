"""Names and shapes of published models, from the classes that load them; no values.

Needs diffusers and transformers. The numbers are those of the published config.json
files. `python -m tests.support.published_models` writes the golden lists anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch

from lib_merge.core.blocks import TensorInfo
from lib_merge.core.dtypes import DType

_SD3 = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "attention_head_dim": 64,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
    "out_channels": 16,
}
_PIXART = {
    "sample_size": 128,
    "num_layers": 28,
    "attention_head_dim": 72,
    "num_attention_heads": 16,
    "in_channels": 4,
    "out_channels": 8,
    "patch_size": 2,
    "cross_attention_dim": 1152,
    "caption_channels": 4096,
}
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sd3_medium": (
        "SD3Transformer2DModel",
        _SD3
        | {
            "num_layers": 24,
            "num_attention_heads": 24,
            "caption_projection_dim": 1536,
            "pos_embed_max_size": 192,
        },
    ),
    "sd35_medium": (
        "SD3Transformer2DModel",
        _SD3
        | {
            "num_layers": 24,
            "num_attention_heads": 24,
            "caption_projection_dim": 1536,
            "pos_embed_max_size": 384,
            "dual_attention_layers": tuple(range(13)),
            "qk_norm": "rms_norm",
        },
    ),
    "sd35_large": (
        "SD3Transformer2DModel",
        _SD3
        | {
            "num_layers": 38,
            "num_attention_heads": 38,
            "caption_projection_dim": 2432,
            "pos_embed_max_size": 192,
            "qk_norm": "rms_norm",
        },
    ),
    "flux": (
        "FluxTransformer2DModel",
        {
            "patch_size": 1,
            "in_channels": 64,
            "num_layers": 19,
            "num_single_layers": 38,
            "attention_head_dim": 128,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "pooled_projection_dim": 768,
            "guidance_embeds": True,
        },
    ),
    "auraflow": (
        "AuraFlowTransformer2DModel",
        {
            "sample_size": 64,
            "patch_size": 2,
            "in_channels": 4,
            "num_mmdit_layers": 4,
            "num_single_dit_layers": 32,
            "attention_head_dim": 256,
            "num_attention_heads": 12,
            "joint_attention_dim": 2048,
            "caption_projection_dim": 3072,
            "out_channels": 4,
            "pos_embed_max_size": 1024,
        },
    ),
    "hunyuan_dit": (
        "HunyuanDiT2DModel",
        {
            "num_attention_heads": 16,
            "attention_head_dim": 88,
            "in_channels": 4,
            "patch_size": 2,
            "activation_fn": "gelu-approximate",
            "sample_size": 128,
            "hidden_size": 1408,
            "num_layers": 40,
            "mlp_ratio": 4.3637,
            "learn_sigma": True,
            "cross_attention_dim": 1024,
            "cross_attention_dim_t5": 2048,
            "pooled_projection_dim": 1024,
            "text_len": 77,
            "text_len_t5": 256,
            "use_style_cond_and_image_meta_size": True,
        },
    ),
    "pixart": (
        "PixArtTransformer2DModel",
        _PIXART | {"use_additional_conditions": True},
    ),
    "sdxl_refiner": (
        "UNet2DConditionModel",
        {
            "sample_size": 128,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2560,
            "attention_head_dim": [6, 12, 24, 24],
            "block_out_channels": [384, 768, 1536, 1536],
            "cross_attention_dim": 1280,
            "down_block_types": [
                "DownBlock2D",
                "CrossAttnDownBlock2D",
                "CrossAttnDownBlock2D",
                "DownBlock2D",
            ],
            "up_block_types": [
                "UpBlock2D",
                "CrossAttnUpBlock2D",
                "CrossAttnUpBlock2D",
                "UpBlock2D",
            ],
            "transformer_layers_per_block": 4,
            "use_linear_projection": True,
        },
    ),
}
"""Of each architecture, diffusers' class of what denoises and its config."""

_UMT5 = {"vocab_size": 32128, "d_model": 2048, "d_ff": 5120, "num_layers": 24}
_HEADS = {"num_heads": 32, "d_kv": 64, "feed_forward_proj": "gated-gelu"}
_BERT = {
    "vocab_size": 47020,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 512,
}
ENCODERS: dict[str, dict[str, tuple[str, str, dict[str, Any]]]] = {
    "auraflow": {"text_encoder": ("UMT5EncoderModel", "UMT5Config", _UMT5 | _HEADS)},
    "hunyuan_dit": {
        "text_encoder": ("BertModel", "BertConfig", _BERT),
        "text_encoder_2": (
            "T5EncoderModel",
            "T5Config",
            _UMT5 | _HEADS | {"vocab_size": 250112},
        ),
    },
}
"""Text encoders that the layouts of SD3 and Flux do not show."""


@lru_cache(maxsize=16)
def transformer_infos(arch_id: str) -> Mapping[str, TensorInfo]:
    """Parameters of what denoises, as diffusers names them."""
    import diffusers

    name, config = TRANSFORMERS[arch_id]
    with torch.device("meta"):
        model = getattr(diffusers, name)(**config)
    return _infos(model)


def encoder_infos(arch_id: str) -> Iterator[tuple[str, Mapping[str, TensorInfo]]]:
    """Parameters of text encoders by their folder, as transformers names them."""
    import transformers

    for folder, (name, config, values) in ENCODERS.get(arch_id, {}).items():
        with torch.device("meta"):
            settings = getattr(transformers, config)(**values)
            model = getattr(transformers, name)(settings)
        yield folder, _infos(model)


def _infos(model: Any) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(DType.F32, tuple(tensor.shape))
        for name, tensor in model.state_dict(keep_vars=True).items()
        if tensor.dtype.is_floating_point
    }
