"""Merge methods: one file each, found by discovery; a signature declares each."""

from __future__ import annotations

import sys
from functools import lru_cache

from lib_merge.core.method import MergeMethod
from lib_merge.core.registry import Registry, discover
from lib_merge.errors import DeclarationError


@lru_cache(maxsize=1)
def methods() -> Registry[MergeMethod]:
    """Every merge method; `methods/<id>.py` declares the function `<id>`."""
    registry: Registry[MergeMethod] = Registry("merge method")
    for module in discover(sys.modules[__name__]):
        name = module.__name__.rpartition(".")[2]
        method = getattr(module, name, None)
        if not isinstance(method, MergeMethod):
            raise DeclarationError(
                f"{module.__name__} declares no merge method named '{name}'; "
                "name the decorated function like its file."
            )
        registry.add(method)
    return registry
