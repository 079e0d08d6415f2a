"""Stable Diffusion 2.x in the single-file layout: the SD1 UNet with OpenCLIP-H.

Source: key layout of the Stability AI releases; key names of the UNet equal SD1's.
"""

from __future__ import annotations

from lib_merge.arch import _ldm, _names
from lib_merge.arch._unet_names import unet_rules
from lib_merge.arch.sd1 import UNET_BLOCKS
from lib_merge.core.blocks import (
    Architecture,
    Block,
    BlockId,
    Component,
    KeyRole,
)
from lib_merge.core.recognition import Names, View

TEXT = "cond_stage_model.model."
_UNET_IDS = frozenset(block.id for block in UNET_BLOCKS)


def is_mine(view: View) -> bool:
    """OpenCLIP text layers, or an attention that tells where text is absent."""
    if not view.has("input_blocks.11.0.in_layers.0.weight"):
        return False
    if view.has("input_blocks.4.1.transformer_blocks.1.attn2.to_k.weight"):
        return False
    if view.names.starts(TEXT):
        return True
    if view.names.starts("cond_stage_model."):
        return False
    projection = view.shape("input_blocks.1.1.proj_in.weight")
    if projection:
        return len(projection) == 2
    return _ldm.first_attention(view)[-1:] == (1024,)


def is_rest(names: Names) -> bool:
    """OpenCLIP in SD1's place."""
    return names.starts(TEXT)


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
    role_of=role_of,
    names=(
        _ldm.unet_names(unet_rules((1, 1, 1, 0), 1)),
        # The last of the 24 layers is not used, so diffusers leaves it out.
        _names.open_clip(
            Component.CLIP_H, "cond_stage_model.", "text_encoder.", n_layers=23
        ),
        _names.vae(),
    ),
    is_mine=is_mine,
    is_rest=is_rest,
    kind_of=_ldm.kind_of,
    is_spare=_ldm.is_spare,
    latent=96,
)
