"""Background jobs: the work runs in a thread, any page may look at it or stop it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from lib_merge.errors import Cancelled, InputError, MergeError

if TYPE_CHECKING:
    from lib_merge.engine.progress import JobProgress

_log = logging.getLogger(__name__)


class JobState(Enum):
    """Where a job stands."""

    RUNNING = "running"
    STOPPING = "stopping"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_active(self) -> bool:
        """Whether its thread is still at work."""
        return self in (JobState.RUNNING, JobState.STOPPING)


@dataclass(frozen=True)
class JobView:
    """What a page shows of a job.

    Attributes:
        title: What it does, as a heading ("Merge and save").
        state: Where it stands.
        message: Its result or its error, in one or more sentences; "" while it runs.
        label: The phase it is in.
        fraction: Of the phase, 0 to 1, or None while that is unknown.
        rate: Units a second in this phase, or None.
        unit: "B" for bytes, else a noun in the plural.
        eta_s: Seconds left, or None.
        seconds: Since it began, or in all.
    """

    title: str
    state: JobState
    message: str
    label: str = ""
    fraction: float | None = None
    rate: float | None = None
    unit: str = "B"
    eta_s: float | None = None
    seconds: float = 0.0


class Job:
    """One piece of work in its own thread.

    Args:
        title: What it does.
        work: Takes the progress port, returns the sentence to show at the end.
    """

    def __init__(self, title: str, work: Callable[[JobProgress], str]) -> None:
        from lib_merge.engine.progress import JobProgress

        self.title = title
        self.progress = JobProgress()
        self._work = work
        self._state = JobState.RUNNING
        self._message = ""
        self._started = time.monotonic()
        self._ended: float | None = None
        self._thread = threading.Thread(
            target=self._run, name=f"mergelab: {title}", daemon=True
        )
        self._thread.start()

    def cancel(self) -> None:
        """Ask it to stop; nothing partial is left behind."""
        if self._state is JobState.RUNNING:
            self._state = JobState.STOPPING
            self.progress.cancel()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for its end."""
        self._thread.join(timeout_s)

    @property
    def is_active(self) -> bool:
        """Whether it is still at work."""
        return self._state.is_active

    def view(self) -> JobView:
        """What a page shows of it now."""
        now = self.progress.snapshot()
        return JobView(
            title=self.title,
            state=self._state,
            message=self._message,
            label=now.label,
            fraction=now.fraction,
            rate=now.rate,
            unit=getattr(now, "unit", "B"),
            eta_s=now.eta_s,
            seconds=(self._ended or time.monotonic()) - self._started,
        )

    def _run(self) -> None:
        try:
            message, state = self._work(self.progress), JobState.DONE
        except Cancelled:
            message, state = "Stopped. Nothing partial was left.", JobState.STOPPED
        except MergeError as fault:
            message, state = str(fault), JobState.FAILED
        except Exception as fault:
            # The edge of a thread: nobody above could tell the user.
            _log.exception("%s failed", self.title)
            message, state = describe_bug(fault), JobState.FAILED
        self._ended = time.monotonic()
        self._message, self._state = message, state


def describe_bug(fault: BaseException) -> str:
    """One sentence for an exception that MergeLab did not raise on purpose."""
    text = str(fault).strip() or "no message"
    return (
        f"{type(fault).__name__}: {text} - this is unexpected; the whole traceback is "
        "in the console's log."
    )


class JobSlot:
    """A place for one job at a time; the last one stays to be looked at."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._job: Job | None = None
        self.n_started = 0

    @property
    def job(self) -> Job | None:
        """The running or the last job."""
        return self._job

    @property
    def is_busy(self) -> bool:
        """Whether a job is at work."""
        return self._job is not None and self._job.is_active

    def start(self, title: str, work: Callable[[JobProgress], str]) -> Job:
        """Start a job.

        Raises:
            InputError: Another one is at work.
        """
        with self._lock:
            if self._job is not None and self._job.is_active:
                raise InputError(
                    f"'{self._job.title}' is still running; wait for it or cancel it."
                )
            self.n_started += 1
            self._job = Job(title, work)
            return self._job

    def cancel(self) -> None:
        """Ask the running job, if any, to stop."""
        if self._job is not None:
            self._job.cancel()
