"""Scorers: one file each, found by discovery; importing one loads no model."""

from __future__ import annotations

import sys
from functools import lru_cache

from lib_merge.autombw.scorers._caches import use_cache
from lib_merge.core.ports import Scorer
from lib_merge.core.registry import Registry, discover

__all__ = ["scorers", "use_cache"]


@lru_cache(maxsize=1)
def scorers() -> Registry[Scorer]:
    """Every scorer; each public file of this package exports one as SCORER."""
    registry: Registry[Scorer] = Registry("scorer")
    for module in discover(sys.modules[__name__]):
        registry.add(module.SCORER)
    return registry
