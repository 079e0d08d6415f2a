"""The single file's names of an autoencoder against those of diffusers.

Source: `convert_ldm_vae_checkpoint` of diffusers. The attention's 1x1 convolutions are
matrices there, and its older versions spelled them query, key, value and proj_attn.
"""

from __future__ import annotations

from collections.abc import Iterator

from lib_merge.core.naming import How, Rule

_ENDS = (".weight", ".bias")
_RESNET = {
    "norm1": "norm1",
    "conv1": "conv1",
    "norm2": "norm2",
    "conv2": "conv2",
    "nin_shortcut": "conv_shortcut",
}
_ATTENTION = {
    "q": ("to_q", "query"),
    "k": ("to_k", "key"),
    "v": ("to_v", "value"),
    "proj_out": ("to_out.0", "proj_attn"),
}
_N_LEVELS = 4
_N_RESNETS = {"encoder": 2, "decoder": 3}


def vae_rules() -> Iterator[Rule]:
    """The rules of encoder, decoder and the convolutions between them."""
    for name in ("quant_conv", "post_quant_conv"):
        yield from _same(name, name)
    for side in ("encoder", "decoder"):
        for name in ("conv_in", "conv_out"):
            yield from _same(f"{side}.{name}", f"{side}.{name}")
        yield from _same(f"{side}.norm_out", f"{side}.conv_norm_out")
        for i in (1, 2):
            new = f"{side}.mid_block.resnets.{i - 1}"
            yield from _resnet(f"{side}.mid.block_{i}", new)
        old, new = f"{side}.mid.attn_1", f"{side}.mid_block.attentions.0"
        yield from _same(f"{old}.norm", f"{new}.group_norm")
        yield from _attention(old, new)
        for level in range(_N_LEVELS):
            yield from _level(side, level)


def _level(side: str, level: int) -> Iterator[Rule]:
    if side == "encoder":
        old, new = f"encoder.down.{level}", f"encoder.down_blocks.{level}"
        sampler = ("downsample.conv", "downsamplers.0.conv")
    else:
        # The single file counts the decoder's levels from the image side.
        old = f"decoder.up.{level}"
        new = f"decoder.up_blocks.{_N_LEVELS - 1 - level}"
        sampler = ("upsample.conv", "upsamplers.0.conv")
    yield from _same(f"{old}.{sampler[0]}", f"{new}.{sampler[1]}")
    for i in range(_N_RESNETS[side]):
        yield from _resnet(f"{old}.block.{i}", f"{new}.resnets.{i}")


def _resnet(old: str, new: str) -> Iterator[Rule]:
    for key, stored in _RESNET.items():
        yield from _same(f"{old}.{key}", f"{new}.{stored}")


def _attention(old: str, new: str) -> Iterator[Rule]:
    for key, spellings in _ATTENTION.items():
        for stored in spellings:
            weight = (f"{new}.{stored}.weight",)
            yield Rule(f"{old}.{key}.weight", weight, how=How.AS_CONV)
            yield Rule(f"{old}.{key}.bias", (f"{new}.{stored}.bias",))


def _same(old: str, new: str) -> Iterator[Rule]:
    for end in _ENDS:
        yield Rule(old + end, (new + end,))
