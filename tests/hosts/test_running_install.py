"""install.py in a real WebUI's own Python: it adds, and changes nothing.

    MERGELAB_HOST_ROOT=/path/to/webui MERGELAB_HOST_PYTHON=/path/to/python \
        python -m pytest -m host tests/hosts/test_running_install.py

The WebUI has MergeLab among its extensions; its launcher runs the installer, as it does
at every start. It says most about a WebUI that has never started with MergeLab.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = os.environ.get("MERGELAB_HOST_ROOT", "")
PYTHON = os.environ.get("MERGELAB_HOST_PYTHON", "")

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(
        not ROOT or not PYTHON, reason="no WebUI (MERGELAB_HOST_ROOT and _PYTHON)"
    ),
]

INSTALL = """
import sys
folder, sys.argv = sys.argv[1], ["launch.py"]
from modules import launch_utils
launch_utils.run_extension_installer(folder)
"""


def run(*words: str) -> str:
    """Run the WebUI's Python in its folder; what it printed."""
    done = subprocess.run(
        [PYTHON, *words], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return done.stdout


def installed() -> dict[str, str]:
    """Versions by package, of everything in the WebUI's Python."""
    lines = run("-m", "pip", "list", "--format=freeze").splitlines()
    return dict(line.split("==", 1) for line in lines if "==" in line)


def ours() -> Path:
    """MergeLab's folder among the WebUI's extensions."""
    folders = (Path(ROOT) / "extensions").iterdir()
    found = [f for f in folders if (f / "lib_merge").is_dir()]
    assert len(found) == 1, f"MergeLab is not in {ROOT}/extensions, or twice"
    return found[0]


def test_installer_only_adds_packages() -> None:
    before = installed()
    run("-c", INSTALL, str(ours()))
    after = installed()
    changed = {
        name: (version, after.get(name))
        for name, version in before.items()
        if after.get(name) != version
    }
    assert changed == {}
    assert {"optuna", "cmaes"} <= after.keys()
    # At the second start there is nothing left to do.
    run("-c", INSTALL, str(ours()))
    assert installed() == after
