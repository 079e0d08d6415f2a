"""Measuring one trial: cheap rungs, then full pictures, given up when hopeless."""

from __future__ import annotations

import gc
import logging
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lib_merge.autombw import diversity, fidelity, pruning
from lib_merge.autombw._files import is_disk_full
from lib_merge.autombw.history import Slot, is_control, shot_effects
from lib_merge.autombw.objective import Measured, Objective
from lib_merge.autombw.records import (
    COMPLETE,
    FAILED,
    PRUNED,
    ImageScore,
    TrialRecord,
)
from lib_merge.autombw.settings import Shot, StudySettings, shots
from lib_merge.autombw.tally import tally
from lib_merge.errors import Cancelled, DiskFullError, InputError, MergeError

_log = logging.getLogger(__name__)

MIN_FREE_BYTES = 16 << 20
"""Room on the disk below which no trial is begun."""


class Trial:
    """One attempt of the search: what it renders, and when it is given up.

    Args:
        draft: What is known before.
        settings: The study's settings.
        slots: The slots that are decided, in order.
        is_start: Whether the point was set beforehand: those are rendered whole.
    """

    def __init__(
        self,
        draft: TrialRecord,
        settings: StudySettings,
        slots: Sequence[Slot],
        *,
        is_start: bool,
    ) -> None:
        self._draft = draft
        self._settings = settings
        self._slots = slots
        self._is_start = is_start
        self._shots = shots(settings)
        self._plan = fidelity.decide(settings.fidelity, slots)

    @property
    def n_images(self) -> int:
        """Pictures that it renders at most."""
        return len(self._shots) * (1 + len(self._plan.rungs))

    def measure(self, objective: Objective, folder: Path) -> TrialRecord:
        """Render and score; what comes of it.

        Raises:
            Cancelled: The user stopped the study.
            MergeError: Whatever merging, rendering and scoring raise.
        """
        record = self._draft
        for rung in self._plan.rungs:
            record, score = self._on_rung(record, rung, objective, folder=folder)
            if not self._must_be_whole and not fidelity.goes_on(
                self._settings.fidelity, self._slots, rung, score
            ):
                estimate = fidelity.full_score(self._slots, rung.name, score)
                return replace(
                    record,
                    state=PRUNED,
                    rung=rung.name,
                    score=score if estimate is None else estimate,
                )
        return self._whole(record, objective, folder)

    @property
    def _must_be_whole(self) -> bool:
        return self._plan.is_whole or self._is_start

    def _on_rung(
        self,
        record: TrialRecord,
        rung: fidelity.Rung,
        objective: Objective,
        *,
        folder: Path,
    ) -> tuple[TrialRecord, float]:
        cheap = [
            replace(shot, request=fidelity.cheaper(shot.request, rung))
            for shot in self._shots
        ]
        measured = objective.measure(record.point, cheap, folder / rung.name)
        images = tuple(
            replace(image, file=f"{rung.name}/{image.file}")
            for image in measured.images
        )
        score = tally(self._settings.tally, [image.score for image in images])
        return (
            replace(
                record,
                screening=(*record.screening, *images),
                rungs={**record.rungs, rung.name: score},
                merge_seconds=record.merge_seconds + measured.merge_seconds,
            ),
            score,
        )

    def _whole(
        self, record: TrialRecord, objective: Objective, folder: Path
    ) -> TrialRecord:
        files = [shot.file for shot in self._shots]
        order = pruning.shot_order(files, self._slots)
        ordered = [self._shots[i] for i in order]
        measured = objective.measure(
            record.point,
            ordered,
            folder,
            go_on=self._go_on([shot.file for shot in ordered]),
        )
        images = tuple(sorted(measured.images, key=lambda i: files.index(i.file)))
        scores: Mapping[str, float] = {image.file: image.score for image in images}
        if not measured.is_whole:
            scores = shot_effects(self._slots).fill(scores)
        return replace(
            record,
            state=COMPLETE if measured.is_whole else PRUNED,
            score=tally(self._settings.tally, list(scores.values())),
            images=images,
            merge_seconds=record.merge_seconds + measured.merge_seconds,
            diversity=_diversity(measured) if measured.is_whole else None,
        )

    def _go_on(
        self, files: Sequence[str]
    ) -> Callable[[Sequence[ImageScore]], bool] | None:
        """Whether the rest is worth rendering; None where it must be in any case.

        Trials that show what a rung is worth, start points and controls are whole.
        """
        rules = self._settings.pruning
        is_calibrating = bool(self._plan.rungs) and self._plan.is_whole
        is_free = self._is_start or is_calibrating or is_control(self._draft.slot)
        # A low score says nothing of the other objective.
        is_free = is_free or self._settings.n_objectives > 1
        incumbent = pruning.incumbent_scores(files, self._slots)
        is_judged = rules.is_on and len(files) > rules.n_first and bool(incumbent)
        if not is_judged or is_free:
            return None

        def go_on(images: Sequence[ImageScore]) -> bool:
            mine = [image.score for image in images]
            return not pruning.should_stop(rules, mine, incumbent)

        return go_on


def _diversity(measured: Measured) -> float | None:
    groups: dict[str, list[tuple[float, ...]]] = {}
    for image, features in zip(measured.images, measured.features, strict=True):
        groups.setdefault(image.payload, []).append(features)
    return diversity.of(groups.values())


def measure(
    draft: TrialRecord,
    objective: Objective,
    wanted: tuple[Shot, ...],
    *,
    folder: Path,
    tally_id: str,
) -> TrialRecord:
    """Measure a point on given pictures, all of them."""

    def whole() -> TrialRecord:
        measured = objective.measure(draft.point, wanted, folder)
        return replace(
            draft,
            state=COMPLETE,
            score=tally(tally_id, [image.score for image in measured.images]),
            images=measured.images,
            merge_seconds=measured.merge_seconds,
            diversity=_diversity(measured),
        )

    return attempt(draft, whole, folder=folder)


def attempt(
    draft: TrialRecord, work: Callable[[], TrialRecord], *, folder: Path
) -> TrialRecord:
    """Do a trial's work; whatever fails but the disk becomes a failed record.

    Args:
        draft: What is known before.
        work: Measures it.
        folder: Where its pictures go.

    Raises:
        Cancelled: The user stopped it.
        InputError: The models or the recipe cannot be used (any more).
        DiskFullError: No room left.
    """
    started = time.monotonic()
    try:
        record = work()
    except (Cancelled, InputError):
        # A model file that is gone or a wrong recipe fails every other point too.
        raise
    except Exception as fault:
        if is_disk_full(fault):
            raise _disk_full(folder, fault) from fault
        _log.warning("Trial %04d failed: %s", draft.number, fault, exc_info=True)
        free_memory()
        record = replace(
            draft,
            state=FAILED,
            reason=_sentence(fault),
            traceback=traceback.format_exc(),
        )
    return replace(record, seconds=time.monotonic() - started, finished=time.time())


def _sentence(fault: Exception) -> str:
    if isinstance(fault, MergeError):
        return str(fault)
    return f"{type(fault).__name__}: {fault}"


def _disk_full(folder: Path, fault: Exception) -> DiskFullError:
    if isinstance(fault, DiskFullError):
        return fault
    return DiskFullError(
        f"The disk of {folder} is full. Nothing that was stored is lost; free some "
        "space and resume the study."
    )


def free_memory() -> None:
    """Give back what a failed attempt left on the device."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def check_room(folder: Path, records: Sequence[TrialRecord]) -> None:
    """Raise unless the disk surely takes one more trial.

    Args:
        folder: The study's folder.
        records: Its attempts; the last one's pictures tell how much is needed.

    Raises:
        DiskFullError: It does not.
    """
    last = folder / "trials" / f"{records[-1].number:04d}" if records else folder
    n_bytes = sum(path.stat().st_size for path in last.glob("*.png"))
    needed = MIN_FREE_BYTES + 2 * n_bytes
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFullError(
            f"The disk of {folder} has {free >> 20} MiB left, and the next trial wants "
            f"{(needed >> 20) + 1} MiB. Nothing that was stored is lost; free some "
            "space and resume the study."
        )
