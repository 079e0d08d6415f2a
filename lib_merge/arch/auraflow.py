"""AuraFlow (v0.1 to v0.3): 4 joint and 32 single blocks, Pile-T5-XL, the SDXL VAE.

Source: key layout of the fal release; diffusers names as in diffusers'
`convert_auraflow_transformer_checkpoint_to_diffusers`.
"""

from __future__ import annotations

from collections.abc import Iterator

from lib_merge.arch import _names
from lib_merge.arch._dit import Dit, Loose, Stack, is_spare_text
from lib_merge.core.blocks import Architecture
from lib_merge.core.naming import How, Rule
from lib_merge.core.recognition import Names, View

PREFIX = "model."
N_JOINT = 4
N_SINGLE = 32

_MLP = {"c_fc1": "linear_1", "c_fc2": "linear_2", "c_proj": "out_projection"}


def rules() -> Iterator[Rule]:
    """The rules of the transformer in diffusers naming; its layers have no bias."""
    yield Rule("register_tokens", ("register_tokens",))
    yield Rule("positional_encoding", ("pos_embed.pos_embed",))
    yield from _names.linear("init_x_linear", "pos_embed.proj")
    yield from _names.linear("t_embedder.mlp.0", "time_step_proj.linear_1")
    yield from _names.linear("t_embedder.mlp.2", "time_step_proj.linear_2")
    yield from _weight("cond_seq_linear", "context_embedder")
    yield from _weight("final_linear", "proj_out")
    yield Rule("modF.1.weight", ("norm_out.linear.weight",), how=How.SWAPPED)
    for i in range(N_JOINT):
        yield from _joint(f"double_layers.{i}.", f"joint_transformer_blocks.{i}.")
    for i in range(N_SINGLE):
        yield from _single(f"single_layers.{i}.", f"single_transformer_blocks.{i}.")


def _joint(old: str, new: str) -> Iterator[Rule]:
    for key, ff in (("mlpX", "ff"), ("mlpC", "ff_context")):
        for inner, stored in _MLP.items():
            yield from _weight(f"{old}{key}.{inner}", f"{new}{ff}.{stored}")
    yield from _weight(f"{old}modX.1", f"{new}norm1.linear")
    yield from _weight(f"{old}modC.1", f"{new}norm1_context.linear")
    for part in "qkv":
        yield from _weight(f"{old}attn.w2{part}", f"{new}attn.to_{part}")
        yield from _weight(f"{old}attn.w1{part}", f"{new}attn.add_{part}_proj")
    yield from _weight(f"{old}attn.w2o", f"{new}attn.to_out.0")
    yield from _weight(f"{old}attn.w1o", f"{new}attn.to_add_out")


def _single(old: str, new: str) -> Iterator[Rule]:
    for inner, stored in _MLP.items():
        yield from _weight(f"{old}mlp.{inner}", f"{new}ff.{stored}")
    yield from _weight(f"{old}modCX.1", f"{new}norm1.linear")
    for part in "qkv":
        yield from _weight(f"{old}attn.w1{part}", f"{new}attn.to_{part}")
    yield from _weight(f"{old}attn.w1o", f"{new}attn.to_out.0")


def _weight(key: str, stored: str) -> Iterator[Rule]:
    return _names.linear(key, stored, has_bias=False)


def is_mine(view: View) -> bool:
    """The register tokens and the last single block."""
    last = f"single_layers.{N_SINGLE - 1}.attn.w1q.weight"
    return view.has("register_tokens", last)


def is_rest(names: Names) -> bool:
    """Pile-T5, which no other architecture has."""
    return names.starts("text_encoders.pile_t5xl.")


_ENCODERS = (_names.t5("text_encoders.pile_t5xl.", "text_encoder."),)
_DIT = Dit(
    prefix=PREFIX,
    first=(
        Loose("X_EMBED", "image patches", ("init_x_linear.",)),
        Loose("POS_EMBED", "places of the patches", ("positional_encoding",)),
        Loose("T_EMBED", "timestep MLP", ("t_embedder.",)),
        Loose("CONTEXT", "text tokens", ("cond_seq_linear.",)),
        Loose("REGISTER", "register tokens", ("register_tokens",)),
    ),
    stacks=(
        Stack("double_layers.", "JOINT", N_JOINT, "image and text, joint"),
        Stack("single_layers.", "SINGLE", N_SINGLE, "image and text, one stream"),
    ),
    last=(Loose("FINAL", "final norm and projection", ("modF.", "final_linear.")),),
    encoders=_ENCODERS,
    vae=_names.vae("vae."),
)

ARCHITECTURE = Architecture(
    id="auraflow",
    label="AuraFlow",
    blocks=_DIT.blocks(),
    role_of=_DIT.role(),
    names=(
        _names.denoiser(
            rules(),
            marks=("double_layers.", "single_layers."),
            diffusers_marks=("joint_transformer_blocks.", "single_transformer_blocks."),
            prefix=PREFIX,
        ),
        *_ENCODERS,
        _DIT.vae,
    ),
    is_mine=is_mine,
    is_rest=is_rest,
    is_spare=is_spare_text,
)
