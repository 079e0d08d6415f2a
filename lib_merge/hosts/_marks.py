"""Knowing whether a loaded model still holds what was written into it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

_ATTRIBUTE = "_mergelab_mark"
_numbers = itertools.count(1)


class Mark:
    """Sits on a host's model object; a new object, a new mark.

    A1111 loads another checkpoint into the same modules, and a VAE chosen by the user
    too: both go through `load_state_dict`, whose hooks count here.

    Attributes:
        number: Never used twice in this process, unlike a memory address.
        loads: How many times weights were loaded since the mark was set.
        is_edited: Whether something was written since the last load.
        file: Name, size and time of the file that we last had loaded into it.
    """

    def __init__(self) -> None:
        self.number = next(_numbers)
        self.loads = 0
        self.is_edited = False
        self.file: tuple[str, int, int] | None = None

    def note_part(self, module: Any, incompatible_keys: Any) -> None:
        """Count a load of a part; the signature is that of a load_state_dict hook."""
        self.loads += 1

    def note_whole(self, module: Any, incompatible_keys: Any) -> None:
        """Count a load of the whole: nothing that was written is left."""
        self.loads += 1
        self.is_edited = False

    @property
    def stamp(self) -> tuple[int, int]:
        """Equal as long as nobody loaded weights into the model."""
        return (self.number, self.loads)


def mark_of(model: Any, whole: Any = None, parts: Iterable[Any] = ()) -> Mark:
    """The mark of a model object, set now if it has none.

    Args:
        model: The host's model object.
        whole: A module of it that is only ever loaded together with all others.
        parts: Modules of it that may be loaded alone (a VAE that the user chose).
    """
    found = getattr(model, _ATTRIBUTE, None)
    if isinstance(found, Mark):
        return found
    mark = Mark()
    setattr(model, _ATTRIBUTE, mark)
    if whole is not None:
        whole.register_load_state_dict_post_hook(mark.note_whole)
    for part in parts:
        part.register_load_state_dict_post_hook(mark.note_part)
    return mark


def is_edited(model: Any) -> bool:
    """Whether a model object holds written weights."""
    found = getattr(model, _ATTRIBUTE, None)
    return isinstance(found, Mark) and found.is_edited
