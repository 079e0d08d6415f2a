"""Names of the modules of the SD1, SD2 and SDXL UNets, and their tables.

Every module has its name in the single-file layout and the one that diffusers gives it;
kohya's trainer uses the latter for SD1 and SD2 and the former for SDXL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lib_merge.lora._clip import clip_names, open_clip_names
from lib_merge.lora.targets import TE1, TE2, UNET, Name, Table, layer

_STORED = "model.diffusion_model."
_RESNET = (
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
)
_LAYERS = (
    *(f"{a}.{p}" for a in ("attn1", "attn2") for p in ("to_q", "to_k", "to_v")),
    *("attn1.to_out.0", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2"),
    *("norm1", "norm2", "norm3"),
)
_ENDS = (
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
    ("input_blocks.0.0", "conv_in"),
    ("out.0", "conv_norm_out"),
    ("out.2", "conv_out"),
)
_LABEL = (
    ("label_emb.0.0", "add_embedding.linear_1"),
    ("label_emb.0.2", "add_embedding.linear_2"),
)

Pair = tuple[str, str]
"""(name in the single-file layout, name in diffusers)."""


def _resnet(ours: str, theirs: str) -> Iterator[Pair]:
    for one, other in _RESNET:
        yield f"{ours}.{one}", f"{theirs}.{other}"


def _attention(ours: str, theirs: str, n_layers: int) -> Iterator[Pair]:
    for part in ("norm", "proj_in", "proj_out"):
        yield f"{ours}.{part}", f"{theirs}.{part}"
    for number in range(n_layers):
        for part in _LAYERS:
            inner = f"transformer_blocks.{number}.{part}"
            yield f"{ours}.{inner}", f"{theirs}.{inner}"


def unet_pairs(depths: Sequence[int], middle: int) -> Iterator[Pair]:
    """Both names of every module.

    Args:
        depths: Layers of each transformer on a level, the finest first; 0 for none.
        middle: The same of the middle block.
    """
    yield from _ENDS
    yield from _down(depths)
    yield from _resnet("middle_block.0", "mid_block.resnets.0")
    yield from _attention("middle_block.1", "mid_block.attentions.0", middle)
    yield from _resnet("middle_block.2", "mid_block.resnets.1")
    yield from _up(depths)


def _down(depths: Sequence[int]) -> Iterator[Pair]:
    index = 1
    for level, depth in enumerate(depths):
        theirs = f"down_blocks.{level}"
        for place in range(2):
            ours = f"input_blocks.{index}"
            yield from _resnet(f"{ours}.0", f"{theirs}.resnets.{place}")
            if depth:
                yield from _attention(
                    f"{ours}.1", f"{theirs}.attentions.{place}", depth
                )
            index += 1
        if level < len(depths) - 1:
            yield f"input_blocks.{index}.0.op", f"{theirs}.downsamplers.0.conv"
            index += 1


def _up(depths: Sequence[int]) -> Iterator[Pair]:
    for level, depth in enumerate(reversed(depths)):
        theirs = f"up_blocks.{level}"
        for place in range(3):
            ours = f"output_blocks.{3 * level + place}"
            yield from _resnet(f"{ours}.0", f"{theirs}.resnets.{place}")
            if depth:
                yield from _attention(
                    f"{ours}.1", f"{theirs}.attentions.{place}", depth
                )
        if level < len(depths) - 1:
            conv = f"output_blocks.{3 * level + 2}.{2 if depth else 1}.conv"
            yield conv, f"{theirs}.upsamplers.0.conv"


def _unet_names(pairs: Iterator[Pair], *, is_ours_written: bool) -> Iterator[Name]:
    for ours, theirs in pairs:
        target = layer(_STORED + ours)
        yield Name(UNET, ours, target, is_own=is_ours_written)
        yield Name(UNET, theirs, target, is_own=not is_ours_written)


def sd1_table() -> Table:
    """Names of Stable Diffusion 1."""
    unet = _unet_names(unet_pairs((1, 1, 1, 0), 1), is_ours_written=False)
    text = clip_names(TE1, "cond_stage_model.transformer.text_model.", 12)
    return Table([*unet, *text], {UNET: "lora_unet", TE1: "lora_te"})


def sd2_table() -> Table:
    """Names of Stable Diffusion 2; diffusers leaves the last of its 24 layers out."""
    unet = _unet_names(unet_pairs((1, 1, 1, 0), 1), is_ours_written=False)
    text = open_clip_names(TE1, "cond_stage_model.model.", 24)
    return Table([*unet, *text], {UNET: "lora_unet", TE1: "lora_te"})


def sdxl_table() -> Table:
    """Names of Stable Diffusion XL."""
    pairs = [*_LABEL, *unet_pairs((0, 2, 10), 10)]
    unet = _unet_names(iter(pairs), is_ours_written=True)
    text_l = clip_names(TE1, "conditioner.embedders.0.transformer.text_model.", 12)
    text_g = open_clip_names(TE2, "conditioner.embedders.1.model.", 32)
    prefixes = {UNET: "lora_unet", TE1: "lora_te1", TE2: "lora_te2"}
    return Table([*unet, *text_l, *text_g], prefixes)
