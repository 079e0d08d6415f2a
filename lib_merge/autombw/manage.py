"""Managing studies: clone one, delete one, hold two against each other."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lib_merge.autombw._files import folder_name
from lib_merge.autombw.intervals import Interval, paired_interval, paired_scores
from lib_merge.autombw.leaderboard import ranked, whole
from lib_merge.autombw.settings import StudySettings, shots
from lib_merge.autombw.space import StartPoint
from lib_merge.autombw.study import Study, create_study
from lib_merge.errors import StudyError


def clone_study(
    data_dir: Path,
    study: Study,
    name: str,
    *,
    start: Mapping[str, float] | None = None,
    label: str = "",
) -> Study:
    """A new study with the settings of another; nothing is rendered yet.

    Args:
        data_dir: Under its studies folder.
        study: What is cloned.
        name: The new one's name.
        start: A point of it to score first: to continue from there.
        label: What that point is called in tables.

    Raises:
        StudyError: A study of this name exists, or it was imported and has nothing to
            render.
    """
    check_own(study.settings, "cloned")
    starts = study.settings.starts
    if start is not None:
        starts = (StartPoint(label or "start", study.settings.space.clamp(start)),)
    checkpoint = study.settings.checkpoint
    if checkpoint is not None:
        old = Path(checkpoint)
        checkpoint = str(old.with_name(folder_name(name) + old.suffix))
    settings = replace(study.settings, name=name, starts=starts, checkpoint=checkpoint)
    return create_study(data_dir, settings)


def check_own(settings: StudySettings, verb: str) -> None:
    """Raise unless a study has something to render.

    Raises:
        StudyError: It was imported.
    """
    if settings.origin and not settings.payloads:
        raise StudyError(
            f"Study '{settings.name}' was imported from {settings.origin} and has no "
            f"payloads, so it cannot be {verb}; start a new study from one of its "
            "trials instead."
        )


def delete_study(study: Study) -> None:
    """Delete a study's folder with all its pictures.

    What a shared storage keeps of it stays there, for other machines.

    Raises:
        StudyError: It is running.
    """
    if study.is_running():
        raise StudyError(
            f"Study '{study.settings.name}' is running; stop it before you delete it."
        )
    # Renamed first: what is half deleted must not look like a study.
    doomed = study.folder.with_name(f".deleted-{secrets.token_hex(4)}")
    try:
        study.folder.rename(doomed)
    except OSError as fault:
        raise StudyError(
            f"{study.folder} cannot be deleted: {fault.strerror}; close what has its "
            "files open."
        ) from fault
    shutil.rmtree(doomed, ignore_errors=True)


@dataclass(frozen=True)
class Side:
    """One of two studies.

    Attributes:
        name: Its name.
        n_whole: Trials scored whole.
        n_images: Pictures rendered in the search.
        hours: Working time.
        best: The best score in the search, or None.
        held_out: The winner's score on unseen seeds, or None.
        models: File names.
    """

    name: str
    n_whole: int
    n_images: int
    hours: float
    best: float | None
    held_out: float | None
    models: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Two studies beside each other.

    Attributes:
        sides: The two.
        settings: (setting, first's value, second's value) where they differ.
        winners: First's winner minus second's on the pictures that both rendered on
            unseen seeds; None where prompts, seeds or scoring differ.
        why_not: Why the winners cannot be compared, or "".
        points: (axis, first's value, second's value) of the best of both.
    """

    sides: tuple[Side, Side]
    settings: tuple[tuple[str, str, str], ...]
    winners: Interval | None
    why_not: str
    points: tuple[tuple[str, float, float], ...]


def compare_studies(first: Study, second: Study) -> Comparison:
    """What differs between two studies, and which winner is better."""
    one, two = first.settings.to_json(), second.settings.to_json()
    skipped = ("name", "format", "version", "checkpoint")
    differing = tuple(
        (key, _short(one[key]), _short(two[key]))
        for key in one
        if key not in skipped and one[key] != two[key]
    )
    winners, why_not = _winners(first, second)
    mine, theirs = _best_point(first), _best_point(second)
    shared = [name for name in mine if name in theirs]
    return Comparison(
        sides=(_side(first), _side(second)),
        settings=differing,
        winners=winners,
        why_not=why_not,
        points=tuple((name, mine[name], theirs[name]) for name in shared),
    )


def _side(study: Study) -> Side:
    records = study.records()
    result = study.result()
    best = next(iter(ranked(records)), None)
    return Side(
        name=study.settings.name,
        n_whole=len(whole(records)),
        n_images=sum(len(r.images) + len(r.screening) for r in records),
        hours=sum(r.seconds for r in records) / 3600,
        best=None if best is None else best.score,
        held_out=None if result is None else result.best.score,
        models=tuple(Path(model).name for model in study.settings.models),
    )


def _best_point(study: Study) -> Mapping[str, float]:
    result = study.result()
    best = next(iter(ranked(study.records())), None)
    if result is not None:
        return result.best.point
    return {} if best is None else best.point


def _winners(first: Study, second: Study) -> tuple[Interval | None, str]:
    one, two = first.result(), second.result()
    if one is None or two is None:
        return None, "Not both have scored their finalists on unseen seeds."
    if first.settings.judges != second.settings.judges:
        return None, "Their scorers differ."
    requests = [
        [shot.request for shot in shots(study.settings, is_held_out=True)]
        for study in (first, second)
    ]
    if requests[0] != requests[1]:
        return None, "Their pictures of unseen seeds differ in prompts or seeds."
    mine, theirs = paired_scores(one.best.images, two.best.images)
    if not mine:
        return None, "They share no picture of unseen seeds."
    return paired_interval(mine, theirs, first.settings.tally), ""


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
