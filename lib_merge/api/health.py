"""Health: the self-check of the Help page, for programs."""

from __future__ import annotations

from dataclasses import asdict

from lib_merge.api._call import Answer, Call, Endpoint, Json


def _health(call: Call) -> Answer:
    from lib_merge.ui.selfcheck import look_at

    found = look_at(call.workspace)
    return Json({**asdict(found), "versions": dict(found.versions)})


ENDPOINTS = (
    Endpoint(
        "GET",
        "/health",
        "health",
        "Host, versions, device, the loaded model, and what works or is refused",
        _health,
        answer="Health",
    ),
)
