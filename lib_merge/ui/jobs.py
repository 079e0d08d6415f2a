"""Background jobs: the work runs in a thread, any page may look at it or stop it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from lib_merge.errors import BusyError, Cancelled, MergeError

if TYPE_CHECKING:
    from lib_merge.engine.progress import JobProgress

_log = logging.getLogger(__name__)

N_REMEMBERED = 20
"""Jobs of a slot that can still be asked about, the running one included."""


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
class Outcome:
    """What a job came to.

    Attributes:
        message: The sentence to show.
        facts: The same for programs: plain JSON values by name.
    """

    message: str
    facts: Mapping[str, Any] = field(default_factory=dict)


Work = Callable[["JobProgress"], "str | Outcome"]
"""A job's work: takes the progress port, gives what to show at the end."""


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
        number: Its place among the jobs of its slot, from 1 on.
        facts: What it came to, for programs; empty until it is done.
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
    number: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


class Job:
    """One piece of work in its own thread.

    Args:
        title: What it does.
        work: Takes the progress port, returns what to show at the end.
        number: Its place among the jobs of its slot.
    """

    def __init__(self, title: str, work: Work, number: int = 0) -> None:
        from lib_merge.engine.progress import JobProgress

        self.title = title
        self.number = number
        self.progress = JobProgress()
        self._work = work
        self._state = JobState.RUNNING
        self._outcome = Outcome("")
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
            message=self._outcome.message,
            label=now.label,
            fraction=now.fraction,
            rate=now.rate,
            unit=getattr(now, "unit", "B"),
            eta_s=now.eta_s,
            seconds=(self._ended or time.monotonic()) - self._started,
            number=self.number,
            facts=self._outcome.facts,
        )

    def _run(self) -> None:
        message: str | Outcome
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
        self._outcome = Outcome(message) if isinstance(message, str) else message
        self._state = state


def describe_bug(fault: BaseException) -> str:
    """One sentence for an exception that MergeLab did not raise on purpose."""
    text = str(fault).strip() or "no message"
    return (
        f"{type(fault).__name__}: {text} - this is unexpected; the whole traceback is "
        "in the console's log."
    )


class JobSlot:
    """A place for one job at a time; the last ones stay to be looked at."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._recent: deque[Job] = deque(maxlen=N_REMEMBERED)
        self.n_started = 0

    @property
    def job(self) -> Job | None:
        """The running or the last job."""
        return self._job

    @property
    def recent(self) -> tuple[Job, ...]:
        """The last jobs, the newest first."""
        return tuple(reversed(self._recent))

    @property
    def is_busy(self) -> bool:
        """Whether a job is at work."""
        return self._job is not None and self._job.is_active

    def start(self, title: str, work: Work) -> Job:
        """Start a job.

        Raises:
            BusyError: Another one is at work.
        """
        with self._lock:
            if self._job is not None and self._job.is_active:
                raise BusyError(
                    f"'{self._job.title}' is still running; wait for it or cancel it."
                )
            self.n_started += 1
            self._job = Job(title, work, self.n_started)
            self._recent.append(self._job)
            return self._job

    def cancel(self) -> None:
        """Ask the running job, if any, to stop."""
        if self._job is not None:
            self._job.cancel()
