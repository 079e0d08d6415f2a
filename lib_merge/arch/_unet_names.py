"""The single file's names of the SD1, SD2 and SDXL UNets against those of diffusers.

Source: `convert_ldm_unet_checkpoint` of diffusers. Input block 3i + j + 1 is the j-th
layer of down block i, output block 3i + j that of up block i.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lib_merge.core.naming import Rule

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_BOTH = (".weight", ".bias")
_N_LAYERS = 2
_TOP = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
}


def unet_rules(
    depths: Sequence[int], middle: int, *, up: Sequence[int] | None = None
) -> Iterator[Rule]:
    """The rules of a UNet.

    Args:
        depths: Transformer layers at each level, 0 where there is no attention.
        middle: Transformer layers in the middle.
        up: Transformer layers at each level on the way up, if others than `depths`.
    """
    n_levels = len(depths)
    for key, stored in _TOP.items():
        yield from _same(key, stored)
    weight = "time_embedding.cond_proj.weight"
    yield Rule("time_embed.cond_proj.weight", (weight,))
    for level, depth in enumerate(depths):
        yield from _down(level, depth, is_last=level == n_levels - 1)
    for i in (0, 1):
        yield from _resnet(f"middle_block.{2 * i}", f"mid_block.resnets.{i}")
    yield from _attention("middle_block.1", "mid_block.attentions.0", middle)
    for level, depth in enumerate(reversed(up or depths)):
        yield from _up(level, depth, is_last=level == n_levels - 1)


def _down(level: int, depth: int, *, is_last: bool) -> Iterator[Rule]:
    new = f"down_blocks.{level}"
    first = (_N_LAYERS + 1) * level + 1
    for j in range(_N_LAYERS):
        old = f"input_blocks.{first + j}"
        yield from _resnet(f"{old}.0", f"{new}.resnets.{j}")
        yield from _attention(f"{old}.1", f"{new}.attentions.{j}", depth)
    if not is_last:
        old = f"input_blocks.{first + _N_LAYERS}.0.op"
        yield from _same(old, f"{new}.downsamplers.0.conv")


def _up(level: int, depth: int, *, is_last: bool) -> Iterator[Rule]:
    new = f"up_blocks.{level}"
    first = (_N_LAYERS + 1) * level
    for j in range(_N_LAYERS + 1):
        old = f"output_blocks.{first + j}"
        yield from _resnet(f"{old}.0", f"{new}.resnets.{j}")
        yield from _attention(f"{old}.1", f"{new}.attentions.{j}", depth)
    if not is_last:
        place = 2 if depth else 1
        old = f"output_blocks.{first + _N_LAYERS}.{place}.conv"
        yield from _same(old, f"{new}.upsamplers.0.conv")


def _resnet(old: str, new: str) -> Iterator[Rule]:
    for key, stored in _RESNET.items():
        yield from _same(f"{old}.{key}", f"{new}.{stored}")


def _attention(old: str, new: str, depth: int) -> Iterator[Rule]:
    """Inside a transformer both speak the same names."""
    if not depth:
        return
    for name in ("norm", "proj_in", "proj_out"):
        yield from _same(f"{old}.{name}", f"{new}.{name}")
    for layer in range(depth):
        inner = f"transformer_blocks.{layer}"
        names = [f"{inner}.norm{i}" for i in (1, 2, 3)]
        names += [f"{inner}.attn{i}.to_out.0" for i in (1, 2)]
        names += [f"{inner}.ff.net.0.proj", f"{inner}.ff.net.2"]
        for name in names:
            yield from _same(f"{old}.{name}", f"{new}.{name}")
        for i in (1, 2):
            for part in "qkv":
                name = f"{inner}.attn{i}.to_{part}.weight"
                yield Rule(f"{old}.{name}", (f"{new}.{name}",))


def _same(old: str, new: str) -> Iterator[Rule]:
    for end in _BOTH:
        yield Rule(old + end, (new + end,))
