"""Names of Flux's modules: of the single-file layout, and of diffusers.

Diffusers keeps query, key, value (and the MLP of a single block) as layers of their
own, which the single file has fused; and the halves of the last modulation swapped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lib_merge.lora._clip import clip_names
from lib_merge.lora.targets import TE1, UNET, Name, Rows, Table, layer

_STORED = "model.diffusion_model."
_N_DOUBLE, _N_SINGLE = 19, 38

_ENDS = (
    ("img_in", "x_embedder"),
    ("txt_in", "context_embedder"),
    ("time_in.in_layer", "time_text_embed.timestep_embedder.linear_1"),
    ("time_in.out_layer", "time_text_embed.timestep_embedder.linear_2"),
    ("vector_in.in_layer", "time_text_embed.text_embedder.linear_1"),
    ("vector_in.out_layer", "time_text_embed.text_embedder.linear_2"),
    ("guidance_in.in_layer", "time_text_embed.guidance_embedder.linear_1"),
    ("guidance_in.out_layer", "time_text_embed.guidance_embedder.linear_2"),
    ("final_layer.linear", "proj_out"),
    ("final_layer.adaLN_modulation.1", None),
)
_DOUBLE = (
    ("img_attn.qkv", None),
    ("img_attn.proj", "attn.to_out.0"),
    ("img_mlp.0", "ff.net.0.proj"),
    ("img_mlp.2", "ff.net.2"),
    ("img_mod.lin", "norm1.linear"),
    ("txt_attn.qkv", None),
    ("txt_attn.proj", "attn.to_add_out"),
    ("txt_mlp.0", "ff_context.net.0.proj"),
    ("txt_mlp.2", "ff_context.net.2"),
    ("txt_mod.lin", "norm1_context.linear"),
)
_DOUBLE_SPLIT = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
_SINGLE = (
    ("linear1", None),
    ("linear2", "proj_out"),
    ("modulation.lin", "norm.linear"),
)
_SINGLE_SPLIT = {
    "attn.to_q": Rows(0, 1, 7),
    "attn.to_k": Rows(1, 2, 7),
    "attn.to_v": Rows(2, 3, 7),
    "proj_mlp": Rows(3, 7, 7),
}


def _named(ours: str, theirs: str | None) -> Iterator[Name]:
    target = layer(_STORED + ours)
    yield Name(UNET, ours, target, is_own=True)
    if theirs is not None:
        yield Name(UNET, theirs, target)


def _double(number: int) -> Iterator[Name]:
    ours, theirs = f"double_blocks.{number}.", f"transformer_blocks.{number}."
    for one, other in _DOUBLE:
        yield from _named(ours + one, None if other is None else theirs + other)
    for fused, parts in _DOUBLE_SPLIT.items():
        for place, part in enumerate(parts):
            target = layer(_STORED + ours + fused)
            rows = Rows(place, place + 1, 3)
            yield Name(UNET, theirs + part, replace(target, rows=rows))


def _single(number: int) -> Iterator[Name]:
    ours, theirs = f"single_blocks.{number}.", f"single_transformer_blocks.{number}."
    for one, other in _SINGLE:
        yield from _named(ours + one, None if other is None else theirs + other)
    for part, rows in _SINGLE_SPLIT.items():
        target = layer(f"{_STORED}{ours}linear1")
        yield Name(UNET, theirs + part, replace(target, rows=rows))


def _names() -> Iterator[Name]:
    for one, other in _ENDS:
        yield from _named(one, other)
    last = layer(f"{_STORED}final_layer.adaLN_modulation.1")
    yield Name(UNET, "norm_out.linear", replace(last, is_rotated=True))
    for number in range(_N_DOUBLE):
        yield from _double(number)
    for number in range(_N_SINGLE):
        yield from _single(number)
    yield from clip_names(TE1, "text_encoders.clip_l.transformer.text_model.", 12)


def flux_table() -> Table:
    """Names of Flux dev and schnell."""
    return Table(_names(), {UNET: "lora_unet", TE1: "lora_te1"})
