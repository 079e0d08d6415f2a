"""Stable Diffusion 1.x in the single-file layout: 25 UNet blocks and CLIP-L.

Source: key layout of the CompVis/RunwayML releases; block names as in supermerger
(hako-mikan/sd-webui-supermerger), with time_embed and out as blocks of their own.
"""

from __future__ import annotations

from lib_merge.arch import _ldm
from lib_merge.core.blocks import (
    Architecture,
    Block,
    BlockId,
    Component,
    KeyInfos,
    KeyRole,
)

TEXT = "cond_stage_model.transformer."

_DOWN = (
    "input convolution",
    *("resnet and cross-attention, level 1",) * 2,
    "downsample to 1/2",
    *("resnet and cross-attention, level 2",) * 2,
    "downsample to 1/4",
    *("resnet and cross-attention, level 3",) * 2,
    "downsample to 1/8",
    *("resnet, level 4",) * 2,
)
_UP = (
    *("resnet, level 4",) * 2,
    "resnet and upsample to 1/4",
    *("resnet and cross-attention, level 3",) * 2,
    "resnet, cross-attention and upsample to 1/2",
    *("resnet and cross-attention, level 2",) * 2,
    "resnet, cross-attention and upsample to 1/1",
    *("resnet and cross-attention, level 1",) * 3,
)
UNET_BLOCKS = _ldm.unet_blocks(_DOWN, "resnet, cross-attention, resnet", _UP)
_UNET_IDS = frozenset(block.id for block in UNET_BLOCKS)


def detect(infos: KeyInfos) -> bool:
    """CLIP-L text layers, or cross-attention on 768 features where text is absent."""
    if f"{_ldm.UNET}input_blocks.11.0.in_layers.0.weight" not in infos:
        return False
    if any(key.startswith(TEXT) for key in infos):
        return True
    if any(key.startswith("cond_stage_model.") for key in infos):
        return False
    attention = infos.get(
        f"{_ldm.UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    )
    return attention is not None and attention.shape[-1:] != (1024,)


def role_of(key: str) -> KeyRole | None:
    """The block and component of a key, or None for a key that SD1 does not have."""
    if key.startswith("cond_stage_model."):
        return _ldm.text_role(key, Component.CLIP_L)
    return _ldm.shared_role(key, _UNET_IDS)


ARCHITECTURE = Architecture(
    id="sd1",
    label="Stable Diffusion 1.x",
    blocks=(
        Block(BlockId("CLIP_L"), Component.CLIP_L, "text encoder CLIP ViT-L/14"),
        *UNET_BLOCKS,
        _ldm.VAE_BLOCK,
        _ldm.SCHEDULE_BLOCK,
    ),
    detect=detect,
    role_of=role_of,
)
