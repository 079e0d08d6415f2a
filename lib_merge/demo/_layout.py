"""Names: diffusers' parts of a pipeline to the single-file layout of SD1."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_UNET_LOOSE = {
    "conv_in.": "input_blocks.0.0.",
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
    "mid_block.resnets.0.": "middle_block.0.",
    "mid_block.attentions.0.": "middle_block.1.",
    "mid_block.resnets.1.": "middle_block.2.",
}
_RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "time_emb_proj.": "emb_layers.1.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "conv_shortcut.": "skip_connection.",
}
_VAE_RESNET = {"conv_shortcut.": "nin_shortcut."}
_VAE_ATTENTION = {
    "group_norm.": "norm.",
    "to_q.": "q.",
    "to_k.": "k.",
    "to_v.": "v.",
    "to_out.0.": "proj_out.",
}
_N_LEVELS = 4
_RESNETS_PER_LEVEL = 2


def unet_key(name: str) -> str:
    """A UNet2DConditionModel name in SD1's layout.

    Raises:
        ValueError: The name belongs to no SD1 UNet.
    """
    prefix = "model.diffusion_model."
    for loose, native in _UNET_LOOSE.items():
        if name.startswith(loose):
            rest = name[len(loose) :]
            if ".resnets." in loose:
                rest = _renamed(rest, _RESNET)
            return prefix + native + rest
    found = re.match(r"(down|up)_blocks\.(\d)\.(\w+?)\.(\d)\.(.*)", name)
    if not found:
        raise ValueError(f"{name} is no tensor of an SD1 UNet.")
    side, kind = found[1], found[3]
    level, index, rest = int(found[2]), int(found[4]), found[5]
    if kind in ("downsamplers", "upsamplers"):
        return prefix + _resampler_key(side, level, rest)
    per_level = _RESNETS_PER_LEVEL + 1
    # An input level is two resnets and a downsampler; an output level three resnets.
    number = per_level * level + index + (1 if side == "down" else 0)
    slot = 0
    if kind == "resnets":
        rest = _renamed(rest, _RESNET)
    else:
        slot = 1
    group = "input_blocks" if side == "down" else "output_blocks"
    return f"{prefix}{group}.{number}.{slot}.{rest}"


def _resampler_key(side: str, level: int, rest: str) -> str:
    if side == "down":
        return f"input_blocks.{3 * (level + 1)}.0.op.{rest.removeprefix('conv.')}"
    # The first output level has no attention, so its upsampler sits in slot 1.
    slot = 1 if level == 0 else 2
    return f"output_blocks.{3 * level + 2}.{slot}.{rest}"


def vae_key(name: str) -> str:
    """An AutoencoderKL name in SD1's layout."""
    prefix = "first_stage_model."
    side, _, rest = name.partition(".")
    if side in ("quant_conv", "post_quant_conv"):
        return prefix + name
    rest = rest.replace("conv_norm_out.", "norm_out.")
    rest = re.sub(r"^mid_block\.attentions\.0\.", "mid.attn_1.", rest)
    if rest.startswith("mid.attn_1."):
        head = "mid.attn_1."
        return f"{prefix}{side}.{head}{_renamed(rest[len(head) :], _VAE_ATTENTION)}"
    middle = re.match(r"mid_block\.resnets\.(\d)\.(.*)", rest)
    if middle:
        return f"{prefix}{side}.mid.block_{int(middle[1]) + 1}.{middle[2]}"
    found = re.match(r"(down|up)_blocks\.(\d)\.(\w+?)\.(\d)\.(.*)", rest)
    if not found:
        return f"{prefix}{side}.{rest}"
    # SD1 numbers the decoder's levels from the full size down.
    level = int(found[2]) if found[1] == "down" else _N_LEVELS - 1 - int(found[2])
    if found[3] == "resnets":
        tail = f"block.{found[4]}.{_renamed(found[5], _VAE_RESNET)}"
    else:
        tail = f"{found[1]}sample.{found[5]}"
    return f"{prefix}{side}.{found[1]}.{level}.{tail}"


def text_key(name: str) -> str:
    """A CLIPTextModel name in SD1's layout.

    transformers 5 dropped the prefix "text_model." that the files have.
    """
    return f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"


def _renamed(rest: str, names: Mapping[str, str]) -> str:
    for theirs, native in names.items():
        if rest.startswith(theirs):
            return native + rest[len(theirs) :]
    return rest


def single_file(
    *,
    unet: Mapping[str, Tensor],
    vae: Mapping[str, Tensor],
    text: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float16,
) -> dict[str, Tensor]:
    """All tensors of one SD1 checkpoint.

    Args:
        unet: UNet2DConditionModel weights by diffusers name.
        vae: AutoencoderKL weights.
        text: CLIPTextModel weights.
        dtype: Type of the weights; noise schedule and position ids keep theirs.
    """
    merged = {unet_key(name): value for name, value in unet.items()}
    for name, value in vae.items():
        key = vae_key(name)
        if ".mid.attn_1." in key and key.endswith(".weight") and value.ndim == 2:
            value = value[:, :, None, None]  # 1x1 convolutions in the original
        merged[key] = value
    for name, value in text.items():
        if not name.endswith("position_ids"):
            merged[text_key(name)] = value
    typed = {key: value.to(dtype).contiguous() for key, value in merged.items()}
    n_positions = typed[text_key("embeddings.position_embedding.weight")].shape[0]
    typed[text_key("embeddings.position_ids")] = torch.arange(n_positions)[None]
    typed["betas"] = noise_betas().float()
    typed["alphas_cumprod"] = signal_shares()
    return typed


def noise_betas(n_steps: int = 1000) -> Tensor:
    """SD1's noise schedule, (n_steps,) float64."""
    ends = (0.00085**0.5, 0.012**0.5)
    return torch.linspace(*ends, n_steps, dtype=torch.float64) ** 2


def signal_shares() -> Tensor:
    """Share of the signal's variance left at each step, (1000,) float32."""
    return torch.cumprod(1.0 - noise_betas(), dim=0).float()
