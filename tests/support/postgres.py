"""A PostgreSQL server for one test module, where Debian's package is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = "postgres"
"""PostgreSQL refuses to run as root; Debian's package makes this user."""


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if on_path is not None:
        found.append(Path(on_path))
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    return found[-1].parent


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres_server() -> Iterator[str]:
    """Start a server on a free port; yields its URL.

    Skips the test where PostgreSQL, a driver or an unprivileged user is missing.
    """
    if os.name == "nt":
        pytest.skip("The server is started as on Debian")
    pytest.importorskip("psycopg2", reason="needs psycopg2-binary")
    binaries = _binaries()
    folder = Path(tempfile.mkdtemp(prefix="mergelab-pg-"))
    user = _unprivileged(folder)
    port = _free_port()
    data = folder / "data"
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"

    def call(*words: str) -> None:
        subprocess.run(
            words,
            check=True,
            capture_output=True,
            cwd=folder,
            user=user,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )

    call(str(binaries / "initdb"), "-D", str(data), "-U", "tester", "-A", "trust")
    control = str(binaries / "pg_ctl")
    log = str(folder / "log")
    call(control, "-D", str(data), "-o", options, "-l", log, "-w", "start")
    try:
        yield f"postgresql+psycopg2://tester@127.0.0.1:{port}/postgres"
    finally:
        call(control, "-D", str(data), "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged(folder: Path) -> int | None:
    """The user to run as, made the folder's owner; None for ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        user = pwd.getpwnam(NOBODY).pw_uid
    except KeyError:
        pytest.skip(f"PostgreSQL does not run as root, and there is no user {NOBODY}")
    os.chown(folder, user, -1)
    return user
