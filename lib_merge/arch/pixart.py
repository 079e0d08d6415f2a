"""PixArt-alpha and PixArt-Sigma: 28 blocks with one modulation for all, T5.

Source: key layout of the PixArt releases; diffusers names as in diffusers'
scripts/convert_pixart_sigma_to_diffusers.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from lib_merge.arch import _names
from lib_merge.arch._dit import Dit, Loose, Stack, is_spare_text
from lib_merge.core.blocks import PLAIN, Architecture, KeyInfos
from lib_merge.core.naming import Rule
from lib_merge.core.recognition import View

PREFIX = "model.diffusion_model."
N_BLOCKS = 28

_EMBEDDERS = {
    "t_embedder": "timestep_embedder",
    "csize_embedder": "resolution_embedder",
    "ar_embedder": "aspect_ratio_embedder",
}


def rules() -> Iterator[Rule]:
    """The rules of the transformer in diffusers naming."""
    linear = _names.linear
    yield from linear("x_embedder.proj", "pos_embed.proj")
    for key, stored in _EMBEDDERS.items():
        yield from linear(f"{key}.mlp.0", f"adaln_single.emb.{stored}.linear_1")
        yield from linear(f"{key}.mlp.2", f"adaln_single.emb.{stored}.linear_2")
    yield from linear("t_block.1", "adaln_single.linear")
    yield from linear("y_embedder.y_proj.fc1", "caption_projection.linear_1")
    yield from linear("y_embedder.y_proj.fc2", "caption_projection.linear_2")
    yield from linear("final_layer.linear", "proj_out")
    yield Rule("final_layer.scale_shift_table", ("scale_shift_table",))
    for i in range(N_BLOCKS):
        yield from _block(f"blocks.{i}.", f"transformer_blocks.{i}.")


def _block(old: str, new: str) -> Iterator[Rule]:
    linear = _names.linear
    yield Rule(f"{old}scale_shift_table", (f"{new}scale_shift_table",))
    yield from linear(f"{old}attn.qkv", *(f"{new}attn1.to_{part}" for part in "qkv"))
    yield from linear(f"{old}attn.proj", f"{new}attn1.to_out.0")
    for part in "qk":
        yield from linear(f"{old}attn.{part}_norm", f"{new}attn1.{part}_norm")
    yield from linear(f"{old}cross_attn.q_linear", f"{new}attn2.to_q")
    fused = [f"{new}attn2.to_{part}" for part in "kv"]
    yield from linear(f"{old}cross_attn.kv_linear", *fused)
    yield from linear(f"{old}cross_attn.proj", f"{new}attn2.to_out.0")
    yield from linear(f"{old}mlp.fc1", f"{new}ff.net.0.proj")
    yield from linear(f"{old}mlp.fc2", f"{new}ff.net.2")


def is_mine(view: View) -> bool:
    """One modulation for all blocks, a caption projection, and the last block."""
    last = f"blocks.{N_BLOCKS - 1}.cross_attn.kv_linear.weight"
    return view.has("t_block.1.weight", "y_embedder.y_proj.fc1.weight", last)


def kind_of(infos: KeyInfos) -> str:
    """PixArt-alpha at 1024 px also embeds the size; Sigma reads 300 tokens, not 120."""
    if f"{PREFIX}csize_embedder.mlp.0.weight" in infos:
        return "alpha"
    tokens = infos.get(f"{PREFIX}y_embedder.y_embedding")
    if tokens is None or tokens.shape[:1] not in ((120,), (300,)):
        return PLAIN
    return "sigma" if tokens.shape[0] == 300 else "alpha"


_ENCODERS = (_names.t5("text_encoders.t5xxl.", "text_encoder."),)
_DIT = Dit(
    prefix=PREFIX,
    first=(
        Loose("X_EMBED", "image patches", ("x_embedder.",)),
        Loose("T_EMBED", "timestep MLP and modulation", ("t_embedder.", "t_block.")),
        Loose("SIZE_EMBED", "size MLPs (alpha)", ("csize_embedder.", "ar_embedder.")),
        Loose("CONTEXT", "text tokens", ("y_embedder.y_proj.",)),
    ),
    stacks=(Stack("blocks.", "BLOCK", N_BLOCKS, "self- and cross-attention"),),
    last=(Loose("FINAL", "final norm and projection", ("final_layer.",)),),
    encoders=_ENCODERS,
    vae=_names.vae("vae."),
    copied=(f"{PREFIX}pos_embed", f"{PREFIX}y_embedder.y_embedding"),
)

ARCHITECTURE = Architecture(
    id="pixart",
    label="PixArt",
    blocks=_DIT.blocks(),
    role_of=_DIT.role(),
    names=(
        _names.denoiser(
            rules(),
            marks=("t_block.",),
            diffusers_marks=("adaln_single.",),
        ),
        *_ENCODERS,
        _DIT.vae,
    ),
    is_mine=is_mine,
    is_rest=lambda names: False,
    kind_of=kind_of,
    is_spare=is_spare_text,
)
