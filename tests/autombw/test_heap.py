"""Freed memory goes back to the system when the process has grown."""

from __future__ import annotations

import pytest

from lib_merge.autombw import _heap
from lib_merge.autombw._heap import Heap, resident_bytes


def test_heap_is_trimmed_when_the_process_has_grown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At first, and again after one percent; not in between."""
    sizes = iter([100, 100, 100, 101, 103, 102])
    calls: list[int] = []
    monkeypatch.setattr(_heap, "resident_bytes", lambda: next(sizes))
    monkeypatch.setattr(_heap, "_release", lambda: calls.append)
    heap = Heap()
    heap.trim()
    heap.trim()
    heap.trim()
    assert len(calls) == 1
    heap.trim()
    assert len(calls) == 2


def test_freed_memory_is_given_back() -> None:
    """Small pieces freed out of order are what the C library keeps."""
    if _heap._release() is None:
        pytest.skip("This C library has no malloc_trim")
    kept = [bytearray(2000) for _ in range(50_000)]
    before = resident_bytes()
    del kept[1:-1]
    Heap().trim()
    assert resident_bytes() < before - 50_000 * 1000


def test_system_that_does_not_say_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Windows and macOS."""
    monkeypatch.setattr(_heap, "resident_bytes", lambda: 0)
    monkeypatch.setattr(_heap, "_release", lambda: pytest.fail("was asked"))
    Heap().trim()
