"""Hunyuan-DiT (v1.0 to v1.2): 40 blocks with long skips, a BERT and mT5.

Source: key layout of the Tencent release; diffusers names as in diffusers'
scripts/convert_hunyuandit_to_diffusers.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from lib_merge.arch import _names
from lib_merge.arch._dit import Dit, Loose, Stack, is_spare_text
from lib_merge.core.blocks import Architecture
from lib_merge.core.naming import How, Rule
from lib_merge.core.recognition import Names, View

PREFIX = "model."
N_BLOCKS = 40

_POOLER = ("q_proj", "k_proj", "v_proj", "c_proj")


def rules() -> Iterator[Rule]:
    """The rules of the transformer in diffusers naming."""
    linear = _names.linear
    extra = "time_extra_emb."
    yield Rule("text_embedding_padding", ("text_embedding_padding",))
    yield from linear("x_embedder.proj", "pos_embed.proj")
    for i in (0, 2):
        number = i // 2 + 1
        yield from linear(f"mlp_t5.{i}", f"text_embedder.linear_{number}")
        new = f"{extra}timestep_embedder.linear_{number}"
        yield from linear(f"t_embedder.mlp.{i}", new)
        new = f"{extra}extra_embedder.linear_{number}"
        yield from linear(f"extra_embedder.{i}", new)
    place = "pooler.positional_embedding"
    yield Rule(place, (extra + place,))
    for name in _POOLER:
        yield from linear(f"pooler.{name}", f"{extra}pooler.{name}")
    yield Rule("style_embedder.weight", (f"{extra}style_embedder.weight",))
    yield from linear("final_layer.linear", "proj_out")
    final = "final_layer.adaLN_modulation.1"
    yield from linear(final, "norm_out.linear", how=How.SWAPPED)
    for i in range(N_BLOCKS):
        yield from _block(f"blocks.{i}.")


def _block(own: str) -> Iterator[Rule]:
    linear = _names.linear
    yield from linear(f"{own}norm1", f"{own}norm1.norm")
    yield from linear(f"{own}default_modulation.1", f"{own}norm1.linear")
    # diffusers numbers the norms in the order of use.
    yield from linear(f"{own}norm2", f"{own}norm3")
    yield from linear(f"{own}norm3", f"{own}norm2")
    fused = [f"{own}attn1.to_{part}" for part in "qkv"]
    yield from linear(f"{own}attn1.Wqkv", *fused)
    yield from linear(f"{own}attn2.q_proj", f"{own}attn2.to_q")
    fused = [f"{own}attn2.to_{part}" for part in "kv"]
    yield from linear(f"{own}attn2.kv_proj", *fused)
    for attn in ("attn1", "attn2"):
        yield from linear(f"{own}{attn}.out_proj", f"{own}{attn}.to_out.0")
        for part in "qk":
            yield from linear(f"{own}{attn}.{part}_norm", f"{own}{attn}.norm_{part}")
    yield from linear(f"{own}mlp.fc1", f"{own}ff.net.0.proj")
    yield from linear(f"{own}mlp.fc2", f"{own}ff.net.2")
    for name in ("skip_norm", "skip_linear"):
        yield from linear(f"{own}{name}", f"{own}{name}")


def is_mine(view: View) -> bool:
    """The text projection for mT5 and the last block."""
    last = f"blocks.{N_BLOCKS - 1}.attn1.Wqkv.weight"
    return view.has("mlp_t5.0.weight", last)


def is_rest(names: Names) -> bool:
    """Its BERT, which no other architecture has."""
    return names.starts("text_encoders.hydit_clip.")


_ENCODERS = (
    _names.bert("text_encoders.hydit_clip.", "text_encoder."),
    _names.t5("text_encoders.mt5xl.", "text_encoder_2."),
)
_DIT = Dit(
    prefix=PREFIX,
    first=(
        Loose("X_EMBED", "image patches", ("x_embedder.",)),
        Loose("T_EMBED", "timestep MLP", ("t_embedder.",)),
        Loose("EXTRA_EMBED", "size and pooled-text MLP", ("extra_embedder.",)),
        Loose("POOLER", "pooling of the mT5 tokens", ("pooler.",)),
        Loose("STYLE", "style embedding (up to v1.1)", ("style_embedder.",)),
        Loose("CONTEXT", "text tokens", ("mlp_t5.", "text_embedding_padding")),
    ),
    stacks=(Stack("blocks.", "BLOCK", N_BLOCKS, "self- and cross-attention"),),
    last=(Loose("FINAL", "final norm and projection", ("final_layer.",)),),
    encoders=_ENCODERS,
    vae=_names.vae("vae."),
)

ARCHITECTURE = Architecture(
    id="hunyuan_dit",
    label="Hunyuan-DiT",
    blocks=_DIT.blocks(),
    role_of=_DIT.role(),
    names=(
        _names.denoiser(
            rules(),
            marks=("mlp_t5.",),
            diffusers_marks=("text_embedder.", "time_extra_emb."),
            prefix=PREFIX,
        ),
        *_ENCODERS,
        _DIT.vae,
    ),
    is_mine=is_mine,
    is_rest=is_rest,
    is_spare=is_spare_text,
)
