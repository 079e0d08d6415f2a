"""Stable Diffusion XL base in the single-file layout: 19 UNet blocks, CLIP-L and -G.

Source: key layout of the Stability AI release. time_embed, label_emb and out are blocks
of their own, so no dimension of a search is dead and none shares a weight by accident.
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

TEXT_L = "conditioner.embedders.0."
TEXT_G = "conditioner.embedders.1."

_DOWN = (
    "input convolution",
    *("resnet, level 1",) * 2,
    "downsample to 1/2",
    *("resnet and 2-layer transformer, level 2",) * 2,
    "downsample to 1/4",
    *("resnet and 10-layer transformer, level 3",) * 2,
)
_UP = (
    *("resnet and 10-layer transformer, level 3",) * 2,
    "resnet, 10-layer transformer and upsample to 1/2",
    *("resnet and 2-layer transformer, level 2",) * 2,
    "resnet, 2-layer transformer and upsample to 1/1",
    *("resnet, level 1",) * 3,
)
UNET_BLOCKS = _ldm.unet_blocks(
    _DOWN, "resnet, 10-layer transformer, resnet", _UP, has_label_emb=True
)
_UNET_IDS = frozenset(block.id for block in UNET_BLOCKS)


def is_mine(view: View) -> bool:
    """The label embedder, and level-3 transformers that SD1 and SD2 do not have."""
    return view.has(
        "label_emb.0.0.weight",
        "input_blocks.7.1.transformer_blocks.9.attn2.to_k.weight",
        "output_blocks.8.0.in_layers.0.weight",
    )


def is_rest(names: Names) -> bool:
    """CLIP-L as the first of its embedders, or CLIP-G as the second."""
    return names.starts(f"{TEXT_L}transformer.") or names.starts(TEXT_G)


def role_of(key: str) -> KeyRole | None:
    """The block and component of a key, or None for a key that SDXL does not have."""
    if key.startswith(TEXT_L):
        return _ldm.text_role(key, Component.CLIP_L)
    if key.startswith(TEXT_G):
        return _ldm.text_role(key, Component.CLIP_G)
    return _ldm.shared_role(key, _UNET_IDS)


TEXT_NAMES = (
    _names.clip(Component.CLIP_L, TEXT_L, "text_encoder."),
    _names.open_clip(Component.CLIP_G, TEXT_G, "text_encoder_2.", n_layers=32),
)

ARCHITECTURE = Architecture(
    id="sdxl",
    label="Stable Diffusion XL",
    blocks=(
        Block(BlockId("CLIP_L"), Component.CLIP_L, "text encoder CLIP ViT-L/14"),
        Block(BlockId("CLIP_G"), Component.CLIP_G, "text encoder OpenCLIP ViT-bigG/14"),
        *UNET_BLOCKS,
        _ldm.VAE_BLOCK,
        _ldm.SCHEDULE_BLOCK,
    ),
    role_of=role_of,
    names=(
        _ldm.unet_names(unet_rules((0, 2, 10), 10)),
        *TEXT_NAMES,
        _names.vae(),
    ),
    is_mine=is_mine,
    is_rest=is_rest,
    kind_of=_ldm.kind_of,
    is_spare=_ldm.is_spare,
)
