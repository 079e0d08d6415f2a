"""Records: what is kept of every trial, one JSON file beside its pictures."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lib_merge.autombw._files import read_json, write_json

_log = logging.getLogger(__name__)

RECORD = "record.json"

COMPLETE = "complete"
PRUNED = "pruned"
FAILED = "failed"
INTERRUPTED = "interrupted"
KILLED = "killed"


UNNAMED = ""
"""The scorer's id in records of studies that had one scorer and did not name it."""


@dataclass(frozen=True)
class ImageScore:
    """One rendered picture and what the scorers said.

    Attributes:
        file: Its name in the record's folder.
        payload: The payload's name.
        seed: The seed it was rendered with.
        prompt: The words that the scorers read.
        raws: Every scorer's own value by the scorer's id, kept as it came.
        score: What is tallied: the raw values under the study's scoring.
    """

    file: str
    payload: str
    seed: int
    prompt: str
    raws: dict[str, float]
    score: float

    @property
    def raw(self) -> float:
        """The first scorer's own value."""
        return next(iter(self.raws.values()))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ImageScore:
        """Read what `asdict` gave; an old record's only value is filed as `UNNAMED`.

        Raises:
            TypeError: Fields are missing or unknown.
        """
        values = dict(data)
        if "raw" in values:
            values["raws"] = {UNNAMED: values.pop("raw")}
        return cls(**values)


@dataclass(frozen=True)
class TrialRecord:
    """One attempt at one point.

    Attributes:
        number: The trial's number in the journal; its folder is named by it.
        slot: The point's place in the search: 0, 1 ... An attempt that failed or was
            interrupted leaves its slot to the next attempt.
        attempt: 0 for the first attempt at the slot.
        label: "A", "B", "uniform", "near ..." or "" for a sampler's point.
        point: The searched values by block id.
        state: complete, pruned (ended early because it was hopeless), failed,
            interrupted (the user stopped, the disk was full) or killed (the process
            died).
        score: The trial's tally, of a pruned one an estimate; None for the rest.
        images: In order of rendering; the scored ones only.
        reason: Why it failed or was interrupted, one sentence; else "".
        traceback: The exception's, for the curious; else "".
        seconds: Wall time of the attempt.
        merge_seconds: Wall time of merging alone.
        finished: Unix time of its end, seconds.
        rung: The cheaper rung that it was rendered on, or "" for whole payloads.
        diversity: How unlike the pictures of one prompt are, or None if not measured.
        worker: Who measured it, or "" when there is only one worker.
        screening: Its pictures on cheap rungs; a rung's name is their folder.
        rungs: Its scores on cheap rungs, by rung.
    """

    number: int
    slot: int
    attempt: int
    label: str
    point: dict[str, float]
    state: str
    score: float | None = None
    images: tuple[ImageScore, ...] = ()
    reason: str = ""
    traceback: str = ""
    seconds: float = 0.0
    merge_seconds: float = 0.0
    finished: float = 0.0
    rung: str = ""
    diversity: float | None = None
    worker: str = ""
    screening: tuple[ImageScore, ...] = ()
    rungs: dict[str, float] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether it counts: every picture of whole payloads was scored."""
        return self.state == COMPLETE and not self.rung

    def to_json(self) -> dict[str, Any]:
        """A plain JSON object; `from_json` gives an equal record back."""
        return asdict(self) | {"images": [asdict(image) for image in self.images]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TrialRecord:
        """Read what `to_json` wrote.

        Raises:
            TypeError: Fields are missing or unknown.
        """
        images = tuple(ImageScore.from_json(i) for i in data.get("images", ()))
        cheap = tuple(ImageScore.from_json(i) for i in data.get("screening", ()))
        return cls(**{**data, "images": images, "screening": cheap})


def save_record(folder: Path, record: TrialRecord) -> None:
    """Store a record durably in its trial's folder.

    Raises:
        DiskFullError: No room; nothing was changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RECORD, record.to_json())


def load_record(folder: Path) -> TrialRecord | None:
    """The record of a trial's folder; None while there is no readable one."""
    try:
        return TrialRecord.from_json(read_json(folder / RECORD))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as fault:
        _log.warning("%s is unreadable: %s", folder / RECORD, fault)
        return None
