"""Segmind's SSD-1B and Vega: SDXL with fewer transformer layers, none in the middle.

Source: the layouts of the Segmind releases as ComfyUI's `model_detection.py` states
them; the blocks are SDXL's.
"""

from __future__ import annotations

from lib_merge.arch import _ldm, _names, sdxl
from lib_merge.arch._unet_names import unet_rules
from lib_merge.core.blocks import PLAIN, Architecture, KeyInfos
from lib_merge.core.recognition import View

_DEEP = f"{_ldm.UNET}input_blocks.7.1.transformer_blocks.3.attn2.to_k.weight"


def is_mine(view: View) -> bool:
    """SDXL's label embedder and levels, without attention in the middle."""
    is_sdxl = view.has(
        "label_emb.0.0.weight",
        "input_blocks.7.1.transformer_blocks.0.attn2.to_k.weight",
        "output_blocks.8.0.in_layers.0.weight",
    )
    is_deep = view.has("input_blocks.7.1.transformer_blocks.9.attn2.to_k.weight")
    middle = "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    return is_sdxl and not is_deep and not view.has(middle)


def kind_of(infos: KeyInfos) -> str:
    """SSD-1B has four layers at the last level, Vega two."""
    kind = _ldm.kind_of(infos)
    size = "ssd-1b" if _DEEP in infos else "vega"
    return size if kind == PLAIN else f"{size}, {kind}"


ARCHITECTURE = Architecture(
    id="sdxl_small",
    label="Segmind SSD-1B or Vega",
    blocks=sdxl.ARCHITECTURE.blocks,
    role_of=sdxl.role_of,
    names=(
        _ldm.unet_names(unet_rules((0, 2, 4), 1, up=(0, 2, 10))),
        *sdxl.TEXT_NAMES,
        _names.vae(),
    ),
    is_mine=is_mine,
    is_rest=lambda names: False,
    kind_of=kind_of,
    is_spare=_ldm.is_spare,
)
