"""Sets MergeLab up: `install.py demo|test|app`, or, run by a WebUI, no argument.

Standard library only. The standalone commands keep everything in `.venv` beside this
file; inside a WebUI only what is missing is installed and nothing is changed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
LOCK = ROOT / "requirements.lock"
VENV = ROOT / ".venv"
STAMP = VENV / "mergelab-installed.json"
OLDEST = (3, 11)
WEBUI_NEEDS = {"optuna": "optuna>=4.2,<6", "cmaes": "cmaes"}

GROUPS = {
    "demo": ("torch", "run"),
    "app": ("torch", "run", "app"),
    "test": ("torch", "run", "app", "test"),
}


class SetupError(Exception):
    """Setting up cannot go on; the message says what to do."""


def main(argv: Sequence[str]) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name.

    Returns:
        The exit status.
    """
    try:
        if not argv and _is_inside_webui():
            return install_into_webui()
        options, rest = _parse(argv)
        return _COMMANDS[options.command](rest)
    except SetupError as fault:
        print(f"MergeLab: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("MergeLab: stopped; run the same command to go on.", file=sys.stderr)
        return 130


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="install.py",
        description="Set MergeLab up and run it. Further arguments go to the command.",
    )
    parser.add_argument(
        "command",
        choices=sorted(_COMMANDS),
        help="demo: an AutoMBW study on the demo models; test: lint, types and all "
        "tests; app: the standalone tab on 127.0.0.1",
    )
    return parser.parse_known_args(argv)


# The standalone environment


def ensure_venv(groups: Sequence[str]) -> Path:
    """Bring `.venv` up to the lock file, in seconds when it is there already.

    Args:
        groups: Groups of the lock file that the command needs.

    Returns:
        The environment's Python.

    Raises:
        SetupError: Python is too old, or pip failed.
    """
    if sys.version_info < OLDEST:
        raise SetupError(
            f"Python {sys.version.split()[0]} is too old; run this with Python "
            f"{OLDEST[0]}.{OLDEST[1]} or newer."
        )
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    lock = read_lock(LOCK.read_text(encoding="utf-8"))
    done = _read_stamp(python)
    missing = [g for g in groups if done.get(g) != _digest(lock[g])]
    if not missing:
        return python
    if not done:
        print(f"Creating {VENV.relative_to(ROOT)} ...", flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(VENV)], "venv")
    for group in missing:
        _install_group(python, group, lock[group])
        done[group] = _digest(lock[group])
        _write_stamp(done)
    return python


def read_lock(text: str) -> dict[str, list[str]]:
    """Split the lock file into its groups, each opened by a line `# group: NAME`."""
    groups: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in text.splitlines():
        header = re.match(r"# group: (\w+)", line)
        if header:
            current = groups.setdefault(header.group(1), [])
        elif current is not None and line.strip() and not line.startswith("#"):
            current.append(line.strip())
    return groups


def _install_group(python: Path, group: str, lines: list[str]) -> None:
    print(f"Installing {len(lines)} packages ({group}) ...", flush=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    if group != "torch":
        # The list is complete, so nothing may pull in what it does not name; torch,
        # in place by now, could otherwise be replaced by another build.
        pip.append("--no-deps")
    _run([*pip, *lines], group)


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, check=False, text=True, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise SetupError(
            f"Installing {what} failed:\n{done.stderr.strip()}\n"
            "Check the network and the free disk space, then run the command again; "
            "it goes on where it stopped."
        )


def _digest(lines: list[str]) -> str:
    text = "\n".join([sys.version.split()[0], *lines])
    return hashlib.sha256(text.encode()).hexdigest()


def _read_stamp(python: Path) -> dict[str, str]:
    if not python.exists() or not STAMP.is_file():
        return {}
    try:
        data = json.loads(STAMP.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in data.items()} if isinstance(data, dict) else {}


def _write_stamp(done: dict[str, str]) -> None:
    temporary = STAMP.with_suffix(".tmp")
    temporary.write_text(json.dumps(done), encoding="utf-8")
    temporary.replace(STAMP)


# Commands


def demo(rest: list[str]) -> int:
    """Run the main job on the demo models."""
    return _lib_merge(ensure_venv(GROUPS["demo"]), ["demo", *rest])


def app(rest: list[str]) -> int:
    """Start the standalone tab."""
    return _lib_merge(ensure_venv(GROUPS["app"]), ["app", *rest])


def test(rest: list[str]) -> int:
    """Lint, check types and run all tests; every step runs, the first fault counts."""
    python = ensure_venv(GROUPS["test"])
    steps = (
        ("ruff", ["ruff", "check", "."]),
        ("format", ["ruff", "format", "--check", "."]),
        ("mypy", ["mypy"]),
        ("pytest", ["pytest", *rest]),
    )
    status = 0
    for name, command in steps:
        print(f"== {name}", flush=True)
        found = _module(python, command)
        status = status or found
        print(f"== {name}: {'passed' if found == 0 else f'failed ({found})'}")
    return status


def _lib_merge(python: Path, arguments: list[str]) -> int:
    return _module(python, ["lib_merge", *arguments])


def _module(python: Path, command: list[str]) -> int:
    child = subprocess.Popen([str(python), "-m", *command], cwd=ROOT, env=_env())
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            # Ctrl-C reached the child too; let it clean up and say so itself.
            continue


def _env() -> dict[str, str]:
    env = dict(os.environ)
    env.pop("PYTHONPATH", None)
    env.setdefault("PYTHONUNBUFFERED", "1")
    # The commands need no hub; an unreachable one would only cost time.
    env.setdefault("HF_HUB_OFFLINE", "1")
    env.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    return env


_COMMANDS = {"demo": demo, "test": test, "app": app}


# Inside a WebUI


def _is_inside_webui() -> bool:
    return importlib.util.find_spec("launch") is not None


def install_into_webui(launch: Any = None) -> int:
    """Install what is missing through the WebUI's own `launch`, changing nothing.

    Every package that the host has is handed to pip as a constraint; if optuna cannot
    be had without changing one, it is left out and AutoMBW says so in the tab.

    Args:
        launch: The WebUI's module; imported when absent.

    Returns:
        0 always: a missing optional package must not keep the WebUI from starting.
    """
    launch = launch or importlib.import_module("launch")
    if getattr(getattr(launch, "args", None), "skip_install", False):
        return 0
    missing = [spec for name, spec in WEBUI_NEEDS.items() if not _has(launch, name)]
    if not missing:
        return 0
    wanted = " ".join(f'"{spec}"' for spec in missing)
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text(_installed_packages(), encoding="utf-8")
        try:
            launch.run_pip(f'install -c "{constraints}" {wanted}', "MergeLab's optuna")
        except Exception as fault:  # whatever the host's installer raises
            print(
                f"MergeLab: {wanted} could not be installed without changing the "
                f"WebUI's packages, so AutoMBW stays off; merging works. {fault}",
                file=sys.stderr,
            )
    return 0


def _has(launch: Any, name: str) -> bool:
    return bool(launch.is_installed(name))


def _installed_packages() -> str:
    lines = set()
    for package in importlib.metadata.distributions():
        name, version = package.metadata["Name"], package.version
        # A local version ("2.13.0+cpu") is named in full, or pip would replace it.
        if name and version:
            lines.add(f"{name}=={version}")
    return "\n".join(sorted(lines)) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
