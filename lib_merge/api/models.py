"""Models and merge methods: what there is to merge, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_merge.api._call import Answer, Call, Endpoint, Json, Refusal
from lib_merge.core.describe import describe_method
from lib_merge.core.ports import CheckpointEntry
from lib_merge.errors import UnknownIdError
from lib_merge.methods import methods
from lib_merge.ui.form import titles_of


def _list(call: Call) -> Answer:
    host = call.workspace.host
    loaded = host.loader.loaded()
    entries = titles_of(host.catalog.checkpoints())
    return Json([_model(title, entry, loaded) for title, entry in entries.items()])


def _model(title: str, entry: CheckpointEntry, loaded: Path | None) -> dict[str, Any]:
    return {
        "title": title,
        "file": entry.path.name,
        "path": str(entry.path),
        "sha256": entry.sha256,
        "is_loaded": loaded is not None and loaded == entry.path.resolve(),
    }


def _refresh(call: Call) -> Answer:
    call.workspace.host.catalog.refresh()
    call.workspace.note_new_file()
    return _list(call)


def _methods(call: Call) -> Answer:
    del call
    return Json([describe_method(method) for method in methods()])


def _method(call: Call) -> Answer:
    try:
        return Json(describe_method(methods().get(call.path["id"])))
    except UnknownIdError as fault:
        raise Refusal(404, str(fault)) from fault


ENDPOINTS = (
    Endpoint(
        "GET",
        "/models",
        "list_models",
        "Every checkpoint of the host",
        _list,
        answer="Model",
        is_list=True,
    ),
    Endpoint(
        "POST",
        "/models/refresh",
        "refresh_models",
        "Look at the disk again and list every checkpoint",
        _refresh,
        answer="Model",
        is_list=True,
    ),
    Endpoint(
        "GET",
        "/methods",
        "list_methods",
        "Every merge method with its parameters and their limits",
        _methods,
        answer="Method",
        is_list=True,
    ),
    Endpoint(
        "GET", "/methods/{id}", "show_method", "One method", _method, answer="Method"
    ),
)
