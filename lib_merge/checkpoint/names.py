"""One name for keys that tools spell differently; nothing is guessed beyond these."""

from __future__ import annotations

from collections.abc import Container

_LONG = "cond_stage_model.transformer.text_model."
_SHORT = "cond_stage_model.transformer."


def stored_name(keys: Container[str], key: str) -> str | None:
    """How a file spells a key, or None where it does not have it.

    Old SD1 files (NAI among them) leave out `text_model.` in the text encoder's keys;
    transformers 5 does so again.

    Args:
        keys: The file's keys.
        key: As another file spells it.
    """
    if key in keys:
        return key
    if key.startswith(_LONG):
        other = _SHORT + key[len(_LONG) :]
    elif key.startswith(_SHORT):
        other = _LONG + key[len(_SHORT) :]
    else:
        return None
    return other if other in keys else None
