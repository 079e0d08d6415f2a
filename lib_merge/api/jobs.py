"""Jobs: what runs in the background, its progress, and stopping it."""

from __future__ import annotations

from typing import Any

from lib_merge.api._call import Answer, Call, Endpoint, Events, Json, Look, Refusal
from lib_merge.api._fields import Field, Kind
from lib_merge.errors import BusyError
from lib_merge.ui.jobs import Job


def job_json(slot: str, job: Job) -> dict[str, Any]:
    """A job as an answer.

    Args:
        slot: The place that it runs in; see `Workspace.job_slots`.
        job: The job.
    """
    view = job.view()
    return {
        "id": f"{slot}-{view.number}",
        "title": view.title,
        "state": view.state.value,
        "is_active": view.state.is_active,
        "label": view.label,
        "fraction": view.fraction,
        "rate": view.rate,
        "unit": view.unit,
        "eta_s": view.eta_s,
        "seconds": round(view.seconds, 3),
        "message": view.message,
        "result": dict(view.facts),
    }


def started(call: Call) -> Json:
    """The answer of a request that has started a merge."""
    job = call.workspace.merging.job
    assert job is not None
    return Json(job_json("merge", job), status=202)


def _list(call: Call) -> Answer:
    found = [
        (slot, job)
        for slot, jobs in call.workspace.job_slots().items()
        for job in jobs.recent
        if job.is_active or not call.values["is_active"]
    ]
    found.sort(key=lambda pair: (not pair[1].is_active, pair[1].view().seconds))
    return Json([job_json(slot, job) for slot, job in found])


def _find(call: Call) -> tuple[str, Job]:
    wanted = call.path["id"]
    slot, _, number = wanted.rpartition("-")
    slots = call.workspace.job_slots()
    if slot in slots:
        for job in slots[slot].recent:
            if str(job.number) == number:
                return slot, job
    raise Refusal(
        404, f"There is no job '{wanted:.60}', or it is long past; see the list."
    )


def _show(call: Call) -> Answer:
    return Json(job_json(*_find(call)))


def _events(call: Call) -> Answer:
    slot, job = _find(call)

    def look() -> Look:
        data = job_json(slot, job)
        return Look("job", data, is_last=not data["is_active"])

    return Events(look)


def _cancel(call: Call) -> Answer:
    slot, job = _find(call)
    if not job.is_active:
        raise BusyError(f"'{job.title}' has ended already; nothing can be stopped.")
    job.cancel()
    return Json(job_json(slot, job))


ENDPOINTS = (
    Endpoint(
        "GET",
        "/jobs",
        "list_jobs",
        "The last jobs of every kind, the running ones first",
        _list,
        answer="Job",
        is_list=True,
        query=(Field("is_active", Kind.FLAG, "only those at work", default=False),),
    ),
    Endpoint("GET", "/jobs/{id}", "show_job", "One job", _show, answer="Job"),
    Endpoint(
        "GET",
        "/jobs/{id}/events",
        "watch_job",
        "Server-sent events of one job until it ends; each holds the job",
        _events,
        media_type="text/event-stream",
    ),
    Endpoint(
        "POST",
        "/jobs/{id}/cancel",
        "cancel_job",
        "Ask a job to stop; nothing partial is left",
        _cancel,
        answer="Job",
        errors=(409,),
    ),
)
