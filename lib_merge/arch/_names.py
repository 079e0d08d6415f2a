"""Where files hold the components that several architectures share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from lib_merge.arch._clip_names import open_clip_rules
from lib_merge.arch._vae_names import vae_rules
from lib_merge.core.blocks import Component
from lib_merge.core.naming import (
    CANONICAL,
    ComponentNames,
    How,
    Place,
    PrefixStyle,
    Rule,
    Shares,
    TableStyle,
)

DIFFUSERS = "diffusers"

DENOISER_PREFIXES = (
    "model.diffusion_model.",
    "diffusion_model.",
    "unet.",
    "transformer.",
    "model.",
    "net.",
    "",
)
"""In front of what denoises: single files, folders of diffusers, bare files."""

VAE_PREFIXES = ("first_stage_model.", "vae.", "")


def denoiser(
    rules: Iterable[Rule],
    *,
    marks: tuple[str, ...],
    diffusers_marks: tuple[str, ...],
    prefix: str = "model.diffusion_model.",
    folder: str = "transformer.",
) -> ComponentNames:
    """The places of a UNet or diffusion transformer.

    Args:
        rules: Of its tensors in diffusers naming.
        marks: First words of canonical names, any of which gives the naming away.
        diffusers_marks: The same of diffusers names.
        prefix: Of the canonical names.
        folder: Of a pipeline that holds it.
    """
    style = TableStyle(DIFFUSERS, rules)
    others = [other for other in DENOISER_PREFIXES if other != prefix]
    places = [Place(other, CANONICAL, marks) for other in (prefix, *others)]
    places += [Place(other, style, diffusers_marks) for other in (prefix, *others)]
    return ComponentNames(Component.UNET, prefix, folder, tuple(places))


_CLIP_OLD = PrefixStyle(
    "single file",
    ("transformer.text_model.", "transformer.text_model."),
    ("transformer.text_projection.", "transformer.text_projection."),
    ("transformer.", "transformer.text_model."),
)
"""Old SD1 files (NAI among them) leave `text_model.` out."""
_CLIP_FOLDER = PrefixStyle(
    DIFFUSERS,
    ("text_model.", "transformer.text_model."),
    ("text_projection.", "transformer.text_projection."),
    ("", "transformer.text_model."),
)
"""transformers 5 leaves `text_model.` out again."""
_OLD_MARKS = (
    "transformer.encoder.",
    "transformer.embeddings.",
    "transformer.final_layer_norm.",
)
_FOLDER_MARKS = ("text_model.", "encoder.layers.", "embeddings.token_embedding.")


def clip(component: Component, prefix: str, folder: str) -> ComponentNames:
    """A CLIP that single files hold in the names of transformers.

    Args:
        component: CLIP_L or CLIP_G.
        prefix: Of the canonical names, up to `transformer.`.
        folder: Of a pipeline that holds it: "text_encoder.".
    """
    others = (f"text_encoders.{component.value}.", f"{component.value}.")
    prefixes = tuple(dict.fromkeys((prefix, *others)))
    marks = ("transformer.text_model.", "transformer.text_projection.")
    places = [Place(other, CANONICAL, marks) for other in prefixes]
    places += [Place(other, _CLIP_OLD, _OLD_MARKS) for other in prefixes]
    places.append(Place(folder, _CLIP_FOLDER, _FOLDER_MARKS))
    return ComponentNames(component, prefix, folder, tuple(places))


def open_clip(
    component: Component, prefix: str, folder: str, *, n_layers: int
) -> ComponentNames:
    """A CLIP that single files hold in the names of OpenCLIP, with q, k, v fused.

    Args:
        component: CLIP_G or CLIP_H.
        prefix: Of the canonical names, up to `model.`.
        folder: Of a pipeline that holds it.
        n_layers: So many layers have a name in diffusers.
    """
    style = TableStyle(DIFFUSERS, open_clip_rules(n_layers))
    other = f"text_encoders.{component.value}.transformer."
    places = [
        Place(prefix, CANONICAL, ("model.",)),
        *(Place(words, style, _FOLDER_MARKS) for words in (folder, other)),
    ]
    return ComponentNames(component, prefix, folder, tuple(places))


_INNER = PrefixStyle(DIFFUSERS, ("", "transformer."))
_T5_MARKS = ("encoder.block.", "shared.")


def t5(prefix: str, folder: str) -> ComponentNames:
    """A T5 encoder.

    Args:
        prefix: Of the canonical names, up to `transformer.`.
        folder: Of a pipeline that holds it.
    """
    short = prefix.removeprefix("text_encoders.")
    places = [Place(other, CANONICAL, ("transformer.",)) for other in (prefix, short)]
    places.append(Place(folder, _INNER, _T5_MARKS))
    return ComponentNames(Component.T5, prefix, folder, tuple(places))


def bert(prefix: str, folder: str) -> ComponentNames:
    """A BERT text encoder (Hunyuan-DiT's).

    Args:
        prefix: Of the canonical names, up to `transformer.bert.`.
        folder: Of a pipeline that holds it.
    """
    inner = PrefixStyle(DIFFUSERS, ("", "transformer.bert."))
    marks = ("encoder.layer.", "embeddings.word_embeddings.")
    places = [
        Place(prefix, CANONICAL, ("transformer.",)),
        Place(folder, inner, marks),
    ]
    return ComponentNames(Component.BERT, prefix, folder, tuple(places))


@lru_cache(maxsize=4)
def vae(prefix: str = "first_stage_model.") -> ComponentNames:
    """An image autoencoder, of 4 or of 16 channels.

    Args:
        prefix: Of the canonical names.
    """
    style = TableStyle(DIFFUSERS, vae_rules())
    inner = tuple(f"{side}coder.{word}" for side in ("en", "de") for word in _VAE_OWN)
    other = tuple(f"{side}coder.{word}" for side in ("en", "de") for word in _VAE_HF)
    prefixes = [prefix, *(p for p in VAE_PREFIXES if p != prefix)]
    places = [Place(p, CANONICAL, inner) for p in prefixes]
    places += [Place(p, style, other) for p in prefixes]
    # What both spell alike (a lone conv_in) is read as the single file's.
    places += [Place(p, CANONICAL, ("encoder.", "decoder.")) for p in prefixes]
    return ComponentNames(Component.VAE, prefix, "vae.", tuple(places))


_VAE_OWN = ("down.", "up.", "mid.", "norm_out.")
_VAE_HF = ("down_blocks.", "up_blocks.", "mid_block.", "conv_norm_out.")


def linear(
    key: str,
    *stored: str,
    shares: Shares = (1,),
    how: How = How.PLAIN,
    has_bias: bool = True,
) -> Iterator[Rule]:
    """The rules of a layer's weight and bias.

    Args:
        key: The canonical layer.
        stored: The layers that it is in the other naming, one for each share.
        shares: Their relative sizes.
        how: What else differs.
        has_bias: Whether there is a bias.
    """
    if len(stored) > 1 and len(shares) == 1:
        shares = (1,) * len(stored)
    for end in (".weight", ".bias") if has_bias else (".weight",):
        names = tuple(name + end for name in stored)
        yield Rule(key + end, names, shares, how)
