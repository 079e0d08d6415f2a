"""Stable Diffusion XL base in the single-file layout: 19 UNet blocks, CLIP-L and -G.

Source: key layout of the Stability AI release. time_embed, label_emb and out are blocks
of their own, so no dimension of a search is dead and none shares a weight by accident.
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
    Treatment,
)

TEXT_L = "conditioner.embedders.0."
TEXT_G = "conditioner.embedders.1."

MARKER_KEYS = frozenset(
    {"v_pred", "ztsnr", "edm_vpred.sigma_max", "edm_vpred.sigma_min"}
)
"""Loose tensors by which v-prediction models announce themselves; copied."""

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


def detect(infos: KeyInfos) -> bool:
    """The label embedder, and level-3 transformers that SD1 and SD2 do not have."""
    wanted = (
        f"{_ldm.UNET}label_emb.0.0.weight",
        f"{_ldm.UNET}input_blocks.7.1.transformer_blocks.9.attn2.to_k.weight",
        f"{_ldm.UNET}output_blocks.8.0.in_layers.0.weight",
    )
    return all(key in infos for key in wanted)


def role_of(key: str) -> KeyRole | None:
    """The block and component of a key, or None for a key that SDXL does not have."""
    if key.startswith(TEXT_L):
        return _ldm.text_role(key, Component.CLIP_L)
    if key.startswith(TEXT_G):
        return _ldm.text_role(key, Component.CLIP_G)
    if key in MARKER_KEYS:
        return KeyRole(_ldm.SCHEDULE_BLOCK.id, Component.SCHEDULE, Treatment.COPY)
    return _ldm.shared_role(key, _UNET_IDS)


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
    detect=detect,
    role_of=role_of,
)
