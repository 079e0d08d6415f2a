"""Background jobs: their end, their errors, their cancelling."""

from __future__ import annotations

import logging
import threading

import pytest

from lib_merge.core.ports import Progress
from lib_merge.errors import CheckpointError, InputError
from lib_merge.ui.jobs import JobSlot, JobState


def _finish(slot: JobSlot) -> None:
    assert slot.job is not None
    slot.job.wait(20)
    assert not slot.is_busy


def test_a_job_ends_with_its_message() -> None:
    slot = JobSlot()
    slot.start("Count", lambda progress: "counted to three.")
    _finish(slot)
    assert slot.job is not None
    view = slot.job.view()
    assert (view.state, view.message) == (JobState.DONE, "counted to three.")


def test_progress_is_seen_while_it_runs() -> None:
    slot, reached, go_on = JobSlot(), threading.Event(), threading.Event()

    def work(progress: Progress) -> str:
        progress.start("merging", 100)
        progress.advance(25)
        reached.set()
        go_on.wait(20)
        return "done"

    job = slot.start("Merge", work)
    assert reached.wait(20)
    view = job.view()
    go_on.set()
    _finish(slot)
    assert (view.state, view.label, view.fraction) == (
        JobState.RUNNING,
        "merging",
        0.25,
    )


def test_cancelling_stops_it_at_its_next_check() -> None:
    slot, started = JobSlot(), threading.Event()

    def work(progress: Progress) -> str:
        started.set()
        while True:
            progress.check()
            threading.Event().wait(0.01)

    job = slot.start("Merge", work)
    assert started.wait(20)
    slot.cancel()
    _finish(slot)
    assert job.view().state is JobState.STOPPED


def test_a_second_job_is_refused_while_one_runs() -> None:
    slot, go_on = JobSlot(), threading.Event()
    slot.start("First", lambda progress: str(go_on.wait(20)))
    with pytest.raises(InputError, match="'First' is still running"):
        slot.start("Second", lambda progress: "")
    go_on.set()
    _finish(slot)


def test_our_errors_are_shown_as_they_are() -> None:
    slot = JobSlot()

    def work(progress: Progress) -> str:
        raise CheckpointError("a.safetensors is truncated; download it again.")

    job = slot.start("Merge", work)
    _finish(slot)
    assert job.view().state is JobState.FAILED
    assert job.view().message == "a.safetensors is truncated; download it again."


def test_other_errors_are_logged_and_shown_with_their_type(
    caplog: pytest.LogCaptureFixture,
) -> None:
    slot = JobSlot()

    def work(progress: Progress) -> str:
        raise ZeroDivisionError("by zero")

    with caplog.at_level(logging.ERROR):
        job = slot.start("Merge", work)
        _finish(slot)
    assert job.view().message.startswith("ZeroDivisionError: by zero")
    assert "Traceback" in caplog.text
