"""Studies, trials and pictures as answers."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lib_merge.api._call import Call, Refusal
from lib_merge.autombw import snapshot as states
from lib_merge.ui.study_view import from_disk

if TYPE_CHECKING:
    from lib_merge.autombw.records import ImageScore, TrialRecord
    from lib_merge.autombw.snapshot import Snapshot
    from lib_merge.autombw.study import Study

_WORKING = (
    states.STARTING,
    states.RUNNING,
    states.HELD_OUT,
    states.SAVING,
    states.PAUSED,
)
"""States of a study that somebody is at work on."""

_TOLD = (
    "name",
    "state",
    "trial",
    "n_trials",
    "image",
    "n_images",
    "best_score",
    "best_trial",
    "best_label",
    "last_score",
    "eta_s",
    "n_failed",
    "n_workers",
    "message",
)
"""Fields of a snapshot that are told as they are."""


def study_in(call: Call) -> Study:
    """The study that a path names, by its name or its folder's.

    Raises:
        Refusal: There is none; no other folder is looked at.
    """
    desk = call.workspace.studies
    wanted = call.path["name"]
    for name in desk.names():
        study = desk.study(name)
        if wanted in (name, study.folder.name):
            return study
    raise Refusal(404, f"There is no study '{wanted:.80}'; see the list.")


def snapshot_of(call: Call, study: Study) -> Snapshot:
    """What a study is doing, whoever runs it."""
    desk = call.workspace.studies
    if desk.is_current(study.settings.name):
        return desk.snapshot()
    return from_disk(study)


def study_json(call: Call, study: Study) -> dict[str, Any]:
    """A study at this moment."""
    desk = call.workspace.studies
    name = study.settings.name
    is_ours = desk.is_current(name)
    now = snapshot_of(call, study)
    return {
        **{field: getattr(now, field) for field in _TOLD},
        "is_active": is_ours and desk.is_running,
        "baselines": dict(now.baselines),
        "failure": desk.failure() if is_ours else "",
        "has_report": study.report_path.is_file(),
    }


def has_ended(call: Call, study: Study, data: dict[str, Any]) -> bool:
    """Whether nothing of a study will change any more."""
    if call.workspace.studies.is_current(study.settings.name):
        return not data["is_active"]
    return data["state"] not in _WORKING


def trial_json(record: TrialRecord) -> dict[str, Any]:
    """A trial with its pictures."""
    told = ("number", "slot", "label", "state", "score", "diversity", "seconds")
    return {
        **{name: getattr(record, name) for name in told},
        "reason": record.reason,
        "point": dict(record.point),
        "images": [_image_json(image) for image in record.images],
    }


def _image_json(image: ImageScore) -> dict[str, Any]:
    return asdict(image)
