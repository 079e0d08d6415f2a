"""Lock first, then the main thread; results and faults come back whole."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lib_merge.errors import HostError
from lib_merge.hosts._gate import Gate
from tests.support.fake_forges import MainThread
from tests.support.fake_webui import FifoLock


def in_worker(job: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(job).result()


def test_job_runs_on_the_main_thread_with_the_lock_held() -> None:
    lock, main = FifoLock(), MainThread()
    gate = Gate(lock, main)

    def job() -> tuple[int | None, bool]:
        return threading.get_ident(), lock.owner is not None

    assert in_worker(lambda: gate.run(job)) == (main.thread.ident, True)
    assert lock.owner is None


def test_job_of_the_main_thread_itself_is_not_sent_there() -> None:
    gate = Gate(FifoLock(), MainThread())
    assert gate.run(threading.get_ident) == threading.get_ident()


def test_none_is_a_result_like_any_other() -> None:
    gate = Gate(FifoLock(), MainThread())
    assert in_worker(lambda: gate.run(lambda: None)) is None


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, SystemExit])
def test_faults_come_back_and_the_main_thread_lives_on(
    fault: type[BaseException],
) -> None:
    main = MainThread()
    gate = Gate(FifoLock(), main)

    def job() -> None:
        raise fault("broken")

    def attempt() -> None:
        with pytest.raises(fault, match="broken"):
            gate.run(job)

    in_worker(attempt)
    assert main.last_exception is None
    assert in_worker(lambda: gate.run(lambda: 5)) == 5


def test_dropped_job_is_told() -> None:
    class Deaf:
        def run_and_wait_result(self, job: Callable[[], Any]) -> None:
            return None

    gate = Gate(FifoLock(), Deaf())
    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(HostError, match="dropped the job"),
    ):
        pool.submit(gate.run, lambda: 1).result()


def test_holding_twice_is_refused_and_the_first_hold_stays() -> None:
    lock = FifoLock()
    gate = Gate(lock)
    with gate.hold():
        with pytest.raises(HostError, match="this very thread"), gate.hold():
            pass
        assert lock.owner == threading.get_ident()
    with gate.hold():
        pass
