"""Stable Diffusion 1.x in the single-file layout: 25 UNet blocks and CLIP-L.

Source: key layout of the CompVis/RunwayML releases; block names as in supermerger
(hako-mikan/sd-webui-supermerger), with time_embed and out as blocks of their own.
"""

from __future__ import annotations

from lib_merge.arch import _ldm, _names
from lib_merge.arch._unet_names import unet_rules
from lib_merge.core.blocks import (
    Architecture,
    Block,
    BlockId,
    Component,
    KeyRole,
)
from lib_merge.core.recognition import Names, View

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


def is_mine(view: View) -> bool:
    """CLIP-L text layers, or an attention that tells where text is absent."""
    if not view.has("input_blocks.11.0.in_layers.0.weight"):
        return False
    if view.has("label_emb.0.0.weight"):
        return False
    if view.names.starts(TEXT):
        return True
    if view.names.starts("cond_stage_model."):
        return False
    projection = view.shape("input_blocks.1.1.proj_in.weight")
    if projection:
        # SD1 projects with a 1x1 convolution, SD2 with a matrix.
        return len(projection) == 4
    return _ldm.first_attention(view)[-1:] not in ((), (1024,))


def is_rest(names: Names) -> bool:
    """CLIP-L where no other text encoder is."""
    return names.starts(TEXT)


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
    role_of=role_of,
    names=(
        _ldm.unet_names(unet_rules((1, 1, 1, 0), 1)),
        _names.clip(Component.CLIP_L, "cond_stage_model.", "text_encoder."),
        _names.vae(),
    ),
    is_mine=is_mine,
    is_rest=is_rest,
    kind_of=_ldm.kind_of,
    is_spare=_ldm.is_spare,
    latent=64,
)
