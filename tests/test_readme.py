"""The README says what the program does: its methods, commands and options."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lib_merge.cli import _parser, merge
from lib_merge.cli._request import recipe_of
from lib_merge.cli.methods import BEGIN, END, markdown
from lib_merge.core.params import split_name
from lib_merge.core.recipe import MergeNode
from lib_merge.methods import methods

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_table_of_methods_is_the_registry() -> None:
    start, end = README.find(BEGIN), README.find(END)
    assert 0 <= start < end, "README.md lacks the marks of the table of methods"
    block = README[start : end + len(END)]
    fix = "run: python -m lib_merge methods --markdown README.md"
    assert block == markdown(), f"README.md's table of methods is stale; {fix}"


@pytest.mark.parametrize(
    "command",
    sorted(set(re.findall(r"python -m lib_merge ([a-z]+)", README)) | {"app"}),
)
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
    lines = part.replace("\\\n", " ").splitlines()
    merging = [line for line in lines if line.startswith("python -m lib_merge merge ")]
    named = set(re.findall(r"(--[a-z-]+)", " ".join(merging)))
    assert len(named) > 8
    assert [o for o in sorted(named) if o not in done.stdout] == []


def _commands() -> list[list[str]]:
    """Every command of the README with options, but `merge`, which has its own test."""
    lines = README.replace("\\\n", " ").splitlines()
    start = "python -m lib_merge "
    found = [shlex.split(line)[3:] for line in lines if line.startswith(start)]
    return [words for words in found if words[0] != "merge"]


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_command_line_of_the_readme_is_understood(words: list[str]) -> None:
    """The parser takes it; nothing is run."""
    _parser().parse_args(words)


def _merges() -> list[list[str]]:
    """Every `merge` command of the README but those that repeat a user's recipe."""
    lines = README.replace("\\\n", " ").splitlines()
    start = "python -m lib_merge merge "
    found = [shlex.split(line)[3:] for line in lines if line.startswith(start)]
    return [words for words in found if "--recipe" not in words]


@pytest.mark.parametrize("words", _merges(), ids=lambda words: words[1])
def test_merge_command_of_the_readme_is_understood(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options are read and method, parameters and number of models fit each other."""
    monkeypatch.chdir(tmp_path)
    Path("pool.txt").write_text("A\nB\nC\n", encoding="utf-8")
    parser = argparse.ArgumentParser()
    merge.add_arguments(parser)
    # A shell makes several names of a pattern.
    named = [name for w in words[1:] for name in ([w, f"2{w}"] if "*" in w else [w])]
    recipe = recipe_of(parser.parse_args(named))
    for node in recipe.nodes:
        if isinstance(node, MergeNode):
            method = methods().get(node.method)
            assert method.accepts(len(node.inputs))
            for name, setting in node.params:
                spec = method.param(split_name(name)[0])
                assert spec is not None
                spec.check(setting.value, name)
