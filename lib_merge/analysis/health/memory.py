"""Remembers inspections by the state of the file, so that a folder opens at once."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import lib_merge
from lib_merge.analysis.health.defects import Defect, Finding
from lib_merge.analysis.health.inspection import Contents, Inspection, Part
from lib_merge.checkpoint.hashes import cache_dir, known_sha256
from lib_merge.checkpoint.header import FileState, file_state

_MOST_FILES = 4000
_MOST_CHARACTERS = 1 << 16
"""Files with more metadata than this are read anew each time."""

_log = logging.getLogger(__name__)


class Memory:
    """What was found out from headers, in one file that may be lost at any time.

    Args:
        file: Where it is kept; None takes the user's cache folder.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file or cache_dir() / "inspections.json"
        self._layouts: dict[str, Any] = {}
        self._files: dict[str, Any] = {}
        self._contents: dict[str, Contents] = {}
        self._ids: dict[int, str] = {}
        self._is_changed = False
        self._load()

    def _load(self) -> None:
        try:
            data = json.loads(self._file.read_text(encoding="utf-8"))
            if data["made_by"] == _made_by():
                self._layouts, self._files = dict(data["layouts"]), dict(data["files"])
        except (OSError, ValueError, TypeError, KeyError):
            return

    def get(self, path: Path) -> Inspection | None:
        """The inspection of a file in its present state, if it is known.

        Raises:
            CheckpointError: The file is missing.
        """
        entry = self._files.get(_name(path, file_state(path)))
        if entry is None:
            return None
        try:
            return self._inspection(path, entry)
        except (KeyError, TypeError, ValueError):
            return None

    def put(self, inspection: Inspection) -> None:
        """Remember what a header told."""
        texts = inspection.metadata
        n_characters = sum(len(text) for text in texts.values())
        if inspection.error is not None or n_characters > _MOST_CHARACTERS:
            return
        name = _name(inspection.path, file_state(inspection.path))
        self._files.pop(name, None)
        self._files[name] = {
            "layout": self._layout_id(inspection.contents),
            "n_bytes": inspection.n_bytes,
            "n_keys": inspection.n_keys,
            "metadata": dict(texts),
            "recipe": inspection.recipe,
            "histories": inspection.histories,
            "problems": inspection.problems,
        }
        self._is_changed = True

    def save(self) -> None:
        """Write it, if anything is new; a cache that cannot be written is no error."""
        if not self._is_changed:
            return
        files = dict(list(self._files.items())[-_MOST_FILES:])
        used = {entry["layout"] for entry in files.values()}
        layouts = {key: self._layouts[key] for key in used if key in self._layouts}
        data = {"made_by": _made_by(), "layouts": layouts, "files": files}
        draft = self._file.with_name(f"{self._file.name}.{os.getpid()}.tmp")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(data), encoding="utf-8")
            draft.replace(self._file)
        except OSError as fault:
            _log.debug("The inspections %s were not written: %s", self._file, fault)
        self._is_changed = False

    def _layout_id(self, contents: Contents) -> str:
        """The name of a layout; files of one layout share its object."""
        known = self._ids.get(id(contents))
        if known is None:
            known = self._ids[id(contents)] = (
                f"{len(self._layouts)}-{os.urandom(4).hex()}"
            )
            self._layouts[known] = asdict(contents)
            self._contents[known] = contents
        return known

    def _inspection(self, path: Path, entry: Mapping[str, Any]) -> Inspection:
        name = entry["layout"]
        if name not in self._contents:
            contents = _contents(self._layouts[name])
            self._contents[name] = contents
            self._ids[id(contents)] = name
        return Inspection(
            path=path,
            n_bytes=entry["n_bytes"],
            n_keys=entry["n_keys"],
            contents=self._contents[name],
            metadata=entry["metadata"],
            recipe=entry["recipe"],
            histories=tuple(entry["histories"]),
            problems=tuple(entry["problems"]),
            sha256=known_sha256(path),
        )


def _contents(data: Mapping[str, Any]) -> Contents:
    return replace(
        Contents(**data),
        kin=tuple(data["kin"]),
        parts=tuple(
            replace(Part(**part), same_as=tuple(part["same_as"]))
            for part in data["parts"]
        ),
        findings=tuple(
            Finding(Defect(f["defect"]), tuple(f["keys"]), tuple(f["details"]))
            for f in data["findings"]
        ),
        problems=tuple(data["problems"]),
    )


def _name(path: Path, state: FileState) -> str:
    return f"{path.absolute()}|{state.n_bytes}|{state.mtime_ns}|{state.inode}"


@lru_cache(maxsize=1)
def _made_by() -> str:
    """Changes with everything that inspections depend on."""
    package = Path(lib_merge.__file__).parent
    newest = max(
        file.stat().st_mtime_ns
        for folder in ("arch", "analysis/health", "core", "checkpoint")
        for file in (package / folder).rglob("*")
        if file.suffix in (".py", ".tsv")
    )
    return f"{lib_merge.__version__} {newest}"
