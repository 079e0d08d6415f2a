"""The heap: freed memory goes back to the system, so that a night's run stays flat."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

GROWTH = 1.01
"""Resident memory may grow by this factor before it is looked after."""


class Heap:
    """Gives freed memory back, where the C library keeps it for itself.

    What a sampler's fit or a renderer's peak took stays with glibc's heap otherwise.
    """

    def __init__(self) -> None:
        self._floor = 0

    def trim(self) -> None:
        """Give back what is free, if this process has grown since the last time."""
        if resident_bytes() <= GROWTH * self._floor:
            return
        release = _release()
        if release is not None:
            release(0)
        self._floor = resident_bytes()


def resident_bytes() -> int:
    """Memory of this process that is in RAM; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _release() -> ctypes._NamedFuncPointer | None:
    """glibc's `malloc_trim`; other C libraries have none."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
