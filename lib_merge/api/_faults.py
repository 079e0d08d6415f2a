"""Which status an error is answered with, and how its sentences are sent."""

from __future__ import annotations

from typing import Any

from lib_merge.api._call import Refusal
from lib_merge.errors import (
    BusyError,
    Cancelled,
    HostError,
    InputError,
    MergeError,
    OutputError,
    RecipeError,
    ResourceError,
    StudyError,
)

WORDS = {
    400: "bad_request",
    401: "login_required",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
    500: "internal_error",
}
"""Permanent names of the statuses."""

_CONFLICTS = (BusyError, OutputError, StudyError, HostError, ResourceError, Cancelled)


def status_of(fault: MergeError) -> int:
    """The status of HTTP that an error of ours is.

    What the request holds is 400; what the host's or a study's state forbids is 409.
    """
    if isinstance(fault, Refusal):
        return fault.status
    if isinstance(fault, _CONFLICTS):
        return 409
    return 400 if isinstance(fault, InputError) else 409


def problems_of(fault: MergeError) -> tuple[str, ...]:
    """Every sentence of an error."""
    if isinstance(fault, (RecipeError, Refusal)):
        return fault.problems
    return tuple(str(fault).splitlines()) or (type(fault).__name__,)


def fault_json(status: int, problems: tuple[str, ...]) -> dict[str, Any]:
    """The body of every answer that is an error."""
    return {"error": WORDS.get(status, "error"), "problems": list(problems)}
