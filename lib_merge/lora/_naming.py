"""Module names of an architecture, from how files name its tensors.

What trainers train are the modules of diffusers and transformers, or of the single
file; the architectures know both. Kohya's trainer flattens the names of diffusers for
SD1 and SD2, and those of the single file for everything later.
"""

from __future__ import annotations

from collections.abc import Iterator

from lib_merge.core.blocks import Architecture, Component
from lib_merge.core.naming import ComponentNames, How, Rule, TableStyle
from lib_merge.lora.targets import TE1, TE2, TE3, UNET, Name, Rows, Target

_OF_DIFFUSERS = ("sd1", "sd2")
"""Architectures whose UNet kohya's trainer names as diffusers does."""

_FAMILIES = {"text_encoder.": TE1, "text_encoder_2.": TE2, "text_encoder_3.": TE3}
_N_LAYERS = {Component.CLIP_L: 12, Component.CLIP_G: 32}
_CLIP_PARTS = (
    *(f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")),
    *("mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2"),
)
_EMBEDDINGS = ("embeddings.token_embedding", "embeddings.position_embedding")
_LEAD = "text_model."


def names_of(architecture: Architecture) -> tuple[list[Name], dict[str, str]]:
    """Every name of every module, and how kohya's trainer begins them, by family."""
    found: list[Name] = []
    prefixes = {UNET: "lora_unet"}
    encoders = [n for n in architecture.names if n.component.is_text_encoder]
    for names in architecture.names:
        if names.component is Component.UNET:
            found += _denoiser(names, is_single=architecture.id not in _OF_DIFFUSERS)
        elif names.component.is_text_encoder and names.folder in _FAMILIES:
            family = _FAMILIES[names.folder]
            is_only = family == TE1 and len(encoders) == 1
            prefixes[family] = "lora_te" if is_only else f"lora_{family}"
            found += _encoder(names, family)
    return found, prefixes


def _table(names: ComponentNames) -> TableStyle | None:
    styles = (place.style for place in names.places)
    return next((style for style in styles if isinstance(style, TableStyle)), None)


def _denoiser(names: ComponentNames, *, is_single: bool) -> Iterator[Name]:
    table = _table(names)
    if table is None:
        return
    for rule, bias in _layers(table):
        whole = Target(names.prefix + rule.key, names.prefix + bias if bias else "")
        if rule.key.endswith(".weight"):
            yield Name(UNET, _module(rule.key), whole, is_own=is_single)
        for stored, target in _parts(rule, whole):
            is_own = not is_single and rule.key.endswith(".weight")
            yield Name(UNET, _module(stored), target, is_own=is_own)


def _layers(table: TableStyle) -> Iterator[tuple[Rule, str]]:
    """Rules of weights, each with its bias's canonical key or ""."""
    keys = {rule.key for rule in table.rules}
    for rule in table.rules:
        if rule.stored and rule.stored[0].endswith(".weight"):
            bias = rule.key.removesuffix("weight") + "bias"
            yield rule, bias if rule.key.endswith("weight") and bias in keys else ""


def _parts(rule: Rule, whole: Target) -> Iterator[tuple[str, Target]]:
    """The stored names of a tensor, and what each of them is of it."""
    first, n_shares = 0, sum(rule.shares)
    for stored, share in zip(rule.stored, rule.shares, strict=True):
        rows = Rows(first, first + share, n_shares) if n_shares > share else Rows()
        first += share
        yield (
            stored,
            Target(
                whole.weight,
                whole.bias,
                rows,
                is_transposed=rule.how is How.TRANSPOSED,
                is_rotated=rule.how is How.SWAPPED,
            ),
        )


def _module(key: str) -> str:
    return key.removesuffix(".weight")


def _encoder(names: ComponentNames, family: str) -> Iterator[Name]:
    table = _table(names)
    if table is not None:
        for rule, bias in _layers(table):
            key = names.prefix + rule.key
            whole = Target(key, names.prefix + bias if bias else "")
            for stored, target in _parts(rule, whole):
                is_own = stored.startswith((_LEAD, "text_projection"))
                yield Name(family, _module(stored), target, is_own=is_own)
    elif names.component in _N_LAYERS:
        yield from _clip(names, family)


def _clip(names: ComponentNames, family: str) -> Iterator[Name]:
    """An encoder that single files hold in the names of transformers."""
    stored = f"{names.prefix}transformer.{_LEAD}"
    n_layers = _N_LAYERS[names.component]
    modules = [f"encoder.layers.{n}.{p}" for n in range(n_layers) for p in _CLIP_PARTS]
    for module in (*modules, "final_layer_norm"):
        target = Target(f"{stored}{module}.weight", f"{stored}{module}.bias")
        yield Name(family, _LEAD + module, target, is_own=True)
        yield Name(family, module, target)
    for module in _EMBEDDINGS:
        target = Target(f"{stored}{module}.weight")
        yield Name(family, _LEAD + module, target, is_own=True)
        yield Name(family, module, target)
    if names.component is Component.CLIP_G:
        key = f"{names.prefix}transformer.text_projection.weight"
        yield Name(family, "text_projection", Target(key), is_own=True)
