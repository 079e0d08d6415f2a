"""What SD3 and SD3.5 have in common: joint blocks of image and text streams."""

from __future__ import annotations

from collections.abc import Iterator

from lib_merge.arch import _names
from lib_merge.arch._dit import Dit, Loose, Stack, is_spare_text
from lib_merge.core.blocks import Architecture, Component
from lib_merge.core.naming import ComponentNames, How, Rule
from lib_merge.core.recognition import Names, View

PREFIX = "model.diffusion_model."

_LAST_BLOCK = "joint_blocks.{}.x_block.attn.qkv.weight"
_MLP = {"fc1": "net.0.proj", "fc2": "net.2"}


def rules(depth: int) -> Iterator[Rule]:
    """The rules of a transformer in diffusers naming.

    Args:
        depth: How many joint blocks it has; the last one ends its text stream.
    """
    linear = _names.linear
    yield Rule("pos_embed", ("pos_embed.pos_embed",))
    yield from linear("x_embedder.proj", "pos_embed.proj")
    yield from linear("context_embedder", "context_embedder")
    for key, stored in (("t", "timestep"), ("y", "text")):
        new = f"time_text_embed.{stored}_embedder.linear_"
        yield from linear(f"{key}_embedder.mlp.0", f"{new}1")
        yield from linear(f"{key}_embedder.mlp.2", f"{new}2")
    yield from linear("final_layer.linear", "proj_out")
    final = "final_layer.adaLN_modulation.1"
    yield from linear(final, "norm_out.linear", how=How.SWAPPED)
    for i in range(depth):
        yield from _block(i, is_last=i == depth - 1)


def _block(i: int, *, is_last: bool) -> Iterator[Rule]:
    linear = _names.linear
    x, context = f"joint_blocks.{i}.x_block.", f"joint_blocks.{i}.context_block."
    new = f"transformer_blocks.{i}."
    yield from linear(f"{x}adaLN_modulation.1", f"{new}norm1.linear")
    # The last text stream has no more than a shift and a scale, as the final layer.
    how = How.SWAPPED if is_last else How.PLAIN
    yield from linear(
        f"{context}adaLN_modulation.1", f"{new}norm1_context.linear", how=how
    )
    for attn in ("attn", "attn2"):
        fused = [f"{new}{attn}.to_{part}" for part in "qkv"]
        yield from linear(f"{x}{attn}.qkv", *fused)
        yield from linear(f"{x}{attn}.proj", f"{new}{attn}.to_out.0")
        for part in "qk":
            stored = (f"{new}{attn}.norm_{part}.weight",)
            yield Rule(f"{x}{attn}.ln_{part}.weight", stored)
    fused = [f"{new}attn.add_{part}_proj" for part in "qkv"]
    yield from linear(f"{context}attn.qkv", *fused)
    yield from linear(f"{context}attn.proj", f"{new}attn.to_add_out")
    for part in "qk":
        stored = (f"{new}attn.norm_added_{part}.weight",)
        yield Rule(f"{context}attn.ln_{part}.weight", stored)
    for old, ff in ((x, "ff"), (context, "ff_context")):
        for key, name in _MLP.items():
            yield from linear(f"{old}mlp.{key}", f"{new}{ff}.{name}")


ENCODERS = (
    _names.clip(Component.CLIP_L, "text_encoders.clip_l.", "text_encoder."),
    _names.clip(Component.CLIP_G, "text_encoders.clip_g.", "text_encoder_2."),
    _names.t5("text_encoders.t5xxl.", "text_encoder_3."),
)


def architecture(
    id_: str, label: str, depth: int, *, has_norms: bool, is_rest: bool = False
) -> Architecture:
    """One of the family.

    Args:
        id_: Its id.
        label: What people call it.
        depth: How many joint blocks it has.
        has_norms: Whether queries and keys are normalised (SD3.5).
        is_rest: Whether text encoders without a transformer are called this.
    """
    names = _denoiser(depth)
    dit = Dit(
        prefix=PREFIX,
        first=(
            Loose("X_EMBED", "image patches", ("x_embedder.",)),
            Loose("POS_EMBED", "places of the patches", ("pos_embed",)),
            Loose("T_EMBED", "timestep MLP", ("t_embedder.",)),
            Loose("Y_EMBED", "pooled-text MLP", ("y_embedder.",)),
            Loose("CONTEXT", "text tokens", ("context_embedder.",)),
        ),
        stacks=(Stack("joint_blocks.", "JOINT", depth, "image and text, joint"),),
        last=(Loose("FINAL", "final norm and projection", ("final_layer.",)),),
        encoders=ENCODERS,
        vae=_names.vae(),
        copied=("model.model_sampling.", "model_sampling.", f"{PREFIX}sigmas"),
    )

    def is_mine(view: View) -> bool:
        last = _LAST_BLOCK.format(depth - 1)
        norm = "joint_blocks.0.x_block.attn.ln_q.weight"
        is_deeper = view.has(_LAST_BLOCK.format(depth))
        return view.has(last) and not is_deeper and view.has(norm) is has_norms

    return Architecture(
        id=id_,
        label=label,
        blocks=dit.blocks(),
        role_of=dit.role(),
        names=(names, *ENCODERS, dit.vae),
        is_mine=is_mine,
        is_rest=_is_rest if is_rest else lambda names: False,
        is_spare=is_spare_text,
        latent_channels=16,
    )


def _is_rest(names: Names) -> bool:
    return names.starts("text_encoders.clip_g.") or names.starts("text_encoder_3.")


def _denoiser(depth: int) -> ComponentNames:
    return _names.denoiser(
        # A rule for one block more lets a deeper model be told from this one.
        (*rules(depth), *_block(depth, is_last=False)),
        marks=("joint_blocks.",),
        diffusers_marks=("transformer_blocks.",),
    )
