"""Studies: start, pause, resume, stop and watch them; the tab shows the same ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from lib_merge.api._call import (
    Answer,
    Call,
    Endpoint,
    Events,
    File,
    Json,
    Look,
    Refusal,
)
from lib_merge.api._fields import Field, Kind
from lib_merge.api._study_form import (
    FIELDS,
    STORAGE,
    payload_files,
    settings_in,
    storage_in,
)
from lib_merge.api._study_json import has_ended, study_in, study_json
from lib_merge.api.jobs import started
from lib_merge.errors import BusyError
from lib_merge.ui.study_choices import CHECK, payload_choices

_LINE = ("name", "state", "n_complete", "n_trials", "best_score", "modified")


def _list(call: Call) -> Answer:
    found = [asdict(line) for line in call.workspace.studies.summaries()]
    return Json([{name: line[name] for name in _LINE} for line in found])


def _start(call: Call) -> Answer:
    settings = settings_in(call)
    desk = call.workspace.studies
    desk.start(settings, storage_in(call))
    return Json(study_json(call, desk.study(settings.name)), status=202)


def _check(call: Call) -> Answer:
    call.workspace.check_study(CHECK, settings_in(call))
    return started(call)


def _join(call: Call) -> Answer:
    desk = call.workspace.studies
    storage = storage_in(call)
    if not storage:
        raise Refusal(400, "'storage' is empty; give the address of the storage.")
    name = desk.join(storage, call.values["name"])
    return Json(study_json(call, desk.study(name)), status=202)


def _show(call: Call) -> Answer:
    return Json(study_json(call, study_in(call)))


def _settings(call: Call) -> Answer:
    return Json(study_in(call).settings.to_json())


def _events(call: Call) -> Answer:
    study = study_in(call)

    def look() -> Look:
        data = study_json(call, study)
        return Look("study", data, has_ended(call, study, data))

    return Events(look)


def _controlled(action: Callable[[Call], None]) -> Callable[[Call], Answer]:
    """A route that acts on the study which this program runs."""

    def run(call: Call) -> Answer:
        study = study_in(call)
        desk = call.workspace.studies
        name = study.settings.name
        if not (desk.is_running and desk.is_current(name)):
            raise BusyError(f"Study '{name}' is not running here.")
        action(call)
        return Json(study_json(call, study))

    return run


def _resume(call: Call) -> Answer:
    study = study_in(call)
    call.workspace.studies.resume(study.settings.name)
    return Json(study_json(call, study), status=202)


def _extend(call: Call) -> Answer:
    from lib_merge.autombw.study import extend_study

    extended = extend_study(study_in(call), call.values["n_trials"])
    return Json(study_json(call, extended))


def _delete(call: Call) -> Answer:
    from lib_merge.autombw.manage import delete_study

    study = study_in(call)
    delete_study(study)
    call.workspace.studies.forget(study.settings.name)
    return Json({"name": study.settings.name})


def _result(call: Call) -> Answer:
    study = study_in(call)
    found = study.result()
    if found is None:
        raise Refusal(404, f"Study '{study.settings.name}' has no result yet.")
    return Json(asdict(found))


def _report(call: Call) -> Answer:
    path = study_in(call).report_path
    if not path.is_file():
        raise Refusal(404, "There is no report yet; POST to this address writes one.")
    return File(path, "text/html; charset=utf-8")


def _write_report(call: Call) -> Answer:
    from lib_merge.autombw.report import write_report

    return Json({"path": str(write_report(study_in(call).folder))}, status=201)


def _payloads(call: Call) -> Answer:
    shown = payload_choices(call.workspace.studies.payload_dir())
    titles = {path: title for title, path in shown.items()}
    return Json(
        [
            {"name": name, "title": titles[path]}
            for name, path in payload_files(call).items()
        ]
    )


def _scorers(call: Call) -> Answer:
    from lib_merge.autombw.scorers import scorers

    del call
    return Json([_scorer(scorer) for scorer in scorers()])


def _scorer(scorer: Any) -> dict[str, Any]:
    reason = scorer.unavailable_reason()
    return {
        "id": scorer.id,
        "label": scorer.label,
        "is_available": reason is None,
        "reason": reason or "",
    }


ENDPOINTS = (
    Endpoint(
        "GET",
        "/payloads",
        "list_payloads",
        "Payload files that studies can name",
        _payloads,
        answer="Payload",
        is_list=True,
    ),
    Endpoint(
        "GET",
        "/scorers",
        "list_scorers",
        "Who can judge pictures here, and what the others lack",
        _scorers,
        answer="Scorer",
        is_list=True,
    ),
    Endpoint(
        "GET",
        "/studies",
        "list_studies",
        "Every study, the last changed first",
        _list,
        answer="StudyLine",
        is_list=True,
    ),
    Endpoint(
        "POST",
        "/studies",
        "start_study",
        "Create a study and run it in the background",
        _start,
        answer="Study",
        body=(*FIELDS, STORAGE),
        status=202,
        errors=(404, 409),
    ),
    Endpoint(
        "POST",
        "/studies/check",
        "check_study",
        "Check a study and time one picture; nothing of it is kept",
        _check,
        answer="Job",
        body=FIELDS,
        status=202,
        errors=(404, 409),
    ),
    Endpoint(
        "POST",
        "/studies/join",
        "join_study",
        "Work on a study in a storage that other machines reach",
        _join,
        answer="Study",
        body=(
            STORAGE,
            Field("name", Kind.TEXT, "its name, where there are several", default=""),
        ),
        status=202,
        errors=(409,),
    ),
    Endpoint("GET", "/studies/{name}", "show_study", "One study", _show, "Study"),
    Endpoint(
        "DELETE",
        "/studies/{name}",
        "delete_study",
        "Delete a study with all its pictures",
        _delete,
        answer="Deleted",
        errors=(409,),
    ),
    Endpoint(
        "GET",
        "/studies/{name}/settings",
        "show_settings",
        "All that a study was told",
        _settings,
        answer="Object",
    ),
    Endpoint(
        "GET",
        "/studies/{name}/events",
        "watch_study",
        "Server-sent events of a study until it ends; each holds the study",
        _events,
        media_type="text/event-stream",
    ),
    Endpoint(
        "POST",
        "/studies/{name}/pause",
        "pause_study",
        "Wait after the picture that is being rendered; the model is given back",
        _controlled(lambda call: call.workspace.studies.pause()),
        answer="Study",
        errors=(409,),
    ),
    Endpoint(
        "POST",
        "/studies/{name}/resume",
        "resume_study",
        "Go on with a study that waits or was stopped",
        _resume,
        answer="Study",
        status=202,
        errors=(409,),
    ),
    Endpoint(
        "POST",
        "/studies/{name}/stop",
        "stop_study",
        "Stop after the picture that is being rendered; everything is kept",
        _controlled(lambda call: call.workspace.studies.stop()),
        answer="Study",
        errors=(409,),
    ),
    Endpoint(
        "POST",
        "/studies/{name}/extend",
        "extend_study",
        "Raise the number of trials",
        _extend,
        answer="Study",
        body=(Field("n_trials", Kind.WHOLE, "in all", is_required=True, low=1),),
        errors=(409,),
    ),
    Endpoint(
        "GET",
        "/studies/{name}/result",
        "show_result",
        "Finalists, parents and the middle on unseen seeds",
        _result,
        answer="Object",
    ),
    Endpoint(
        "GET",
        "/studies/{name}/report",
        "show_report",
        "The report as a page",
        _report,
        media_type="text/html",
    ),
    Endpoint(
        "POST",
        "/studies/{name}/report",
        "write_report",
        "Write the report of what is there by now",
        _write_report,
        answer="Kept",
        status=201,
        errors=(409,),
    ),
)
