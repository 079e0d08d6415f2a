"""mergekit's YAML as plain values: text only, no anchors, bounded in size and depth."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from lib_merge.errors import InputError, RecipeError

LIMIT_CHARS = 256 << 10
_MAX_DEPTH = 20
_MARK = re.compile(r"^merge_method\s*:", re.MULTILINE)


def looks_like_mergekit(text: str) -> bool:
    """Whether a text has mergekit's one required field."""
    return _MARK.search(text[:LIMIT_CHARS]) is not None


def load(text: str, where: str) -> dict[str, Any]:
    """The mapping of a YAML text; every scalar is text.

    Raises:
        RecipeError: No YAML, no mapping, anchors, or too large or deep.
        InputError: PyYAML is not installed.
    """
    if len(text) > LIMIT_CHARS:
        raise RecipeError([f"{where} is larger than any mergekit recipe."])
    try:
        yaml: Any = import_module("yaml")
    except ImportError as fault:
        raise InputError(
            "mergekit's YAML needs PyYAML; install it (pip install pyyaml)."
        ) from fault

    class Loader(yaml.BaseLoader):  # type: ignore[misc]
        """Knows no anchors: a few lines of them can stand for gigabytes."""

        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent) or self.depth > _MAX_DEPTH:
                raise RecipeError(
                    [f"{where} uses YAML anchors, or is nested too deep."]
                )
            self.depth += 1
            try:
                return super().compose_node(parent, index)
            finally:
                self.depth -= 1

    try:
        data = yaml.load(text, Loader=Loader)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as fault:
        line = str(fault).replace("\n", " ")[:200]
        raise RecipeError([f"{where} is no YAML ({line})."]) from fault
    if not isinstance(data, dict):
        raise RecipeError([f"{where} is no mergekit recipe."])
    return data
