"""What the SD1, SD2 and SDXL single-file (LDM) layouts have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lib_merge.arch import _names
from lib_merge.core.blocks import (
    PLAIN,
    Block,
    BlockId,
    Component,
    KeyInfos,
    KeyRole,
    Treatment,
)
from lib_merge.core.naming import ComponentNames, Rule
from lib_merge.core.recognition import View

UNET = "model.diffusion_model."
VAE = "first_stage_model."
EMA = "model_ema."

SCHEDULE_KEYS = frozenset(
    {
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "betas",
        "log_one_minus_alphas_cumprod",
        "logvar",
        "model_ema.decay",
        "model_ema.num_updates",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "posterior_variance",
        "scale_factor",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
    }
)
"""DDPM constants that training left in the file; they are copied, never blended."""

MARKER_KEYS = frozenset(
    {"v_pred", "ztsnr", "edm_vpred.sigma_max", "edm_vpred.sigma_min"}
)
"""Loose tensors by which v-prediction models announce themselves; copied."""

CONSISTENCY = f"{UNET}time_embed.cond_proj.weight"
"""The guidance input that only latent consistency models have."""

KINDS_BY_CHANNELS = {
    5: "depth",
    7: "upscaler",
    8: "instruct-pix2pix",
    9: "inpainting",
}
"""What a wider first convolution means: so many channels more than the latent's 4."""

VAE_BLOCK = Block(BlockId("VAE"), Component.VAE, "image encoder and decoder")
SCHEDULE_BLOCK = Block(
    BlockId("SCHEDULE"), Component.SCHEDULE, "noise schedule constants, copied"
)

_NUMBERED = re.compile(r"(input_blocks|output_blocks)\.(\d+)\.")
_SIDE = {"input_blocks": "IN", "output_blocks": "OUT"}
_LOOSE = {
    "time_embed.": BlockId("TIME_EMBED"),
    "label_emb.": BlockId("LABEL_EMB"),
    "middle_block.": BlockId("M00"),
    "out.": BlockId("OUT"),
}


def unet_blocks(
    down: Sequence[str], middle: str, up: Sequence[str], *, has_label_emb: bool = False
) -> tuple[Block, ...]:
    """The UNet's blocks in the order of the forward pass.

    Args:
        down: A title for each input block.
        middle: The middle block's title.
        up: A title for each output block.
        has_label_emb: Whether the UNet embeds size and pooled text (SDXL).
    """
    titled = [("TIME_EMBED", "timestep MLP")]
    if has_label_emb:
        titled.append(("LABEL_EMB", "size and pooled-text MLP"))
    titled += [(f"IN{i:02d}", title) for i, title in enumerate(down)]
    titled.append(("M00", middle))
    titled += [(f"OUT{i:02d}", title) for i, title in enumerate(up)]
    titled.append(("OUT", "final norm and convolution"))
    return tuple(Block(BlockId(n), Component.UNET, t) for n, t in titled)


def unet_role(key: str, blocks: frozenset[BlockId]) -> KeyRole | None:
    """The role of a UNet key, or None for a block that this UNet does not have."""
    rest = key[len(UNET) :]
    numbered = _NUMBERED.match(rest)
    if numbered:
        block = BlockId(f"{_SIDE[numbered[1]]}{int(numbered[2]):02d}")
        return KeyRole(block, Component.UNET) if block in blocks else None
    for prefix, block in _LOOSE.items():
        if rest.startswith(prefix) and block in blocks:
            return KeyRole(block, Component.UNET)
    return None


def shared_role(key: str, blocks: frozenset[BlockId]) -> KeyRole | None:
    """The role of a key outside the text encoders, or None when it is unknown."""
    if key in SCHEDULE_KEYS:
        treatment = Treatment.COPY
        if key.startswith(EMA):
            treatment = Treatment.DROP_UNLESS_ASKED
        return KeyRole(SCHEDULE_BLOCK.id, Component.SCHEDULE, treatment)
    if key in MARKER_KEYS:
        return KeyRole(SCHEDULE_BLOCK.id, Component.SCHEDULE, Treatment.COPY)
    if key.startswith(UNET):
        return unet_role(key, blocks)
    if key.startswith(VAE):
        return KeyRole(VAE_BLOCK.id, Component.VAE)
    if key.startswith(EMA):
        return _ema_role(key, blocks)
    return None


def unet_names(rules: Iterable[Rule]) -> ComponentNames:
    """The places of a UNet.

    Args:
        rules: Of its tensors in diffusers naming.
    """
    return _names.denoiser(
        rules,
        marks=("input_blocks.", "output_blocks."),
        diffusers_marks=("down_blocks.", "up_blocks."),
        folder="unet.",
    )


def kind_of(infos: KeyInfos) -> str:
    """What the first convolution and loose tensors say: "inpainting", "lcm", ..."""
    kinds = []
    first = infos.get(f"{UNET}input_blocks.0.0.weight")
    if first is not None and len(first.shape) == 4:
        kinds.append(KINDS_BY_CHANNELS.get(first.shape[1], ""))
    if any(key in infos for key in MARKER_KEYS):
        kinds.append("v-prediction")
    if CONSISTENCY in infos:
        kinds.append("lcm")
    return ", ".join(kind for kind in kinds if kind) or PLAIN


def is_spare(key: str) -> bool:
    """Whether a whole model may lack a key: no image is made with it, or only LCM's."""
    return key == CONSISTENCY or key.endswith(("logit_scale", "text_projection"))


def first_attention(view: View) -> tuple[int, ...]:
    """The shape of the first attention's key matrix; its width is the text's."""
    return view.shape("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight")


def _ema_role(key: str, blocks: frozenset[BlockId]) -> KeyRole | None:
    """EMA keys are UNet keys without dots; they belong to the block they shadow."""
    rest = key[len(EMA) :].replace("diffusion_model", "", 1)
    for side, label in _SIDE.items():
        found = re.match(rf"{side}(\d+)", rest)
        if found:
            # Digits run together ("input_blocks110in_layers..."): the longest number
            # that names a block and leaves a digit (the sub-layer's index) is it.
            block = _longest_block(label, found[1], blocks)
            if block is not None:
                return KeyRole(block, Component.UNET, Treatment.DROP_UNLESS_ASKED)
    for prefix, block in _LOOSE.items():
        if rest.startswith(prefix.rstrip(".")) and block in blocks:
            return KeyRole(block, Component.UNET, Treatment.DROP_UNLESS_ASKED)
    return None


def _longest_block(
    label: str, digits: str, blocks: frozenset[BlockId]
) -> BlockId | None:
    for length in (2, 1):
        block = BlockId(f"{label}{int(digits[:length]):02d}")
        is_padded = digits[:length] != str(int(digits[:length]))
        if len(digits) > length and not is_padded and block in blocks:
            return block
    return None


def text_role(key: str, component: Component) -> KeyRole:
    """The role of a text-encoder key; position ids are integers by meaning."""
    treatment = Treatment.MERGE
    if key.endswith("position_ids"):
        # Some files store them as floats; blending would break the embedding look-up.
        treatment = Treatment.COPY
    return KeyRole(BlockId(component.name), component, treatment)
