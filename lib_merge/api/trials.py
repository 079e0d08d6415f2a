"""Trials of a study: scores, pictures, recipes, and merges of them."""

from __future__ import annotations

from pathlib import Path

from lib_merge.api._call import Answer, Call, Endpoint, File, Json, Refusal
from lib_merge.api._fields import Field, Kind
from lib_merge.api._paths import checked_recipe
from lib_merge.api._study_json import snapshot_of, study_in, trial_json
from lib_merge.api.jobs import started
from lib_merge.api.merge import FILE, save
from lib_merge.autombw.records import TrialRecord
from lib_merge.core.recipe import Recipe
from lib_merge.errors import StudyError
from lib_merge.ui.study_choices import LOAD_TRIAL, SAVE_TRIAL

TRIAL = Field("trial", Kind.WHOLE, "its number; by default the winner or the best")


def _list(call: Call) -> Answer:
    records = study_in(call).records()
    after = call.values["after"]
    return Json([trial_json(one) for one in records if one.number > after])


def _record(call: Call) -> TrialRecord:
    wanted = call.path["number"]
    for record in study_in(call).records():
        if str(record.number) == wanted:
            return record
    raise Refusal(404, f"There is no finished trial '{wanted:.20}'; see the list.")


def _show(call: Call) -> Answer:
    return Json(trial_json(_record(call)))


def _image(call: Call) -> Answer:
    study, record = study_in(call), _record(call)
    wanted = call.path["file"]
    names = [image.file for image in record.images]
    # Only what the record names: no other path can be spelled.
    path = study.trial_dir(record.number) / wanted
    if wanted not in names or not path.is_file():
        raise Refusal(404, f"Trial {record.number} has no picture '{wanted:.80}'.")
    return File(path, "image/png")


def _last_picture(call: Call) -> Answer:
    study = study_in(call)
    text = snapshot_of(call, study).last_image
    path = Path(text)
    is_ours = text and path.resolve().is_relative_to(study.folder.resolve())
    if not is_ours or not path.is_file():
        raise Refusal(404, f"Study '{study.settings.name}' has no picture yet.")
    return File(path, "image/png")


def _recipe_of(call: Call) -> Recipe:
    study = study_in(call)
    number = call.values["trial"]
    try:
        return call.workspace.studies.recipe(study.settings.name, number)
    except StudyError as fault:
        raise Refusal(404, str(fault)) from fault


def _recipe(call: Call) -> Answer:
    return Json(_recipe_of(call).to_json())


def _load(call: Call) -> Answer:
    recipe = checked_recipe(_recipe_of(call), call)
    call.workspace.load(recipe, title=LOAD_TRIAL)
    return started(call)


def _save(call: Call) -> Answer:
    save(checked_recipe(_recipe_of(call), call), call, title=SAVE_TRIAL)
    return started(call)


ENDPOINTS = (
    Endpoint(
        "GET",
        "/studies/{name}/trials",
        "list_trials",
        "Finished trials with scores and pictures",
        _list,
        answer="Trial",
        is_list=True,
        query=(Field("after", Kind.WHOLE, "only later ones", default=-1),),
    ),
    Endpoint(
        "GET",
        "/studies/{name}/trials/{number}",
        "show_trial",
        "One trial",
        _show,
        answer="Trial",
    ),
    Endpoint(
        "GET",
        "/studies/{name}/trials/{number}/images/{file}",
        "show_image",
        "A picture of a trial",
        _image,
        media_type="image/png",
    ),
    Endpoint(
        "GET",
        "/studies/{name}/picture",
        "show_last_picture",
        "The last picture of a study",
        _last_picture,
        media_type="image/png",
    ),
    Endpoint(
        "GET",
        "/studies/{name}/recipe",
        "show_trial_recipe",
        "The recipe of a trial",
        _recipe,
        answer="Object",
        query=(TRIAL,),
    ),
    Endpoint(
        "POST",
        "/studies/{name}/load",
        "load_trial",
        "Merge a trial into the loaded model",
        _load,
        answer="Job",
        body=(TRIAL,),
        status=202,
        errors=(409,),
    ),
    Endpoint(
        "POST",
        "/studies/{name}/save",
        "save_trial",
        "Merge a trial into a checkpoint in the host's output folder",
        _save,
        answer="Job",
        body=(TRIAL, *FILE),
        status=202,
        errors=(409,),
    ),
)
