"""What a study request holds, and the settings that it stands for."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.api._call import Call, Refusal
from lib_merge.api._fields import Field, Kind
from lib_merge.api._merge_form import COMPUTE, SAVE, model_titles
from lib_merge.api._paths import input_roots, is_inside
from lib_merge.errors import InputError
from lib_merge.ui import study_choices as offers
from lib_merge.ui.form import architecture_of, titles_of
from lib_merge.ui.study_form import StudyForm, settings_of
from lib_merge.ui.study_space import groups_of

if TYPE_CHECKING:
    from lib_merge.autombw.settings import StudySettings

_TIES = {rule or "none": label for label, rule in offers.TIES.items()}
_RUNGS = {rung.name: label for label, rung in offers.RUNGS.items()}
_PAYLOADS = "names of the list, or whole payloads as objects"

FIELDS = (
    Field("name", Kind.TEXT, "names the study; by default the time"),
    Field("method", Kind.TEXT, "a method's id", default="weighted_sum"),
    Field("models", Kind.TEXTS, "titles or files of the list", is_required=True),
    Field("payloads", Kind.MIXED, _PAYLOADS, is_required=True),
    Field("held_out_payloads", Kind.MIXED, f"for the finalists only: {_PAYLOADS}"),
    Field("held_out_share", Kind.NUMBER, "share kept for the finalists", default=0.0),
    Field("n_trials", Kind.WHOLE, "points to try at most", default=80, low=1),
    Field("n_seeds", Kind.WHOLE, "passes over the payloads", default=1, low=1),
    Field("seed", Kind.WHOLE, "of the sampler and of random seeds", default=0),
    Field(
        "sampler",
        Kind.TEXT,
        "how points are chosen",
        default="gp",
        choices=tuple(offers.SAMPLERS.values()),
    ),
    Field("scorers", Kind.TEXTS, "the scorers' ids", default=["image_reward"]),
    Field("judge_lines", Kind.TEXT, "weights and options, as in the tab", default=""),
    Field("tally", Kind.TEXT, "how scores become one", default="arithmetic"),
    Field(
        "normalise",
        Kind.TEXT,
        "how raw values become scores",
        default=offers.AUTOMATIC,
        choices=tuple(offers.NORMALISATIONS.values()),
    ),
    Field(
        "memory",
        Kind.TEXT,
        "where scorers are while pictures are rendered",
        default="auto",
        choices=tuple(offers.MEMORY.values()),
    ),
    Field(
        "groups",
        Kind.TEXTS,
        "groups of blocks that are searched; by default all",
        choices=offers.GROUPS,
    ),
    Field(
        "ties",
        Kind.TEXT,
        "which blocks share a value",
        default="none",
        choices=tuple(_TIES),
    ),
    Field("space", Kind.TEXT, "what else is searched, as in the tab", default=""),
    Field(
        "shapes",
        Kind.TEXTS,
        "usual curves that are tried first",
        default=[],
        choices=tuple(offers.SHAPES_TITLES.values()),
    ),
    Field("start_text", Kind.TEXT, "a vector to start from", default=""),
    Field("start_order", Kind.TEXT, "the order of its numbers"),
    Field("start_study", Kind.TEXT, "a study whose trial is tried first", default=""),
    Field("start_trial", Kind.WHOLE, "that trial; by default its best"),
    Field("is_pruned", Kind.FLAG, "hopeless trials are given up", default=True),
    Field("p_threshold", Kind.NUMBER, "how sure that must be", default=0.1),
    Field("n_first", Kind.WHOLE, "pictures before it is judged", default=4, low=1),
    Field(
        "rungs",
        Kind.TEXTS,
        "cheap ways to render that screen trials",
        default=[],
        choices=tuple(_RUNGS),
    ),
    Field(
        "diversity",
        Kind.TEXT,
        "what diversity is used for",
        default="off",
        choices=tuple(offers.DIVERSITY.values()),
    ),
    Field("diversity_keep", Kind.NUMBER, "share that must be kept", default=0.9),
    Field("hours", Kind.NUMBER, "working time at most; 0 for any", default=0.0, low=0),
    Field(
        "n_without_gain",
        Kind.WHOLE,
        "trials without a gain that end it; 0 for none",
        default=27,
        low=0,
    ),
    Field("target", Kind.NUMBER, "a score that is enough"),
    Field("max_failures", Kind.WHOLE, "failures that stop it", default=5, low=1),
    Field("n_held_out", Kind.WHOLE, "passes on unseen seeds", default=2, low=1),
    Field("n_finalists", Kind.WHOLE, "trials scored on them", default=5, low=1),
    Field(
        "precision",
        Kind.TEXT,
        "what merges compute in",
        default="float32",
        choices=COMPUTE,
    ),
    Field(
        "save_dtype",
        Kind.TEXT,
        "what merged tensors are rounded to",
        default="float16",
        choices=SAVE,
    ),
    Field("is_saved", Kind.FLAG, "save the winner as a checkpoint", default=False),
)
"""What a request for a study takes: the fields of the tab's own form."""

STORAGE = Field(
    "storage", Kind.TEXT, "an address that other machines reach; as in the tab"
)


def settings_in(call: Call) -> StudySettings:
    """The settings of a request; all its files lie in the host's folders.

    Raises:
        Refusal: A model or a scorer's file lies elsewhere.
        RecipeError: Every problem of the request at once.
        MergeError: A model or a payload cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_of(
            _form(call, Path(folder)),
            call.workspace.host,
            find_study=call.workspace.studies.study,
        )
    roots = (*input_roots(call), call.workspace.host.catalog.data_dir())
    for judge in settings.judges:
        named = [judge.weights_file or "", *(value for _, value in judge.options)]
        for text in filter(_is_path, named):
            if not is_inside(Path(text), roots):
                raise Refusal(
                    403,
                    f"The scorer {judge.id} is given '{text:.200}', which lies outside "
                    "the host's folders; put it there, or set it in the tab.",
                )
    return settings


def _is_path(text: str) -> bool:
    is_address = "://" in text
    return not is_address and ("/" in text or "\\" in text)


def _form(call: Call, folder: Path) -> StudyForm:
    values = dict(call.values)
    known = {field.name for field in fields(StudyForm)}
    titles = model_titles(call, values["models"])
    own = {
        "name": values["name"] or time.strftime("study-%Y%m%d-%H%M%S"),
        "models": titles,
        "payloads": payloads_in(call, values["payloads"], folder),
        "held_out_payloads": payloads_in(
            call, values["held_out_payloads"] or [], folder / "held_out"
        ),
        "groups": tuple(values["groups"] or _groups(call, titles)),
        "ties": _TIES[values["ties"]],
        "rungs": tuple(_RUNGS[name] for name in values["rungs"]),
        "scorers": tuple(values["scorers"]),
        "shapes": tuple(values["shapes"]),
    }
    start = values["start_study"]
    if start and start not in call.workspace.studies.names():
        raise Refusal(404, f"There is no study '{start:.80}' to start from.")
    return StudyForm(
        **{name: value for name, value in (values | own).items() if name in known}
    )


def _groups(call: Call, titles: Sequence[str]) -> Sequence[str]:
    entries = titles_of(call.workspace.host.catalog.checkpoints())
    if not titles or titles[0] not in entries:
        return offers.GROUPS
    return groups_of(architecture_of(entries[titles[0]].path))


def payloads_in(
    call: Call, given: Sequence[str | dict[str, Any]], folder: Path
) -> tuple[Path, ...]:
    """Files of the payloads of a request.

    Args:
        call: The request.
        given: Names of the list, or whole payloads.
        folder: Where whole payloads are written for reading.

    Raises:
        Refusal: There is none of a name.
    """
    known = payload_files(call)
    found = []
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(given, 1):
        if isinstance(one, dict):
            path = folder / f"payload-{number}.json"
            path.write_text(json.dumps(one), encoding="utf-8")
        elif one in known:
            path = known[one]
        else:
            names = ", ".join(known) or "none"
            raise Refusal(400, f"There is no payload '{one:.80}'; known: {names}.")
        found.append(path)
    return tuple(found)


def payload_files(call: Call) -> dict[str, Path]:
    """Payload files and folders of the tab's list, by name."""
    found = offers.payload_choices(call.workspace.studies.payload_dir())
    return {path.name: path for path in found.values()}


def storage_in(call: Call) -> str:
    """The storage of a request, "" for none.

    Raises:
        Refusal: It is a file outside the host's data folder.
        InputError: It is no address of a storage.
    """
    from lib_merge.autombw.storage import StoragePlace

    text = (call.values["storage"] or "").strip()
    if not text:
        return ""
    place = StoragePlace.parse(text)
    path = place.journal_path
    kind, _, rest = place.url.partition(":")
    if kind.partition("+")[0] == "sqlite":
        path = Path(rest.removeprefix("///").partition("?")[0])
    folder = call.workspace.host.catalog.data_dir()
    if path is not None and not is_inside(path, [folder]):
        raise Refusal(
            403, f"The storage {path} lies outside {folder}; name a file inside it."
        )
    if path is not None and not path.name:
        raise InputError(f"The storage '{place.shown}' names no file.")
    return text
