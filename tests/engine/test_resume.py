"""A save that was killed goes on, and gives the bytes of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lib_merge.checkpoint import journal as journals
from lib_merge.checkpoint.journal import Journal, find_partial, journal_of
from lib_merge.core.recipe import Setting, simple_recipe
from lib_merge.engine.progress import JobProgress
from lib_merge.engine.run import RunOptions
from lib_merge.engine.save import merge_to_file
from lib_merge.errors import Cancelled, MergeError
from tests.support.checkpoints import names_in, write_tiny

posix_only = pytest.mark.skipif(os.name == "nt", reason="kills a process by signal")

CHILD = """
import os, signal, sys
from lib_merge.checkpoint import journal
from lib_merge.engine import save
from lib_merge.core.recipe import Recipe
import json
folder, out, n_calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
made = journal.Journal.__init__
def eager(self, *args, **options):
    made(self, *args, **{**options, "interval_s": 0.0})
journal.Journal.__init__ = eager
from lib_merge.checkpoint.writer import PendingFile
write, calls = PendingFile.write_at, []
def counted(self, offset, data):
    calls.append(1)
    if len(calls) == n_calls:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, offset, data)
PendingFile.write_at = counted
recipe = Recipe.from_json(json.load(open(folder + "/recipe.json")))
save.merge_to_file(recipe, out, options=save.RunOptions(n_threads=int(sys.argv[4])))
"""


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate("abc"):
        write_tiny(tmp_path / f"{name}.safetensors", "sd1", seed + 1)
    return tmp_path


def recipe_of(folder, method="weighted_mean", **options):
    files = tuple(str(folder / f"{name}.safetensors") for name in "abc")
    params = {"weight@2": Setting(3.0)} if method == "weighted_mean" else {}
    return simple_recipe(method, files, params, **options)


def killed_save(folder, out, recipe, n_calls, n_threads=2):
    (folder / "recipe.json").write_text(json.dumps(recipe.to_json()))
    command = [sys.executable, "-c", CHILD, str(folder), str(out), str(n_calls)]
    done = subprocess.run([*command, str(n_threads)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()


@posix_only
@pytest.mark.parametrize("n_threads", [1, 2], ids=["one", "two"])
@pytest.mark.parametrize("n_calls", [50, 700, 1100], ids=["early", "later", "late"])
def test_killed_save_goes_on_with_the_same_bytes(folder, n_calls, n_threads):
    whole = merge_to_file(recipe_of(folder), folder / "whole.safetensors")
    out = folder / "out.safetensors"
    killed_save(folder, out, recipe_of(folder), n_calls, n_threads)
    resumed = merge_to_file(
        recipe_of(folder), out, options=RunOptions(chunk_elements=5000)
    )
    assert resumed.report.n_resumed > 0
    assert "Went on with a merge that was killed" in resumed.notes[0]
    assert resumed.sha256 == whole.sha256
    assert out.read_bytes() == (folder / "whole.safetensors").read_bytes()
    assert not [name for name in names_in(folder) if ".tmp" in name]


def noted(folder):
    """How many values the one journal in a folder tells of."""
    (path,) = folder.glob(".*.journal")
    entries = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return sum(stop - start for e in entries for _, start, stop in e["done"])


@posix_only
def test_save_killed_twice_goes_on_from_the_second_kill(folder):
    out = folder / "out.safetensors"
    killed_save(folder, out, recipe_of(folder), 400)
    first = noted(folder)
    killed_save(folder, out, recipe_of(folder), 400)
    second = noted(folder)
    resumed = merge_to_file(recipe_of(folder), out)
    whole = merge_to_file(recipe_of(folder), folder / "whole.safetensors")
    assert resumed.sha256 == whole.sha256
    assert 0 < first < second == resumed.report.n_resumed


@posix_only
@pytest.mark.parametrize("change", ["recipe", "input"])
def test_other_merge_starts_afresh_and_clears_up(folder, change):
    out = folder / "out.safetensors"
    killed_save(folder, out, recipe_of(folder), 700)
    recipe = recipe_of(folder)
    if change == "recipe":
        recipe = recipe_of(folder, "uniform_soup")
    else:
        write_tiny(folder / "c.safetensors", "sd1", 9)
    saved = merge_to_file(recipe, out)
    assert saved.report.n_resumed == 0
    again = merge_to_file(recipe, folder / "again.safetensors")
    assert saved.sha256 == again.sha256
    assert not [name for name in names_in(folder) if ".tmp" in name]


def test_cancelled_save_leaves_nothing_to_go_on_from(folder, monkeypatch):
    monkeypatch.setattr(journals.Journal, "mark", _eager(journals.Journal.mark))
    progress = JobProgress()
    progress._callback = lambda s: progress.cancel() if s.done > 200_000 else None
    progress._min_interval_s = 0.0
    with pytest.raises(Cancelled, match="stopped as asked"):
        merge_to_file(recipe_of(folder), folder / "out.safetensors", progress=progress)
    assert names_in(folder) == [f"{name}.safetensors" for name in "abc"]


def _eager(mark):
    def eager(self, key, start, stop):
        self._interval_s = 0.0
        mark(self, key, start, stop)

    return eager


def test_partial_of_a_running_process_is_left_alone(tmp_path):
    target = tmp_path / "o.safetensors"
    partial = tmp_path / f".o.safetensors.{os.getpid()}-1.tmp"
    partial.write_bytes(b"x" * 100)
    journal = Journal(partial, "sign", lambda: None, interval_s=0.0)
    journal.mark("key", 0, 10)
    assert journal_of(partial).exists()
    assert find_partial(target, "sign", 100) is None


def dead_partial(folder, text):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    partial = folder / f".o.safetensors.{child.pid}-1.tmp"
    partial.write_bytes(b"x" * 100)
    journal_of(partial).write_text(text)
    old = time.time() - 3600
    for path in (partial, journal_of(partial)):
        os.utime(path, (old, old))
    return folder / "o.safetensors"


HEAD = '{"version": 1, "signature": "sign", "host": "h", "pid": 1}\n'


@posix_only
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (HEAD + '{"done": [["k", 0, 5], ["k", 5, 9]]}\n', {"k": ((0, 9),)}),
        (HEAD + '{"done": [["k", 6, 9], ["k", 0, 2]]}\n', {"k": ((0, 2), (6, 9))}),
        (HEAD + '{"done": [["k", 0, 5]]}\n{"done": [["k", 5,', {"k": ((0, 5),)}),
        (HEAD, None),
        (HEAD.replace("sign", "other") + '{"done": [["k", 0, 5]]}\n', None),
        (HEAD.replace('n": 1', 'n": 2') + '{"done": [["k", 0, 5]]}\n', None),
        ("", None),
        ("\x00\x01{[", None),
        ("[]\n", None),
    ],
    ids="joined gap torn empty signature version blank garbage list".split(),  # noqa: SIM905
)
def test_journal_is_believed_as_far_as_it_reads(tmp_path, text, wanted):
    target = dead_partial(tmp_path, text)
    found = find_partial(target, "sign", 100)
    assert (dict(found.done) if found else None) == wanted
    assert find_partial(target, "sign", 99) is None


def test_missing_parts_are_what_is_not_noted(tmp_path):
    done = {"k": ((2, 4), (6, 9))}
    journal = Journal(tmp_path / "p", "s", lambda: None, done=done)
    assert list(journal.missing("k", 0, 10)) == [(0, 2), (4, 6), (9, 10)]
    assert list(journal.missing("k", 3, 8)) == [(4, 6)]
    assert list(journal.missing("k", 2, 4)) == []
    assert list(journal.missing("other", 0, 3)) == [(0, 3)]


def test_nothing_is_noted_before_it_is_synced(tmp_path):
    synced = []
    journal = Journal(tmp_path / "p", "s", lambda: synced.append(1), interval_s=9e9)
    journal.mark("k", 0, 3)
    assert not journal.path.exists()

    def failing():
        raise MergeError("The disk failed.")

    broken = Journal(tmp_path / "q", "s", failing, interval_s=0.0)
    with pytest.raises(MergeError, match="disk failed"):
        broken.mark("k", 0, 3)
    assert not broken.path.exists()
    journal.flush()
    assert synced
    assert journal.path.exists()
