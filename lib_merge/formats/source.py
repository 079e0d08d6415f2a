"""A file as readers of other programs' recipes see it: a name, text, metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lib_merge.checkpoint.header import read_header
from lib_merge.errors import InputError

LIMIT_BYTES = 32 << 20
"""No recipe is larger; what is, is refused before it is read."""

CHECKPOINTS = (".safetensors", ".sft")


@dataclass(frozen=True)
class Source:
    """What a format's `sniff` and `read` are given.

    Attributes:
        name: The file's name, for messages, and for formats that say things in it.
        data: Its bytes; empty for a checkpoint, of which only the metadata counts.
        header: A checkpoint's metadata, or None.
    """

    name: str
    data: bytes = b""
    header: Mapping[str, str] | None = None

    @cached_property
    def text(self) -> str:
        """The bytes as text; signs that cannot be read are replaced."""
        if self.data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return self.data.decode("utf-16", "replace")
        return self.data.decode("utf-8-sig", "replace")

    @property
    def is_lossy(self) -> bool:
        """Whether signs had to be replaced: the text is in another encoding."""
        return "\ufffd" in self.text

    @cached_property
    def json(self) -> Any:
        """The text as JSON, or None."""
        return parsed(self.text)

    @cached_property
    def tags(self) -> Mapping[str, Any]:
        """A checkpoint's metadata, also of one that a JSON file repeats."""
        if self.header is not None:
            return self.header
        if not isinstance(self.json, dict):
            return {}
        inner = self.json.get("__metadata__")
        return inner if isinstance(inner, dict) else self.json

    def tag(self, name: str) -> dict[str, Any] | None:
        """An object in the metadata, which files hold as a string of JSON."""
        value = self.tags.get(name)
        if isinstance(value, str):
            value = parsed(value)
        return value if isinstance(value, dict) else None


def parsed(text: str) -> Any:
    """A JSON text's value, or None where it is none."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def open_source(path: Path) -> Source:
    """Read a recipe's file, or the metadata of a checkpoint.

    Raises:
        InputError: It cannot be read, or is larger than any recipe.
        CheckpointError: A damaged checkpoint.
    """
    if path.suffix.lower() in CHECKPOINTS:
        return Source(path.name, header=read_header(path).metadata)
    try:
        size = path.stat().st_size
        if size > LIMIT_BYTES:
            raise InputError(
                f"{path} is {size >> 20} MiB large, more than any recipe "
                f"({LIMIT_BYTES >> 20} MiB); give a recipe or a .safetensors file."
            )
        return Source(path.name, path.read_bytes())
    except OSError as fault:
        raise InputError(
            f"{path} cannot be read ({fault.strerror}); check the path."
        ) from fault
