"""Numbers of other programs' files, which may be anything."""

from __future__ import annotations

import math

from lib_merge.errors import RecipeError


def number(value: object, where: str) -> float:
    """A finite number, also one that is written as text.

    Args:
        value: What the file holds.
        where: For the message.

    Raises:
        RecipeError: It is none.
    """
    found = math.nan
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            found = float(value)
        except (ValueError, OverflowError):
            found = math.nan
    if not math.isfinite(found):
        raise RecipeError([f"{where}: {value!r:.60} is no number."])
    return found


def flag(value: object) -> bool:
    """A switch, however it is written; numbers above 0 are on."""
    if isinstance(value, str):
        return value.strip().lower() in ("true", "1", "on", "yes")
    return isinstance(value, (bool, int, float)) and value > 0
