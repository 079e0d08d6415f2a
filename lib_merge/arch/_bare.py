"""Files that hold one text encoder or VAE alone, without any prefix."""

from __future__ import annotations

from collections.abc import Iterator

from lib_merge.core.blocks import Architecture, Component
from lib_merge.core.naming import CANONICAL, Binding, ComponentNames, Place, PrefixStyle
from lib_merge.core.recognition import Names, binding_of
from lib_merge.core.registry import Registry

_Kind = tuple[str, Component]

_WIDTHS: dict[int, _Kind] = {
    768: ("sd1", Component.CLIP_L),
    1024: ("sd2", Component.CLIP_H),
    1280: ("sdxl", Component.CLIP_G),
}
"""Width of a CLIP -> the architecture that it is taken for."""
_VAE_CHANNELS: dict[int, _Kind] = {
    4: ("sd1", Component.VAE),
    16: ("flux", Component.VAE),
}
"""Channels of a VAE -> one of the architectures that have it; their names are alike."""

_TOKENS = ("embeddings.token_embedding.weight", "token_embedding.weight")
_CLIP_LEADS = ("transformer.text_model.", "text_model.", "transformer.", "model.", "")
_OPEN_CLIP = Place("", PrefixStyle(CANONICAL.name, ("", "model.")), ("transformer.",))


def bare_bindings(
    names: Names, registry: Registry[Architecture]
) -> Iterator[tuple[Architecture, tuple[Binding, ...]]]:
    """The architecture that a lone component is taken for, and how it is named.

    Args:
        names: The file's tensors.
        registry: Every architecture.
    """
    for id_, component in _kinds(names):
        architecture = registry.get(id_)
        own = next(n for n in architecture.names if n.component is component)
        for place in _places(own):
            if names.starts_any(place.marks, place.prefix):
                yield architecture, (binding_of(own, place),)
                return


def _places(component: ComponentNames) -> Iterator[Place]:
    """Its places, and the same without their prefixes."""
    yield from component.places
    yield from (Place("", place.style, place.marks) for place in component.places)
    if component.canonical.marks == ("model.",):
        yield _OPEN_CLIP


def _kinds(names: Names) -> Iterator[_Kind]:
    for prefix in ("", "first_stage_model.", "vae."):
        first = names.get(f"{prefix}decoder.conv_in.weight")
        if first is not None and len(first.shape) == 4:
            yield _VAE_CHANNELS.get(first.shape[1], _VAE_CHANNELS[4])
    for lead in _CLIP_LEADS:
        for token in _TOKENS:
            table = names.get(lead + token)
            if table is not None and len(table.shape) == 2:
                yield _WIDTHS.get(table.shape[1], _WIDTHS[768])
    if names.starts_any(("encoder.block.", "transformer.encoder.block.")):
        yield "flux", Component.T5
