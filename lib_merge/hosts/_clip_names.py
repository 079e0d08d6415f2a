"""Text-encoder keys of a checkpoint file, as the parameters of a Transformers CLIP.

SD1 files name CLIP-L as Transformers does. SD2 and SDXL files hold OpenCLIP, where q, k
and v lie in one `in_proj` and the text projection multiplies from the other side; the
Forges and diffusers load those into Transformers modules. Pure names and ranges here.

Source: `transformers_convert` and `clip_text_transformers_convert` of ComfyUI, the same
in Forge (huggingface_guess) and reForge (ldm_patched/modules/utils.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One Transformers parameter that (a share of) a file tensor becomes.

    Attributes:
        name: Under the text model with projection, e.g. "text_model.final_layer_norm.
            weight" or "text_projection.weight".
        index: Which share of the file tensor's first axis it is, from 0.
        count: How many equal shares the file tensor has (1, or 3 for q, k, v).
        is_transposed: Whether the parameter is the file tensor's transpose.
    """

    name: str
    index: int = 0
    count: int = 1
    is_transposed: bool = False


@dataclass(frozen=True)
class TextKey:
    """A text-encoder key of a file.

    Attributes:
        encoders: Encoders it may mean, in order of preference: clip_l, clip_g, clip_h.
            Only a loaded model can tell the refiner's "conditioner.embedders.0.model."
            from SD2 Turbo's.
        parts: The parameters that it becomes; empty for a tensor that no Transformers
            text model has (logit_scale, position_ids).
    """

    encoders: tuple[str, ...]
    parts: tuple[Part, ...]


_HF_PREFIXES: dict[str, tuple[str, ...]] = {
    "cond_stage_model.transformer.": ("clip_l",),
    "conditioner.embedders.0.transformer.": ("clip_l",),
}
_OPENCLIP_PREFIXES: dict[str, tuple[str, ...]] = {
    "cond_stage_model.model.": ("clip_h",),
    "conditioner.embedders.0.model.": ("clip_h", "clip_g"),
    "conditioner.embedders.1.model.": ("clip_g",),
}
_TOP = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_RESBLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)$")
_OLD_CLIP_L = ("embeddings.", "encoder.", "final_layer_norm.")


def canonical_key(key: str) -> str:
    """A file key as current files spell it.

    Early SD1 files leave out `text_model.`; every host puts it back while loading.
    """
    prefix = "cond_stage_model.transformer."
    if key.startswith(prefix) and key[len(prefix) :].startswith(_OLD_CLIP_L):
        return f"{prefix}text_model.{key[len(prefix) :]}"
    return key


def text_key(key: str) -> TextKey | None:
    """What a file key is in a Transformers text encoder; None for any other key."""
    key = canonical_key(key)
    for prefix, encoders in _HF_PREFIXES.items():
        if key.startswith(prefix):
            rest = key[len(prefix) :]
            is_parameter = not rest.endswith("position_ids")
            return TextKey(encoders, (Part(rest),) if is_parameter else ())
    for prefix, encoders in _OPENCLIP_PREFIXES.items():
        if key.startswith(prefix):
            return TextKey(encoders, openclip_parts(key[len(prefix) :]))
    return None


UNET = "model.diffusion_model."
VAE = "first_stage_model."
_PICTURE_PREFIXES = (UNET, VAE, "cond_stage_model.", "conditioner.embedders.")
_UNUSED_ENDINGS = ("position_ids", "logit_scale", "attn_mask")


def is_picture_key(key: str) -> bool:
    """Whether hosts use this file key's values for a picture.

    Not so: schedule constants, EMA shadows, the VAE's training loss, the logit scale,
    and the text projection of CLIP-L (no SD model uses its pooled output).
    """
    if not key.startswith(_PICTURE_PREFIXES) or key.endswith(_UNUSED_ENDINGS):
        return False
    if key.startswith(f"{VAE}loss.") or ".visual." in key:
        return False
    text = text_key(key)
    if text is None:
        return key.startswith((UNET, VAE))
    is_projection = any(p.name == "text_projection.weight" for p in text.parts)
    return bool(text.parts) and not (is_projection and text.encoders == ("clip_l",))


def openclip_parts(name: str) -> tuple[Part, ...]:
    """The Transformers parameters that an OpenCLIP text tensor becomes.

    Args:
        name: Relative to the OpenCLIP model, e.g.
            "transformer.resblocks.0.attn.in_proj_weight".

    Returns:
        In the order of the file tensor's first axis; empty if there are none.
    """
    if name in _TOP:
        return (Part(_TOP[name]),)
    if name == "text_projection":
        return (Part("text_projection.weight", is_transposed=True),)
    if name == "text_projection.weight":
        return (Part("text_projection.weight"),)
    found = _RESBLOCK.match(name)
    if found is None:
        return ()
    layer, what, leaf = found.groups()
    base = f"text_model.encoder.layers.{layer}"
    if what == "attn.in_proj":
        return tuple(
            Part(f"{base}.self_attn.{letter}_proj.{leaf}", index, 3)
            for index, letter in enumerate("qkv")
        )
    if what in _LAYER:
        return (Part(f"{base}.{_LAYER[what]}.{leaf}"),)
    return ()
