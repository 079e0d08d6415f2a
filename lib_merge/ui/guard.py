"""Runs a button's short action and says in words what went wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from lib_merge.errors import MergeError, RecipeError
from lib_merge.ui import markup
from lib_merge.ui.jobs import describe_bug

_log = logging.getLogger(__name__)


def guarded(action: Callable[[], Any]) -> str:
    """Do something short.

    Args:
        action: What the button does.

    Returns:
        "" when it went well, else the problems as HTML.
    """
    try:
        action()
    except MergeError as fault:
        return markup.errors(problems_of(fault))
    except Exception as fault:
        # A WebUI callback: a traceback in a pop-up would help nobody.
        _log.exception("a button of the MergeLab tab failed")
        return markup.errors([describe_bug(fault)])
    return ""


def problems_of(fault: MergeError) -> tuple[str, ...]:
    """Every sentence of an error."""
    if isinstance(fault, RecipeError):
        return fault.problems
    return tuple(str(fault).splitlines()) or (type(fault).__name__,)
