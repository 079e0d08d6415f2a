"""Optuna's own dashboard on a study's storage, in a process of its own."""

from __future__ import annotations

import atexit
import importlib.util
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress

from lib_merge.autombw.crew import Crew
from lib_merge.autombw.study import Study
from lib_merge.errors import StudyError

_STORAGE = "MERGELAB_STORAGE"
"""Carries the address, which may hold a password, past the list of processes."""

_SERVE = (
    "import os, sys; from optuna_dashboard import run_server; "
    f"run_server(os.environ['{_STORAGE}'], host='127.0.0.1', port=int(sys.argv[1]))"
)

START_S = 30.0
"""How long it may take until it listens."""


def check_installed() -> None:
    """Raise unless the dashboard is installed.

    Raises:
        StudyError: It is not; the message says how to.
    """
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise StudyError(
            "Optuna's dashboard is not installed; run: "
            f'"{sys.executable}" -m pip install optuna-dashboard'
        )


class Dashboard:
    """A dashboard that serves until it is closed, or this program ends.

    Args:
        study: What it shows.
        port: Where it listens on 127.0.0.1; None takes a free one.

    Raises:
        StudyError: It is not installed, or does not start.
    """

    def __init__(self, study: Study, port: int | None = None) -> None:
        check_installed()
        if study.settings.origin:
            # Imported trials were never in a storage; this enters them.
            with Crew(study):
                pass
        self._port = port or _free_port()
        place = study.place
        storage = str(place.journal_path or place.url)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(self._port)],
            env={**os.environ, _STORAGE: storage},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        atexit.register(self.close)
        self._wait_until_it_listens()

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://127.0.0.1:{self._port}/"

    @property
    def is_alive(self) -> bool:
        """Whether it still serves."""
        return self._process.poll() is None

    def wait(self) -> None:
        """Wait until it ends."""
        self._process.wait()

    def close(self) -> None:
        """End it."""
        atexit.unregister(self.close)
        if self.is_alive:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)

    def _wait_until_it_listens(self) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.is_alive:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.1)
        self.close()
        raise StudyError(
            f"Optuna's dashboard did not start on port {self._port}; choose another "
            "one with --port, or run optuna-dashboard by hand to see why."
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
