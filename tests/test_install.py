"""install.py: the lock file, and its manners inside a WebUI."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_install", ROOT / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FakeLaunch:
    """The part of a WebUI's `launch` that an installer uses."""

    def __init__(self, have: set[str], *, skip: bool = False, fails: bool = False):
        self.args = SimpleNamespace(skip_install=skip)
        self.have = have
        self.fails = fails
        self.commands: list[str] = []
        self.constraints = ""

    def is_installed(self, name: str) -> bool:
        return name in self.have

    def run_pip(self, command: str, desc: str) -> None:
        self.commands.append(command)
        path = re.search(r'-c "([^"]+)"', command)
        assert path is not None
        self.constraints = Path(path[1]).read_text(encoding="utf-8")
        if self.fails:
            raise RuntimeError("ResolutionImpossible")


def test_every_requirement_of_the_lock_is_pinned_exactly(install: ModuleType) -> None:
    groups = install.read_lock(install.LOCK.read_text(encoding="utf-8"))
    assert list(groups) == ["torch", "run", "app", "test"]
    assert groups["torch"][0] == "torch==2.13.0"
    lines = [line for group in groups.values() for line in group]
    assert [x for x in lines if not re.match(r"[\w.-]+==[\w.]+(;.*)?$", x)] == []
    names = [re.sub(r"[-_.]+", "-", x.split("==")[0]).lower() for x in lines]
    assert len(names) == len(set(names))


def test_lock_names_nothing_that_would_replace_torch(install: ModuleType) -> None:
    text = install.LOCK.read_text(encoding="utf-8").lower()
    assert not re.search(r"^(torchvision|timm|open.clip|torchaudio)", text, re.M)


def test_webui_gets_only_what_is_missing(install: ModuleType) -> None:
    launch = FakeLaunch({"cmaes"})
    assert install.install_into_webui(launch) == 0
    assert len(launch.commands) == 1
    assert "optuna" in launch.commands[0]
    assert "cmaes" not in launch.commands[0].split('"')[-2]


def test_webui_packages_are_all_held_by_constraints(install: ModuleType) -> None:
    launch = FakeLaunch(set())
    install.install_into_webui(launch)
    held = set(launch.constraints.splitlines())
    for name in ("torch", "numpy", "pytest"):
        assert any(line.lower().startswith(f"{name}==") for line in held)
    installed = {d.metadata["Name"] for d in importlib.metadata.distributions()}
    assert len(held) >= len({n for n in installed if n}) - 1


def test_webui_with_everything_is_left_alone(install: ModuleType) -> None:
    launch = FakeLaunch({"optuna", "cmaes"})
    assert install.install_into_webui(launch) == 0
    assert launch.commands == []


def test_skip_install_is_honoured(install: ModuleType) -> None:
    launch = FakeLaunch(set(), skip=True)
    assert install.install_into_webui(launch) == 0
    assert launch.commands == []


def test_webui_starts_when_optuna_cannot_be_had(
    install: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install.install_into_webui(FakeLaunch(set(), fails=True)) == 0
    assert "AutoMBW stays off" in capsys.readouterr().err


def test_webui_run_finds_launch_and_asks_it(tmp_path: Path) -> None:
    (tmp_path / "launch.py").write_text(
        "args = None\n"
        "def is_installed(name):\n    print('asked for', name)\n    return True\n"
        "def run_pip(command, desc):\n    raise AssertionError\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(ROOT / "install.py")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["asked", "for", "optuna", "asked", "for", "cmaes"]


def test_unknown_command_says_which_there_are() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "install.py"), "tests"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "demo" in done.stderr


def test_install_needs_the_standard_library_only() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "install.py"), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0


def test_lock_change_reinstalls_that_group_only(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").touch()
    (venv / "Scripts").mkdir()
    (venv / "Scripts" / "python.exe").touch()
    lock = tmp_path / "requirements.lock"
    lock.write_text("# group: run\na==1\n# group: app\nb==1\n", encoding="utf-8")
    monkeypatch.setattr(install, "VENV", venv)
    monkeypatch.setattr(install, "STAMP", venv / "stamp.json")
    monkeypatch.setattr(install, "LOCK", lock)
    groups: list[str] = []
    monkeypatch.setattr(
        install, "_install_group", lambda python, group, lines: groups.append(group)
    )
    monkeypatch.setattr(install, "_run", lambda command, what: None)
    monkeypatch.setattr(install, "ROOT", tmp_path)
    install.ensure_venv(["run", "app"])
    install.ensure_venv(["run", "app"])
    assert groups == ["run", "app"]
    lock.write_text("# group: run\na==1\n# group: app\nb==2\n", encoding="utf-8")
    install.ensure_venv(["run", "app"])
    assert groups == ["run", "app", "app"]
