"""Architectures: one file each, found by discovery; detection reads keys and shapes."""

from __future__ import annotations

import sys
from functools import lru_cache

from lib_merge.core.blocks import Architecture, KeyInfos
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
    for architecture in _detection_order(architectures()):
        if architecture.detect(infos):
            return architecture
    known = ", ".join(a.label for a in architectures())
    raise CheckpointError(
        f"{where} is of no known architecture ({len(infos)} keys, the first: "
        f"{', '.join(list(infos)[:3]) or 'none'}). Known: {known}. "
        "Choose a whole checkpoint in single-file layout."
    )


def _detection_order(registry: Registry[Architecture]) -> list[Architecture]:
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
