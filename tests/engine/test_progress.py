"""Progress: fractions, rates, estimates and cancelling."""

from __future__ import annotations

import threading

import pytest

from lib_merge.engine import progress as module
from lib_merge.engine.progress import JobProgress
from lib_merge.errors import Cancelled


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""

    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    found = Clock()
    monkeypatch.setattr(module, "time", found)
    return found


def test_snapshot_gives_rate_and_estimate_when_half_is_done(clock):
    progress = JobProgress()
    progress.start("Merging", 200)
    clock.now += 4
    progress.advance(100)
    snapshot = progress.snapshot()
    assert snapshot.fraction == 0.5
    assert snapshot.rate == 25
    assert snapshot.eta_s == 4
    assert snapshot.elapsed_s == 4
    assert (snapshot.label, snapshot.unit) == ("Merging", "B")


def test_rate_follows_the_last_seconds_when_a_start_was_slow(clock):
    progress = JobProgress()
    progress.start("Merging", 10_000)
    clock.now += 100
    progress.advance(1)
    for _ in range(30):
        clock.now += 1
        progress.advance(100)
    rate = progress.snapshot().rate
    assert rate is not None
    assert rate > 90


def test_snapshot_is_complete_when_there_is_nothing_to_do():
    progress = JobProgress()
    progress.start("Nothing", 0)
    assert progress.snapshot().fraction == 1.0
    assert progress.snapshot().eta_s is None


def test_callback_is_called_seldom_but_at_the_end(clock):
    seen = []
    progress = JobProgress(seen.append, min_interval_s=1.0)
    progress.start("Merging", 100)
    for _ in range(100):
        clock.now += 0.05
        progress.advance(1)
    assert len(seen) < 10
    assert seen[-1].fraction == 1.0


def test_advance_loses_nothing_when_many_threads_advance():
    progress = JobProgress()
    progress.start("Merging", 40_000)
    threads = [
        threading.Thread(target=lambda: [progress.advance(1) for _ in range(10_000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert progress.snapshot().done == 40_000


def test_check_raises_only_when_cancelled():
    progress = JobProgress()
    progress.start("Merging", 1)
    progress.check()
    progress.cancel()
    assert progress.is_cancelled
    with pytest.raises(Cancelled, match="Merging: stopped as asked"):
        progress.check()
