"""Reads what several commands take: sizes, components, lists of models, recipes."""

from __future__ import annotations

import re
from pathlib import Path

from lib_merge.core.blocks import Component
from lib_merge.core.recipe import DEFAULT_COMPONENTS
from lib_merge.errors import InputError
from lib_merge.formats.request import BLENDABLE

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([kmgt]?)i?b?\s*", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes in a size such as 2GB, 512MiB or 1000000 (K, M, G are powers of 1024).

    Raises:
        InputError: It is no size.
    """
    found = _SIZE.fullmatch(text)
    if not found or float(found[1]) <= 0:
        raise InputError(f"--memory {text!r} is no size; write 2GB or 512MB.")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def parse_components(text: str | None) -> tuple[Component, ...]:
    """Components with commas between; "text" means every text encoder, "all" all.

    Raises:
        InputError: An unknown component.
    """
    if text is None:
        return DEFAULT_COMPONENTS
    found: list[Component] = []
    for name in (part.strip().lower() for part in text.split(",")):
        if name == "all":
            found += BLENDABLE
        elif name == "text":
            found += [c for c in BLENDABLE if c.is_text_encoder]
        elif name in [c.value for c in BLENDABLE]:
            found.append(Component(name))
        else:
            known = ", ".join(c.value for c in BLENDABLE)
            raise InputError(
                f"--components: unknown component {name!r}; known: {known}, text, all."
            )
    return tuple(dict.fromkeys(found))


def read_model_list(path: Path) -> tuple[str, ...]:
    """Models named in a text file, one a line; # begins a comment.

    A name is taken from the list's own folder when a file of that name lies there.

    Raises:
        InputError: The file cannot be read, or names nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise InputError(
            f"The list {path} cannot be read ({fault}); give a text file with one "
            "model a line."
        ) from fault
    names = [line.strip() for line in lines]
    names = [name for name in names if name and not name.startswith("#")]
    if not names:
        raise InputError(f"The list {path} names no model; write one a line.")
    beside = [path.parent / name for name in names]
    return tuple(
        str(file) if file.is_file() else name
        for name, file in zip(names, beside, strict=True)
    )
