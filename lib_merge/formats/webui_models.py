"""Models of the WebUI's merge metadata: hash to name, and how each was merged itself.

`sd_merge_models` lists every model of a chain of merges. A model that was merged has
its own `sd_merge_recipe`; the rest are leaves. Both are strings of JSON on disk, and
objects in exported files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Any

from lib_merge.formats.graph import Graph
from lib_merge.formats.source import parsed

_HASH = re.compile(r"[0-9a-f]{64}")
_SHORT = re.compile(r"\s*\[[0-9a-f]{8,64}\]$")


@dataclass(frozen=True)
class Listed:
    """One model of the list."""

    sha256: str
    name: str
    recipe: Mapping[str, Any] | None


@dataclass
class Models:
    """The list, and what was made of it.

    Attributes:
        by_hash: The list.
        graph: Where nodes are added.
        used: Hashes that some step named.
        unknown: Sentences on what is not said.
        notes: Sentences on how things were understood.
    """

    by_hash: dict[str, Listed]
    graph: Graph
    used: set[str] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _is_missing: bool = False

    @classmethod
    def of(cls, data: Mapping[str, Any], graph: Graph) -> Models:
        """Read `sd_merge_models`."""
        found = {}
        for key, value in data.items():
            entry = value if isinstance(value, dict) else {}
            recipe = entry.get("sd_merge_recipe")
            if isinstance(recipe, str):
                recipe = parsed(recipe)
            name = entry.get("name")
            sha256 = str(key).lower()
            found[sha256] = Listed(
                sha256,
                name if isinstance(name, str) and name else sha256[:10],
                recipe if isinstance(recipe, dict) else None,
            )
        return cls(found, graph)

    def named(self, name: object) -> str | None:
        """The key of a model that a step calls by hash or by name."""
        if not isinstance(name, str) or not name:
            return None
        if name.lower() in self.by_hash or _HASH.fullmatch(name.lower()):
            return name.lower()
        same = self._by_stem.get(stem_of(name), [])
        return same[0] if len(same) == 1 else name

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for sha256, one in self.by_hash.items():
            found.setdefault(stem_of(one.name), []).append(sha256)
        return found

    def leaf(self, key: str) -> int:
        """The node of a model as a file."""
        listed = self.by_hash.get(key)
        if _HASH.fullmatch(key):
            name = listed.name if listed else key[:10]
            if listed is None:
                self.note_unknown(
                    f"The model of SHA-256 {key[:10]} has no name in the list; only "
                    "its hash can find it."
                )
            return self.graph.model(file_name(name), key)
        self.note_unknown(f"The model '{key[:80]}' is known by name only.")
        return self.graph.model(file_name(listed.name if listed else key))

    def missing(self, what: str, step: str) -> int:
        """The node of a model that a step does not name."""
        self._is_missing = True
        self.note_unknown(
            f"{step}: its {what} has no hash, so it is not known which model it was."
        )
        return self.graph.unknown(f"{what} of {step}")

    def note_unknown(self, sentence: str) -> None:
        """Keep a sentence once."""
        if sentence not in self.unknown:
            self.unknown.append(sentence)

    def note(self, sentence: str) -> None:
        """Keep a sentence once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def idle(self) -> list[str]:
        """Models that no step names, where one without hash may have been meant."""
        if not self._is_missing:
            return []
        return [
            f"{one.name} ({one.sha256[:10]}) is listed, but no step names it."
            for one in self.by_hash.values()
            if one.sha256 not in self.used
        ]


def file_name(name: str) -> str:
    """A checkpoint's name as the WebUI shows it, without the hash in brackets."""
    return _SHORT.sub("", name.strip())


def stem_of(name: str) -> str:
    """A name to compare by: no folder, no hash, no ending."""
    bare = PurePath(file_name(name).replace("\\", "/")).name
    return re.sub(r"\.(safetensors|ckpt|pt|sft)$", "", bare)
