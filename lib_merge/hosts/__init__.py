"""Hosts: one file each; a WebUI is recognised by what it offers, never by its name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from lib_merge.core.ports import Host
from lib_merge.core.registry import Registry, discover


@dataclass(frozen=True)
class HostKind:
    """A WebUI that MergeLab can live in.

    Attributes:
        id: Permanent id: a1111, forge, reforge.
        detect: The host around us, or None when we are not inside this one. It looks
            at modules that are already loaded and imports none of the host's own.
    """

    id: str
    detect: Callable[[], Host | None]


@lru_cache(maxsize=1)
def hosts() -> Registry[HostKind]:
    """Every WebUI host; a file of this package that is one exports it as KIND.

    The standalone host has no KIND: it is not found around us but built with folders.
    """
    registry: Registry[HostKind] = Registry("host")
    for module in discover(sys.modules[__name__]):
        kind = getattr(module, "KIND", None)
        if isinstance(kind, HostKind):
            registry.add(kind)
    return registry


def detect_host() -> Host | None:
    """The WebUI that this process is, or None outside any WebUI.

    Their features exclude each other, so the order of asking does not matter.
    """
    for kind in hosts():
        host = kind.detect()
        if host is not None:
            return host
    return None
