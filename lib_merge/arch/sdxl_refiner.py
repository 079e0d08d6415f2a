"""The SDXL refiner in the single-file layout: 25 UNet blocks, CLIP-G alone.

Source: key layout of the Stability AI release: four levels of 384 channels and up, with
transformers of four layers at the second and third.
"""

from __future__ import annotations

from lib_merge.arch import _ldm, _names
from lib_merge.arch._unet_names import unet_rules
from lib_merge.core.blocks import Architecture, Block, BlockId, Component, KeyRole
from lib_merge.core.recognition import Names, View

TEXT = "conditioner.embedders.0.model."

_DOWN = (
    "input convolution",
    *("resnet, level 1",) * 2,
    "downsample to 1/2",
    *("resnet and 4-layer transformer, level 2",) * 2,
    "downsample to 1/4",
    *("resnet and 4-layer transformer, level 3",) * 2,
    "downsample to 1/8",
    *("resnet, level 4",) * 2,
)
_UP = (
    *("resnet, level 4",) * 2,
    "resnet and upsample to 1/4",
    *("resnet and 4-layer transformer, level 3",) * 2,
    "resnet, 4-layer transformer and upsample to 1/2",
    *("resnet and 4-layer transformer, level 2",) * 2,
    "resnet, 4-layer transformer and upsample to 1/1",
    *("resnet, level 1",) * 3,
)
UNET_BLOCKS = _ldm.unet_blocks(
    _DOWN, "resnet, 4-layer transformer, resnet", _UP, has_label_emb=True
)
_UNET_IDS = frozenset(block.id for block in UNET_BLOCKS)


def is_mine(view: View) -> bool:
    """Four levels as SD1, with a label embedder and transformers of four layers."""
    return view.has(
        "label_emb.0.0.weight",
        "input_blocks.11.0.in_layers.0.weight",
        "input_blocks.4.1.transformer_blocks.3.attn2.to_k.weight",
    )


def is_rest(names: Names) -> bool:
    """CLIP-G as the first of its embedders."""
    return names.starts(TEXT)


def role_of(key: str) -> KeyRole | None:
    """The block and component of a key, or None for a key that it does not have."""
    if key.startswith("conditioner.embedders.0."):
        return _ldm.text_role(key, Component.CLIP_G)
    return _ldm.shared_role(key, _UNET_IDS)


ARCHITECTURE = Architecture(
    id="sdxl_refiner",
    label="Stable Diffusion XL refiner",
    blocks=(
        Block(BlockId("CLIP_G"), Component.CLIP_G, "text encoder OpenCLIP ViT-bigG/14"),
        *UNET_BLOCKS,
        _ldm.VAE_BLOCK,
        _ldm.SCHEDULE_BLOCK,
    ),
    role_of=role_of,
    names=(
        _ldm.unet_names(unet_rules((0, 4, 4, 0), 4)),
        _names.open_clip(
            Component.CLIP_G,
            "conditioner.embedders.0.",
            "text_encoder_2.",
            n_layers=32,
        ),
        _names.vae(),
    ),
    is_mine=is_mine,
    is_rest=is_rest,
    kind_of=_ldm.kind_of,
    is_spare=_ldm.is_spare,
)
