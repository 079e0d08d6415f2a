"""Rescoring: scores made from stored raw values again, nothing rendered."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lib_merge.autombw._files import read_json, write_json
from lib_merge.autombw._lock import StudyLock
from lib_merge.autombw.fidelity import full_score
from lib_merge.autombw.history import Slot, shot_effects
from lib_merge.autombw.records import (
    PRUNED,
    ImageScore,
    TrialRecord,
    load_record,
    save_record,
)
from lib_merge.autombw.scoring import (
    SIGMOID,
    Z_SCORE,
    Judge,
    Scale,
    Scoring,
    ScoringSettings,
    calibration,
    scales_from_json,
    scales_to_json,
)
from lib_merge.autombw.settings import StudySettings
from lib_merge.autombw.study import Study
from lib_merge.autombw.tally import tally
from lib_merge.errors import StudyError, UnknownIdError

_log = logging.getLogger(__name__)

SCALES = "scales.json"

_SAME = 1e-12
"""Scores that differ by less are one score."""


def scorer_ranges(settings: StudySettings) -> dict[str, tuple[float, float]]:
    """The declared range of every scorer of a study that this MergeLab has."""
    from lib_merge.autombw.scorers import scorers

    known = scorers()
    ids = [judge.id for judge in settings.judges]
    return {i: known.get(i).range for i in ids if i in known}


def natural_normalisation(judges: Sequence[Judge]) -> str:
    """sigmoid for one scorer whose raw values lie around 0, else z.

    Args:
        judges: A study's scorers.
    """
    from lib_merge.autombw.scorers import scorers

    known = scorers()
    ranges = [known.get(judge.id).range for judge in judges if judge.id in known]
    is_centred = all(low == -high for low, high in ranges)
    return SIGMOID if len(judges) == 1 and is_centred else Z_SCORE


def study_scoring(
    study: Study, ranges: Mapping[str, tuple[float, float]] | None = None
) -> Scoring:
    """A study's scoring as it stands.

    Args:
        study: The study.
        ranges: Declared ranges, if its scorers are not the registered ones.

    Raises:
        StudyError: The stored scales are damaged.
    """
    settings = study.settings
    return Scoring(
        weights={judge.id: judge.weight for judge in settings.judges},
        normalise=settings.scoring.normalise,
        ranges=scorer_ranges(settings) if ranges is None else ranges,
        scales=_stored_scales(study.folder / SCALES),
    )


def _stored_scales(path: Path) -> dict[str, Scale] | None:
    try:
        return scales_from_json(read_json(path), str(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as fault:
        raise StudyError(f"{path} cannot be read: {fault}.") from fault


def reversed_payloads(settings: StudySettings) -> frozenset[str]:
    """Names of the payloads that want low raw values."""
    everything = (*settings.payloads, *settings.held_out_payloads)
    return frozenset(p.name for p in everything if p.reverse_scoring)


def rescore(
    records: Sequence[TrialRecord],
    scoring: Scoring,
    *,
    tally_id: str,
    reversed_names: Collection[str] = (),
) -> tuple[TrialRecord, ...]:
    """The same trials under another scoring; records without scores stay as they are.

    Args:
        records: Trials by number.
        scoring: The scoring.
        tally_id: How pictures become a trial's score.
        reversed_names: Payloads that want low raw values.

    Raises:
        ScorerError: A scorer that counts did not judge a picture.
    """
    done: list[TrialRecord] = []
    for record in records:
        if record.score is None or not (record.images or record.screening):
            done.append(record)
            continue
        record = _screened_again(record, scoring, tally_id, reversed_names)
        if record.rung:
            slots = [_slot(r) for r in done]
            estimate = full_score(slots, record.rung, record.rungs[record.rung])
            score = record.score if estimate is None else estimate
            done.append(replace(record, score=score))
            continue
        images = tuple(_scored(i, scoring, reversed_names) for i in record.images)
        scores = {image.file: image.score for image in images}
        if record.state == PRUNED:
            scores = shot_effects([_slot(r) for r in done]).fill(scores)
        score = tally(tally_id, list(scores.values()))
        done.append(replace(record, images=images, score=score))
    return tuple(done)


def _screened_again(
    record: TrialRecord,
    scoring: Scoring,
    tally_id: str,
    reversed_names: Collection[str],
) -> TrialRecord:
    """The record with its pictures on cheap rungs scored again."""
    cheap = tuple(_scored(i, scoring, reversed_names) for i in record.screening)
    rungs = {
        rung: tally(tally_id, [i.score for i in cheap if i.file.startswith(f"{rung}/")])
        for rung in record.rungs
    }
    return replace(record, screening=cheap, rungs=rungs)


def _scored(
    image: ImageScore, scoring: Scoring, reversed_names: Collection[str]
) -> ImageScore:
    is_reversed = image.payload in reversed_names
    return replace(image, score=scoring.score(image.raws, is_reversed=is_reversed))


def _slot(record: TrialRecord) -> Slot:
    return Slot(
        record.point,
        record.score,
        is_start=False,
        is_pruned=not record.is_complete,
        images={image.file: image.score for image in record.images},
        rung=record.rung,
        rungs=record.rungs,
    )


class ScoreKeeper:
    """A running study's scoring: freezes z's scales in time, and keeps records true.

    Args:
        study: The study.
        ranges: Declared ranges, if its scorers are not the registered ones.

    Raises:
        StudyError: The stored scales are damaged.
    """

    def __init__(
        self, study: Study, ranges: Mapping[str, tuple[float, float]] | None = None
    ) -> None:
        self._study = study
        self._lock = threading.Lock()
        self._reversed = reversed_payloads(study.settings)
        self.scoring = study_scoring(study, ranges)

    def score(self, raws: Mapping[str, float], payload: str) -> float:
        """A picture's score as the scoring stands."""
        is_reversed = payload in self._reversed
        return self.scoring.score(raws, is_reversed=is_reversed)

    def settle(self) -> bool:
        """Freeze the scales when the first trials are in, once for the whole study.

        Returns:
            Whether scores that were told to anybody have changed, so that whoever
            holds records or a search must read the records again.

        Raises:
            DiskFullError: No room; the scales stay open.
        """
        with self._lock:
            if self.scoring.is_settled:
                return False
            path = self._study.folder / SCALES
            scales = _stored_scales(path)
            if scales is None:
                scales = self._new_scales()
            if scales is None:
                return False
            self.scoring = replace(self.scoring, scales=scales)
        self.correct()
        return True

    def _new_scales(self) -> dict[str, Scale] | None:
        settings = self._study.settings
        n_trials = min(settings.scoring.n_calibration, settings.n_trials)
        first = calibration(self._study.records(), n_trials)
        if first is None:
            return None
        images = [image for record in first for image in record.images]
        scales = dict(self.scoring.frozen(images).scales or {})
        write_json(self._study.folder / SCALES, scales_to_json(scales))
        numbers = ", ".join(str(record.number) for record in first)
        _log.info("The pictures of trials %s set the scale of scores.", numbers)
        return scales

    def correct(self) -> int:
        """Bring every stored score in line with the scoring.

        Returns:
            How many records were written anew.

        Raises:
            DiskFullError: No room; records written so far are whole.
        """
        n_changed = 0
        records = self._study.records()
        for old, new in zip(records, self._rescored(records), strict=True):
            if _differs(old, new):
                save_record(self._study.trial_dir(old.number), new)
                n_changed += 1
        for path in sorted(self._study.held_out_dir.glob("*/record.json")):
            record = load_record(path.parent)
            if record is not None:
                (new,) = self._rescored((record,))
                if _differs(record, new):
                    save_record(path.parent, new)
                    n_changed += 1
        return n_changed

    def _rescored(self, records: Sequence[TrialRecord]) -> tuple[TrialRecord, ...]:
        return rescore(
            records,
            self.scoring,
            tally_id=self._study.settings.tally,
            reversed_names=self._reversed,
        )


def _differs(old: TrialRecord, new: TrialRecord) -> bool:
    before, after = (*old.images, *old.screening), (*new.images, *new.screening)
    pairs = [(a.score, b.score) for a, b in zip(before, after, strict=True)]
    if old.score is not None and new.score is not None and old.state != PRUNED:
        pairs.append((old.score, new.score))
    return any(abs(a - b) > _SAME for a, b in pairs)


def rescore_study(study: Study, weights: Mapping[str, float]) -> Study:
    """Give a stored study's scorers other weights; it can then be resumed.

    Its result, if it has one, is set aside: resuming names the finalists anew, and
    renders only those that were no finalists before.

    Args:
        study: The study; it must not be running.
        weights: New weight by scorer id; scorers not named keep theirs.

    Raises:
        StudyError: It runs, or no scorer is left with a weight.
        UnknownIdError: A scorer that did not judge this study.
        DiskFullError: No room.
    """
    settings = study.settings
    known = [judge.id for judge in settings.judges]
    for scorer_id in weights:
        if scorer_id not in known:
            raise UnknownIdError(
                f"The scorer {scorer_id} did not judge study '{settings.name}'; its "
                f"scorers are: {', '.join(known)}."
            )
    judges = tuple(
        replace(judge, weight=weights.get(judge.id, judge.weight))
        for judge in settings.judges
    )
    scoring: ScoringSettings = replace(settings.scoring, judges=judges)
    with StudyLock(study.lock_path, settings.name):
        changed = replace(settings, scoring=scoring)
        write_json(study.folder / "settings.json", changed.to_json())
        twin = Study(study.folder, changed)
        ScoreKeeper(twin).correct()
        if study.result_path.exists():
            study.result_path.replace(study.result_path.with_suffix(".before.json"))
    return Study(study.folder, changed)
