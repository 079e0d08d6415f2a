"""Payload files of every kind as plain fields: JSON, YAML, TOML, msgpack, text, PNG."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_merge.autombw.infotext import parse_infotext, read_picture, split_infotext
from lib_merge.errors import PayloadError

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
TEXT = ".txt"
OBJECTS = (".json", ".yaml", ".yml", ".toml", ".msgpack")
SUFFIXES = (*OBJECTS, TEXT, *PICTURES)

_LISTED = (*OBJECTS, TEXT)
"""Files that a folder stands for; its pictures may be anything."""

_ALIASES = {
    "neg": "negative_prompt",
    "negative": "negative_prompt",
    "cfg": "cfg_scale",
    "sampler": "sampler_name",
    "size": "size",
    "n": "n_iter",
}
_WORDS = ("prompt", "negative_prompt")
"""Fields whose values stay as they are written."""

_FLAG = re.compile(r"(?:^|\s)--([a-z_]+)(?=\s|$)")


@dataclass(frozen=True)
class RawPayload:
    """A payload as its file has it.

    Attributes:
        name: What it is called.
        source: Where it stands, for messages.
        fields: Its fields.
        has_all_fields: Whether its format names every field of a payload.
    """

    name: str
    source: str
    fields: Any
    has_all_fields: bool = True


def payload_files(paths: Any) -> list[Path]:
    """The files that some paths stand for; a folder for every payload file in it.

    Raises:
        PayloadError: A folder holds none.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in _LISTED)
        if not inside:
            kinds = ", ".join(_LISTED)
            raise PayloadError(f"The folder {path} holds no payload file ({kinds}).")
        found.extend(inside)
    return found


def parse_file(path: Path) -> list[RawPayload]:
    """The payloads in a file: one, or one a line of a list of prompts.

    Raises:
        PayloadError: It is missing, of an unknown kind, damaged, or needs a library
            that is missing.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise PayloadError(
            f"{path} is no payload file; use one of: {', '.join(SUFFIXES)}."
        )
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise PayloadError(
            f"{path} cannot be read ({fault.strerror}); choose another payload file."
        ) from fault
    if suffix in PICTURES:
        fields = parse_infotext(read_picture(path), str(path))
        return [RawPayload(path.stem, str(path), fields, has_all_fields=False)]
    if suffix == TEXT:
        return list(_text(_decoded(data, path), path))
    return _objects(_PARSERS[suffix](data, path), path)


def _objects(data: Any, path: Path) -> list[RawPayload]:
    """One object, or a list of them."""
    if not isinstance(data, list):
        return [RawPayload(path.stem, str(path), data)]
    if not data or not all(isinstance(one, dict) for one in data):
        return [RawPayload(path.stem, str(path), data)]
    width = len(str(len(data)))
    return [
        RawPayload(f"{path.stem}-{n:0{width}}", f"{path}, payload {n}", one)
        for n, one in enumerate(data, 1)
    ]


def _decoded(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise PayloadError(
            f"{path} is no UTF-8 text ({fault}); save it as UTF-8."
        ) from fault


def _json(data: bytes, path: Path) -> Any:
    try:
        return json.loads(_decoded(data, path))
    except ValueError as fault:
        raise PayloadError(
            f"{path} is no JSON: {fault}. Correct or export it again."
        ) from fault


def _library(name: str, path: Path, brought_by: str) -> Any:
    if importlib.util.find_spec(name) is None:
        raise PayloadError(
            f"{path} needs the Python package '{name}' ({brought_by}), which is not "
            "installed here; install it, or save the payload as JSON."
        )
    return importlib.import_module(name)


def _yaml(data: bytes, path: Path) -> Any:
    yaml = _library("yaml", path, "PyYAML, which Optuna brings")
    try:
        return yaml.safe_load(_decoded(data, path))
    except yaml.YAMLError as fault:
        raise PayloadError(f"{path} is no YAML: {fault}. Correct it.") from fault


def _toml(data: bytes, path: Path) -> Any:
    is_built_in = importlib.util.find_spec("tomllib") is not None
    name = "tomllib" if is_built_in else "tomli"
    toml = _library(name, path, "a part of Python from 3.11 on")
    try:
        return toml.loads(_decoded(data, path))
    except toml.TOMLDecodeError as fault:
        raise PayloadError(f"{path} is no TOML: {fault}. Correct it.") from fault


def _msgpack(data: bytes, path: Path) -> Any:
    msgpack = _library("msgpack", path, "pip install msgpack")
    try:
        return msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException) as fault:
        raise PayloadError(
            f"{path} is no msgpack: {fault}. Export it again."
        ) from fault


_PARSERS: Mapping[str, Callable[[bytes, Path], Any]] = {
    ".json": _json,
    ".yaml": _yaml,
    ".yml": _yaml,
    ".toml": _toml,
    ".msgpack": _msgpack,
}


def _text(text: str, path: Path) -> Iterator[RawPayload]:
    """A saved infotext, or a list of prompts: one a line.

    Lines that begin with # are comments. `--steps 30 --neg bad hands` behind a prompt
    sets fields for it; on a line of its own, for every prompt below.
    """
    if "Steps" in split_infotext(text)[2]:
        fields = parse_infotext(text, str(path))
        yield RawPayload(path.stem, str(path), fields, has_all_fields=False)
        return
    rows = []
    shared: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{path}, line {number}"
        prompt, flags = _flags(line, where)
        if prompt or "prompt" in flags:
            rows.append((where, {"prompt": prompt, **shared, **flags}))
        else:
            shared |= flags
    if not rows:
        raise PayloadError(f"{path} holds no prompt; write one a line.")
    width = len(str(len(rows)))
    for number, (where, values) in enumerate(rows, 1):
        name = f"{path.stem}-{number:0{width}}"
        yield RawPayload(name, where, values, has_all_fields=False)


def _flags(line: str, where: str) -> tuple[str, dict[str, Any]]:
    """(prompt, fields) of a line."""
    marks = list(_FLAG.finditer(line))
    prompt = line[: marks[0].start()] if marks else line
    flags: dict[str, Any] = {}
    ends = [*(mark.start() for mark in marks[1:]), len(line)]
    for mark, end in zip(marks, ends, strict=False):
        name = _ALIASES.get(mark[1], mark[1])
        value = line[mark.end() : end].strip()
        if name == "size":
            flags.update(_size(value, where))
        else:
            flags[name] = value if name in _WORDS else _value(value)
    return prompt.strip(), flags


def _size(text: str, where: str) -> dict[str, Any]:
    width, cross, height = text.partition("x")
    if not (cross and width.isdigit() and height.isdigit()):
        raise PayloadError(f"{where}: --size {text}: write it as 768x512.")
    return {"width": int(width), "height": int(height)}


def _value(text: str) -> Any:
    """A number, true, false, or a text with or without quotes."""
    if text[:1] in "\"'" and text:
        try:
            return " ".join(shlex.split(text))
        except ValueError:
            return text
    if text in ("", "true", "false"):
        return text != "false"
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text
