"""Stable Diffusion 2.x in the single-file layout: the SD1 UNet with OpenCLIP-H.

Source: key layout of the Stability AI releases; key names of the UNet equal SD1's.
"""

from __future__ import annotations

from lib_merge.arch import _ldm
from lib_merge.arch.sd1 import UNET_BLOCKS
from lib_merge.core.blocks import (
    Architecture,
    Block,
    BlockId,
    Component,
    KeyInfos,
    KeyRole,
)

TEXT = "cond_stage_model.model."
_UNET_IDS = frozenset(block.id for block in UNET_BLOCKS)


def detect(infos: KeyInfos) -> bool:
    """OpenCLIP text layers, or attention on 1024 features where text is absent."""
    if f"{_ldm.UNET}input_blocks.11.0.in_layers.0.weight" not in infos:
        return False
    if any(key.startswith(TEXT) for key in infos):
        return True
    if any(key.startswith("cond_stage_model.") for key in infos):
        return False
    attention = infos.get(
        f"{_ldm.UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    )
    return attention is not None and attention.shape[-1:] == (1024,)


def role_of(key: str) -> KeyRole | None:
    """The block and component of a key, or None for a key that SD2 does not have."""
    if key.startswith("cond_stage_model."):
        return _ldm.text_role(key, Component.CLIP_H)
    return _ldm.shared_role(key, _UNET_IDS)


ARCHITECTURE = Architecture(
    id="sd2",
    label="Stable Diffusion 2.x",
    blocks=(
        Block(BlockId("CLIP_H"), Component.CLIP_H, "text encoder OpenCLIP ViT-H/14"),
        *UNET_BLOCKS,
        _ldm.VAE_BLOCK,
        _ldm.SCHEDULE_BLOCK,
    ),
    detect=detect,
    role_of=role_of,
)
