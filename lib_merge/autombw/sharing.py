"""Sharing: studies whose storage is a database or file that several machines reach."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib_merge.autombw import _mirror as mirror
from lib_merge.autombw._files import folder_name, write_json
from lib_merge.autombw.crew import held_out_name
from lib_merge.autombw.ledger import Ledger
from lib_merge.autombw.search import import_optuna
from lib_merge.autombw.settings import StudySettings
from lib_merge.autombw.storage import StoragePlace, open_storage
from lib_merge.autombw.study import Study, create_study, open_study
from lib_merge.checkpoint.hashes import file_sha256
from lib_merge.errors import CheckpointError, StudyError

_log = logging.getLogger(__name__)

MODELS = "models"
"""What the models' hashes are stored as."""


def create_shared_study(
    data_dir: Path, settings: StudySettings, place: StoragePlace
) -> Study:
    """Make a study in a storage, and this machine's folder of it.

    The models are hashed, so that other machines search between the same ones.

    Raises:
        StudyError: A study of this name is in the folder or in the storage.
        DiskFullError: No room for the settings.
    """
    storage = open_storage(place)
    ledger = Ledger(place, storage, settings.name)
    if ledger.text(mirror.SETTINGS):
        raise StudyError(
            f"A study named '{settings.name}' is in {place.shown}; join it, or choose "
            "another name."
        )
    hashes = [file_sha256(model) for model in settings.models]
    study = create_study(data_dir, settings)
    _remember(study, place)
    ledger.set_text(MODELS, json.dumps(hashes))
    mirror.push(study, ledger, (mirror.SETTINGS,))
    return study


def _remember(study: Study, place: StoragePlace) -> None:
    """Note the storage in the study's folder; its owner's alone, for the password."""
    write_json(study.storage_path, {"url": place.url})
    if os.name != "nt":
        study.storage_path.chmod(0o600)


def shared_studies(place: StoragePlace) -> tuple[str, ...]:
    """Names of the studies in a storage.

    Raises:
        StudyError: It cannot be opened.
    """
    storage = open_storage(place)
    names = import_optuna().study.get_all_study_names(storage)
    return tuple(n for n in names if Ledger(place, storage, n).text(MODELS))


def join_shared_study(
    data_dir: Path,
    place: StoragePlace,
    name: str | None = None,
    *,
    folders: Sequence[Path] = (),
    weights: Path | None = None,
) -> Study:
    """This machine's folder of a study in a storage; made if it is not there.

    Args:
        data_dir: Where studies are kept.
        place: The storage.
        name: The study's name, or None for the only one there.
        folders: Where this machine keeps models, if not where the first one does.
        weights: The scorer's weights on this machine, if not where the first has them.

    Raises:
        StudyError: No such study, several of them, or the folder is another study's.
        CheckpointError: A model is not here, or is another file of the same name.
        DiskFullError: No room.
    """
    known = shared_studies(place)
    if name is None and len(known) == 1:
        name = known[0]
    if name is None or name not in known:
        listed = ", ".join(known) or "none"
        raise StudyError(
            f"{place.shown} holds {f'no study {name!r}' if name else 'several studies'}"
            f"; name one of: {listed}."
        )
    ledger = Ledger(place, open_storage(place), name)
    settings = _local_settings(ledger, folders, weights)
    folder = data_dir / "studies" / folder_name(name)
    if (folder / "settings.json").exists():
        study = open_study(folder)
        if not study.is_remote or study.place != place:
            raise StudyError(
                f"{folder} is another study named '{name}'; choose another --out."
            )
    else:
        study = create_study(data_dir, settings)
    write_json(folder / "settings.json", settings.to_json())
    _remember(study, place)
    return refresh_study(open_study(folder))


def _local_settings(
    ledger: Ledger, folders: Sequence[Path], weights: Path | None
) -> StudySettings:
    """The stored settings with this machine's paths."""
    data = json.loads(ledger.text(mirror.SETTINGS) or "null")
    settings = StudySettings.from_json(data, where="the storage")
    hashes = json.loads(ledger.text(MODELS) or "[]")
    models = tuple(
        str(_here(Path(model), sha256, folders))
        for model, sha256 in zip(settings.models, hashes, strict=True)
    )
    changes: dict[str, Any] = {"models": models}
    if weights is not None:
        changes["scorer_weights"] = str(weights.absolute())
    return replace(settings, **changes)


def _here(model: Path, sha256: str, folders: Sequence[Path]) -> Path:
    """Where this machine keeps a model.

    Raises:
        CheckpointError: Nowhere, or it is another file.
    """
    name = model.name.rpartition("\\")[2]
    found = [path for path in (model, *(f / name for f in folders)) if path.is_file()]
    for path in found:
        if file_sha256(path) == sha256:
            return path.absolute()
    if found:
        raise CheckpointError(
            f"{found[0]} is not the model that the study was started with (SHA-256 "
            f"{sha256[:10]}...); copy that one, or name its folder with --models."
        )
    raise CheckpointError(
        f"The study merges {name}, which is not on this machine; copy it, or name its "
        "folder with --models."
    )


def refresh_study(study: Study) -> Study:
    """Bring everything other machines found into the folder; the study as it is now.

    A study whose storage is its own folder is returned as it is.

    Raises:
        StudyError: The storage cannot be reached.
        DiskFullError: No room.
    """
    if not study.is_remote:
        return study
    place, name = study.place, study.settings.name
    storage = open_storage(place)
    search = Ledger(place, storage, name)
    finals = Ledger(place, storage, held_out_name(name))
    mirror.pull(study, search, finals)
    mirror.pull_records(study, search)
    data = json.loads(search.text(mirror.SETTINGS) or "null")
    n_trials = data.get("n_trials") if isinstance(data, dict) else None
    if n_trials not in (None, study.settings.n_trials):
        settings = replace(study.settings, n_trials=n_trials)
        write_json(study.folder / "settings.json", settings.to_json())
        return Study(study.folder, settings)
    return study
