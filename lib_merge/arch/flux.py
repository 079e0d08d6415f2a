"""Flux.1 dev and schnell: 19 double and 38 single blocks, CLIP-L, T5, 16-channel VAE.

Source: key layout of the Black Forest Labs release; diffusers names as in diffusers'
`convert_flux_transformer_checkpoint_to_diffusers`.
"""

from __future__ import annotations

from collections.abc import Iterator

from lib_merge.arch import _names
from lib_merge.arch._dit import Dit, Loose, Stack, is_spare_text
from lib_merge.core.blocks import PLAIN, Architecture, Component, KeyInfos
from lib_merge.core.naming import How, Rule
from lib_merge.core.recognition import Names, View

PREFIX = "model.diffusion_model."
N_DOUBLE = 19
N_SINGLE = 38

_EMBEDDERS = {
    "time_in": "timestep_embedder",
    "vector_in": "text_embedder",
    "guidance_in": "guidance_embedder",
}
_MLP = {"0": "net.0.proj", "2": "net.2"}


def rules() -> Iterator[Rule]:
    """The rules of the transformer in diffusers naming."""
    linear = _names.linear
    for key, stored in _EMBEDDERS.items():
        yield from linear(f"{key}.in_layer", f"time_text_embed.{stored}.linear_1")
        yield from linear(f"{key}.out_layer", f"time_text_embed.{stored}.linear_2")
    yield from linear("img_in", "x_embedder")
    yield from linear("txt_in", "context_embedder")
    yield from linear("final_layer.linear", "proj_out")
    final = "final_layer.adaLN_modulation.1"
    yield from linear(final, "norm_out.linear", how=How.SWAPPED)
    for i in range(N_DOUBLE):
        yield from _double(f"double_blocks.{i}.", f"transformer_blocks.{i}.")
    for i in range(N_SINGLE):
        yield from _single(f"single_blocks.{i}.", f"single_transformer_blocks.{i}.")


def _double(old: str, new: str) -> Iterator[Rule]:
    linear = _names.linear
    for stream, end, ff in (("img", "", "ff"), ("txt", "_context", "ff_context")):
        yield from linear(f"{old}{stream}_mod.lin", f"{new}norm1{end}.linear")
        for key, stored in _MLP.items():
            yield from linear(f"{old}{stream}_mlp.{key}", f"{new}{ff}.{stored}")
    image = [f"{new}attn.to_{part}" for part in "qkv"]
    text = [f"{new}attn.add_{part}_proj" for part in "qkv"]
    yield from linear(f"{old}img_attn.qkv", *image)
    yield from linear(f"{old}txt_attn.qkv", *text)
    yield from linear(f"{old}img_attn.proj", f"{new}attn.to_out.0")
    yield from linear(f"{old}txt_attn.proj", f"{new}attn.to_add_out")
    for stream, added in (("img", ""), ("txt", "added_")):
        yield from _norms(f"{old}{stream}_attn.norm.", f"{new}attn.norm_{added}")


def _single(old: str, new: str) -> Iterator[Rule]:
    linear = _names.linear
    fused = [f"{new}attn.to_{part}" for part in "qkv"]
    yield from linear(f"{old}linear1", *fused, f"{new}proj_mlp", shares=(1, 1, 1, 4))
    yield from linear(f"{old}linear2", f"{new}proj_out")
    yield from linear(f"{old}modulation.lin", f"{new}norm.linear")
    yield from _norms(f"{old}norm.", f"{new}attn.norm_")


def _norms(old: str, new: str) -> Iterator[Rule]:
    for key, part in (("query", "q"), ("key", "k")):
        yield Rule(f"{old}{key}_norm.scale", (f"{new}{part}.weight",))


def is_mine(view: View) -> bool:
    """The last double and the last single block, and no Chroma (no modulation)."""
    return view.has(
        f"double_blocks.{N_DOUBLE - 1}.img_attn.qkv.weight",
        f"single_blocks.{N_SINGLE - 1}.linear1.weight",
        "double_blocks.0.img_mod.lin.weight",
    )


def is_rest(names: Names) -> bool:
    """T5 beside no CLIP-G."""
    has_g = names.starts("text_encoders.clip_g.") or names.starts("text_encoder_3.")
    return names.starts("text_encoders.t5xxl.") and not has_g


def kind_of(infos: KeyInfos) -> str:
    """schnell has no guidance; Fill, Canny and Depth have a wider input."""
    width = infos.get(f"{PREFIX}img_in.weight")
    if width is not None and width.shape[-1:] in ((384,), (128,)):
        return "inpainting" if width.shape[-1] == 384 else "control"
    if not any(key.startswith(f"{PREFIX}double_blocks.") for key in infos):
        return PLAIN
    return PLAIN if f"{PREFIX}guidance_in.in_layer.weight" in infos else "schnell"


_ENCODERS = (
    _names.clip(Component.CLIP_L, "text_encoders.clip_l.", "text_encoder."),
    _names.t5("text_encoders.t5xxl.", "text_encoder_2."),
)
_DIT = Dit(
    prefix=PREFIX,
    first=(
        Loose("IMG_IN", "image patches", ("img_in.",)),
        Loose("TXT_IN", "text tokens", ("txt_in.",)),
        Loose("TIME_IN", "timestep MLP", ("time_in.",)),
        Loose("VECTOR_IN", "pooled-text MLP", ("vector_in.",)),
        Loose("GUIDANCE_IN", "guidance MLP (dev)", ("guidance_in.",)),
    ),
    stacks=(
        Stack("double_blocks.", "DOUBLE", N_DOUBLE, "image and text, two streams"),
        Stack("single_blocks.", "SINGLE", N_SINGLE, "image and text, one stream"),
    ),
    last=(Loose("FINAL", "final norm and projection", ("final_layer.",)),),
    encoders=_ENCODERS,
    vae=_names.vae("vae."),
)

ARCHITECTURE = Architecture(
    id="flux",
    label="Flux.1",
    blocks=_DIT.blocks(),
    role_of=_DIT.role(),
    names=(
        _names.denoiser(
            rules(),
            marks=("double_blocks.",),
            diffusers_marks=("single_transformer_blocks.",),
        ),
        *_ENCODERS,
        _DIT.vae,
    ),
    is_mine=is_mine,
    is_rest=is_rest,
    kind_of=kind_of,
    is_spare=lambda key: is_spare_text(key) or ".guidance_in." in key,
    latent_channels=16,
)
