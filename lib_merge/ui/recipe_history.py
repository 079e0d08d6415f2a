"""Every merge that was loaded or saved: when, what, and where to."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from threading import Lock

from lib_merge.core.recipe import Recipe
from lib_merge.errors import MergeError

_log = logging.getLogger(__name__)

MAX_READ = 2000
"""So many of the last merges are shown; older ones stay in the file."""

LOADED, SAVED = "loaded", "saved"


@dataclass(frozen=True)
class Past:
    """A merge that was done.

    Attributes:
        time: In UTC, as ISO 8601 has it.
        kind: LOADED or SAVED.
        name: What it is called: the file's stem, or the recipe in one line.
        digest: The recipe's hash.
        path: The file that was saved, or "".
    """

    time: str
    kind: str
    name: str
    digest: str
    path: str = ""


class History:
    """The merges of one recipes folder, in files that only grow.

    `history/log.jsonl` has a line a merge, `history/DIGEST.json` each recipe once.

    Args:
        folder: Gives the recipes folder, which the user may change.
    """

    def __init__(self, folder: Callable[[], Path]) -> None:
        self._folder = folder
        self._lock = Lock()
        self._read: tuple[Path, int, tuple[Past, ...]] | None = None

    def add(
        self, recipe: Recipe, kind: str, name: str, path: Path | None = None
    ) -> None:
        """Remember a merge; a full disk must not undo it, so this never raises.

        Args:
            recipe: What was merged.
            kind: LOADED or SAVED.
            name: What it is called.
            path: The file that was saved.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        digest = recipe.digest()
        past = Past(now, kind, name, digest, str(path or ""))
        try:
            with self._lock:
                folder = self._place()
                folder.mkdir(parents=True, exist_ok=True)
                _write_once(folder / f"{digest}.json", recipe)
                with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
                    log.write(json.dumps(asdict(past)) + "\n")
        except OSError as fault:
            _log.warning("The merge %s is not in the history: %s.", digest, fault)

    def entries(self) -> tuple[Past, ...]:
        """The last merges, the newest first; read again only when there are more."""
        log = self._place() / "log.jsonl"
        try:
            changed = log.stat().st_mtime_ns
        except OSError:
            return ()
        known = self._read
        if known is None or known[:2] != (log, changed):
            found = tuple(reversed(list(_lines(log))[-MAX_READ:]))
            known = self._read = (log, changed, found)
        return known[2]

    def recipe(self, digest: str) -> Recipe | None:
        """A recipe that was merged, by its hash, or None."""
        if not digest.isalnum():
            return None
        return read_recipe_file(self._place() / f"{digest}.json")

    def _place(self) -> Path:
        return self._folder() / "history"


def read_recipe_file(path: Path) -> Recipe | None:
    """The recipe of one of our files, or None where it is none or damaged."""
    try:
        return Recipe.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, MergeError) as fault:
        _log.warning("%s cannot be read: %s", path, fault)
        return None


def _write_once(path: Path, recipe: Recipe) -> None:
    if path.exists():
        return
    part = path.with_suffix(".part")
    part.write_text(json.dumps(recipe.to_json()), encoding="utf-8")
    part.replace(path)


def _lines(log: Path) -> Iterator[Past]:
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            yield Past(**json.loads(line))
        except (ValueError, TypeError):
            # A line that was cut short by a crash costs only itself.
            continue
