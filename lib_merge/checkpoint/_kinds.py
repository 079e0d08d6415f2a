"""Recognises files that are no safetensors by their first bytes, to name their kind."""

from __future__ import annotations

from enum import Enum

N_MAGIC_BYTES = 64


class Kind(Enum):
    """A kind of file that people mistake for a checkpoint, with what to do about it."""

    EMPTY = "empty (0 bytes); download or save it again."
    PICKLE = "a pickled checkpoint (.ckpt); rename it to .ckpt or convert it."
    HTML = (
        "a web page, not a model: the download was answered with a page, often a "
        "log-in; download it again from a browser."
    )
    LFS_POINTER = (
        "a Git LFS pointer, not the model itself; run `git lfs pull` or download the "
        "file from the web page of its repository."
    )
    GGUF = "a GGUF file, which holds quantised weights; choose a .safetensors file."
    ARCHIVE = "an archive; unpack it and choose the checkpoint inside."
    XML = "an XML text, often an error message of a server; download it again."


def kind_of(start: bytes) -> Kind | None:
    """What the first bytes give away, or None where it may be safetensors.

    Args:
        start: The first `N_MAGIC_BYTES` of the file, or fewer.
    """
    if not start:
        return Kind.EMPTY
    text = start.lstrip().lower()
    is_pickle = start[:1] == b"\x80" and start[1:2] < b"\x06"
    if start.startswith(b"PK\x03\x04") or is_pickle:
        # A safetensors length of 0x..80 has zero bytes behind; a pickle has opcodes.
        is_length = start[:1] == b"\x80" and start[4:8] == bytes(4)
        return None if is_length else Kind.PICKLE
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return Kind.HTML
    if text.startswith(b"<?xml"):
        return Kind.XML
    if start.startswith(b"version https://git-lfs"):
        return Kind.LFS_POINTER
    if start.startswith(b"GGUF"):
        return Kind.GGUF
    if start.startswith((b"7z\xbc\xaf", b"Rar!", b"\x1f\x8b", b"\xfd7zXZ")):
        return Kind.ARCHIVE
    return None
