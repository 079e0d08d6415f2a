"""Architectures: one file each, found by discovery; detection reads keys and shapes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import lru_cache

from lib_merge.arch._bare import bare_bindings
from lib_merge.core.blocks import Architecture, KeyInfos
from lib_merge.core.layouts import Layout
from lib_merge.core.naming import Binding
from lib_merge.core.recognition import Names, View, bindings_of
from lib_merge.core.registry import Registry, discover
from lib_merge.errors import CheckpointError, DeclarationError


@lru_cache(maxsize=1)
def architectures() -> Registry[Architecture]:
    """Every architecture; each file of this package exports one as ARCHITECTURE."""
    registry: Registry[Architecture] = Registry("architecture")
    for module in discover(sys.modules[__name__]):
        registry.add(module.ARCHITECTURE)
    return registry


def detect_architecture(infos: KeyInfos, *, where: str) -> Architecture:
    """The architecture of a checkpoint.

    Args:
        infos: Every key with its declared shape and dtype.
        where: The file, for the message.

    Raises:
        CheckpointError: None of them recognises it.
    """
    return detect_layout(infos, where=where).architecture


def detect_layout(infos: KeyInfos, *, where: str) -> Layout:
    """What a checkpoint is: its architecture, its kind, and how it names its tensors.

    Args:
        infos: Every key with its declared shape and dtype.
        where: The file, for the message.

    Raises:
        CheckpointError: No architecture recognises it.
    """
    names = Names(infos)
    for architecture, bindings in _recognised(names):
        layout = Layout(architecture, bindings, infos)
        layout.kind = architecture.kind_of(layout.canonical)
        return layout
    known = ", ".join(a.label for a in architectures())
    raise CheckpointError(
        f"{where} is of no known architecture ({len(infos)} keys, the first: "
        f"{', '.join(list(infos)[:3]) or 'none'}). Known: {known}. "
        "Choose a whole checkpoint, or a UNet, text encoder or VAE of one of these."
    )


def claims(infos: KeyInfos) -> tuple[str, ...]:
    """Ids of every architecture that recognises a checkpoint; one where all is well."""
    return tuple(a.id for a, _ in _recognised(Names(infos)))


def _recognised(names: Names) -> Iterator[tuple[Architecture, tuple[Binding, ...]]]:
    """Architectures that recognise a file: what denoises tells, else the rest does."""
    order = _detection_order()
    is_found = False
    for architecture in order:
        for binding in bindings_of(names, architecture.names[0]):
            if architecture.is_mine(View(names, binding)):
                yield architecture, (*_others(names, architecture, binding), binding)
                is_found = True
                break
    if is_found:
        return
    for architecture in order:
        if architecture.is_rest(names):
            yield architecture, _others(names, architecture, None)
            is_found = True
    if not is_found:
        yield from bare_bindings(names, architectures())


def _others(
    names: Names, architecture: Architecture, first: Binding | None
) -> tuple[Binding, ...]:
    """The other components of a file, long prefixes first."""
    found = []
    taken = "" if first is None else first.place.prefix
    for component in architecture.names[1:]:
        for binding in bindings_of(names, component):
            if binding.place.prefix not in ("", taken):
                found.append(binding)
                break
    return tuple(sorted(found, key=lambda b: -len(b.place.prefix)))


@lru_cache(maxsize=1)
def _detection_order() -> tuple[Architecture, ...]:
    return tuple(detection_order(architectures()))


def detection_order(registry: Registry[Architecture]) -> list[Architecture]:
    """Architectures so that each comes ahead of those it names in `before`."""
    order: list[Architecture] = []
    waiting = list(registry)
    while waiting:
        ready = [a for a in waiting if not any(a.id in w.before for w in waiting)]
        if not ready:
            cycle = ", ".join(a.id for a in waiting)
            raise DeclarationError(f"Detection order has a cycle among: {cycle}.")
        order.append(ready[0])
        waiting.remove(ready[0])
    return order
