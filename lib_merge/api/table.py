"""The table of routes: every resource's own, one after the other."""

from __future__ import annotations

from lib_merge.api import health, jobs, merge, models, recipes, studies, trials
from lib_merge.api._call import Answer, Call, Endpoint, Json
from lib_merge.api.openapi import describe

PREFIX = "/mergelab/v1"
"""What every path begins with; the number changes when answers lose their meaning."""


def _openapi(call: Call) -> Answer:
    del call
    return Json(describe(ENDPOINTS, PREFIX))


ENDPOINTS: tuple[Endpoint, ...] = (
    *health.ENDPOINTS,
    *models.ENDPOINTS,
    *merge.ENDPOINTS,
    *recipes.ENDPOINTS,
    *studies.ENDPOINTS,
    *trials.ENDPOINTS,
    *jobs.ENDPOINTS,
    Endpoint(
        "GET",
        "/openapi.json",
        "openapi",
        "This description",
        _openapi,
        answer="Object",
    ),
)
