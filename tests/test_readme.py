"""The README says what the program does: its methods, commands and options."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lib_merge.core.method import MergeMethod
from lib_merge.methods import methods

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _models(method: MergeMethod) -> str:
    return f"{method.min_models} or more" if method.is_pool else str(method.min_models)


def test_table_of_methods_is_the_registry() -> None:
    found = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", README, re.M)
    assert found == [(m.id, m.formula, _models(m)) for m in methods()]


@pytest.mark.parametrize("command", ["methods", "merge", "inspect", "study", "app"])
def test_command_of_the_readme_exists(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lib_merge", command, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_merge_option_of_the_readme_exists() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lib_merge", "merge", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    part = README.split("## Command line")[1].split("## Methods")[0]
    merging = [line for line in part.splitlines() if "study" not in line]
    named = set(re.findall(r"(--[a-z-]+)", " ".join(merging)))
    study_only = {"--payloads", "--scorer", "--trials", "--name", "--help"}
    assert named - study_only
    assert [o for o in sorted(named - study_only) if o not in done.stdout] == []
