"""Files that hold one text encoder or VAE alone, without any prefix."""

from __future__ import annotations

from collections.abc import Iterator

from lib_merge.core.blocks import Architecture
from lib_merge.core.naming import Binding, ComponentNames, Place
from lib_merge.core.recognition import Names, binding_of
from lib_merge.core.registry import Registry

_WIDTHS = {768: "sd1", 1024: "sd2", 1280: "sdxl"}
"""Width of a CLIP -> the architecture that it is taken for."""
_VAE_CHANNELS = {4: "sd1", 16: "flux"}
"""Channels of a VAE -> one of the architectures that have it; their names are alike."""

_TOKENS = ("embeddings.token_embedding.weight", "token_embedding.weight")
_CLIP_LEADS = ("transformer.text_model.", "text_model.", "transformer.", "model.", "")


def bare_bindings(
    names: Names, registry: Registry[Architecture]
) -> Iterator[tuple[Architecture, tuple[Binding, ...]]]:
    """The architecture that a lone component is taken for, and how it is named.

    Args:
        names: The file's tensors.
        registry: Every architecture.
    """
    for id_ in _ids(names):
        architecture = registry.get(id_)
        for component in architecture.names[1:]:
            for place in _places(component):
                if names.starts_any(place.marks, place.prefix):
                    binding = binding_of(component, place)
                    yield architecture, (binding,)
                    return


def _places(component: ComponentNames) -> Iterator[Place]:
    """Its places, and the same without their prefixes."""
    yield from component.places
    yield from (Place("", place.style, place.marks) for place in component.places)


def _ids(names: Names) -> Iterator[str]:
    for prefix in ("", "first_stage_model.", "vae."):
        first = names.get(f"{prefix}decoder.conv_in.weight")
        if first is not None and len(first.shape) == 4:
            yield _VAE_CHANNELS.get(first.shape[1], "sd1")
    for lead in _CLIP_LEADS:
        for token in _TOKENS:
            table = names.get(lead + token)
            if table is not None and len(table.shape) == 2:
                yield _WIDTHS.get(table.shape[1], "sd1")
    if names.starts_any(("encoder.block.", "transformer.encoder.block.")):
        yield "flux"
