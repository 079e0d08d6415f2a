"""Gaps: per-prompt scores, and how much of a search's gain the unseen pictures keep.

A search picks what scores well on its own prompts and seeds, so part of its gain is
luck and part is fitted to them. Both parts are measured against a parent over the same
pictures, prompt by prompt, because other seeds may be easier for every merge alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lib_merge.autombw.intervals import Interval, mean_interval
from lib_merge.autombw.records import ImageScore, TrialRecord
from lib_merge.autombw.results import Candidate, StudyResult


@dataclass(frozen=True)
class PromptScore:
    """How one payload's pictures of a trial scored.

    Attributes:
        payload: The payload's name.
        prompt: What the scorers read.
        score: Mean and interval over its pictures.
        n_images: How many.
    """

    payload: str
    prompt: str
    score: Interval
    n_images: int


def prompt_scores(images: Sequence[ImageScore]) -> tuple[PromptScore, ...]:
    """Scores by payload, in the order of the payloads' names."""
    return tuple(
        PromptScore(
            payload=name,
            prompt=found[0].prompt,
            score=mean_interval([image.score for image in found]),
            n_images=len(found),
        )
        for name, found in sorted(_by_payload(images).items())
    )


def _by_payload(images: Sequence[ImageScore]) -> dict[str, list[ImageScore]]:
    found: dict[str, list[ImageScore]] = {}
    for image in images:
        found.setdefault(image.payload, []).append(image)
    return found


def _means(images: Sequence[ImageScore]) -> dict[str, float]:
    groups = _by_payload(images)
    return {name: statistics.fmean(i.score for i in g) for name, g in groups.items()}


@dataclass(frozen=True)
class Gap:
    """One finalist in the search and on unseen seeds.

    Attributes:
        label: The finalist's.
        search: Mean score in the search.
        held_out: Mean score on unseen seeds, over the same payloads.
        lost: Search minus held-out; its interval is over payloads.
    """

    label: str
    search: float
    held_out: float
    lost: Interval


def gap(candidate: Candidate, seen: Sequence[ImageScore]) -> Gap | None:
    """A finalist's gap between training and held-out score.

    Args:
        candidate: It, on held-out seeds.
        seen: Its pictures in the search.

    Returns:
        None when no payload is in both.
    """
    search, held_out = _means(seen), _means(candidate.images)
    shared = [name for name in search if name in held_out]
    if not shared:
        return None
    return Gap(
        label=candidate.label,
        search=statistics.fmean(search[name] for name in shared),
        held_out=statistics.fmean(held_out[name] for name in shared),
        lost=mean_interval([search[name] - held_out[name] for name in shared]),
    )


def gaps(result: StudyResult, records: Sequence[TrialRecord]) -> tuple[Gap, ...]:
    """The gap of every candidate that was a trial, in the result's order."""
    seen = _seen(result, records)
    found = (gap(c, seen[c.label]) for c in result.candidates if c.label in seen)
    return tuple(one for one in found if one is not None)


def _seen(
    result: StudyResult, records: Sequence[TrialRecord]
) -> dict[str, tuple[ImageScore, ...]]:
    """Every candidate's pictures in the search, as far as it was a whole trial."""
    whole = [record for record in records if record.is_complete and record.images]
    found = {}
    for candidate in result.candidates:
        record = next((r for r in whole if r.number == candidate.number), None)
        if record is None:
            record = next((r for r in whole if r.point == candidate.point), None)
        if record is not None:
            found[candidate.label] = record.images
    return found


@dataclass(frozen=True)
class PromptGain:
    """What the winner gains over a parent with one payload.

    Attributes:
        payload: Its name.
        search: In the search, or None for a payload that the search never saw.
        held_out: On unseen seeds.
    """

    payload: str
    search: float | None
    held_out: float


@dataclass(frozen=True)
class Overfit:
    """How much of the winner's gain over a parent was fitted to what it was shown.

    Attributes:
        rival: The parent's label.
        prompts: Gains by payload.
        search: Mean gain in the search.
        held_out: Mean gain with the same payloads on unseen seeds.
        lost: Search minus held-out gain; its interval is over payloads.
        unseen: Mean gain with payloads that the search never saw; None without any.
    """

    rival: str
    prompts: tuple[PromptGain, ...]
    search: float
    held_out: float
    lost: Interval
    unseen: Interval | None

    @property
    def kept(self) -> float | None:
        """The share of the gain that is left on unseen seeds; None without a gain."""
        return self.held_out / self.search if self.search > 0 else None


def overfit(
    result: StudyResult, rival: str, records: Sequence[TrialRecord]
) -> Overfit | None:
    """The winner's overfit against one baseline.

    Returns:
        None when either was no whole trial of the search.
    """
    seen = _seen(result, records)
    if rival not in seen or result.winner not in seen or rival == result.winner:
        return None
    search = _gains(seen[result.winner], seen[rival])
    other = result.candidate(rival)
    held_out = _gains(result.best.images, other.images)
    shared = [name for name in search if name in held_out]
    if not shared:
        return None
    new = [gain for name, gain in held_out.items() if name not in search]
    return Overfit(
        rival=rival,
        prompts=tuple(
            PromptGain(name, search.get(name), gain)
            for name, gain in sorted(held_out.items())
        ),
        search=statistics.fmean(search[name] for name in shared),
        held_out=statistics.fmean(held_out[name] for name in shared),
        lost=mean_interval([search[name] - held_out[name] for name in shared]),
        unseen=mean_interval(new) if new else None,
    )


def _gains(
    mine: Sequence[ImageScore], theirs: Sequence[ImageScore]
) -> Mapping[str, float]:
    """Mean difference by payload, over pictures that both have."""
    others = {image.file: image.score for image in theirs}
    deltas: dict[str, list[float]] = {}
    for image in mine:
        if image.file in others:
            deltas.setdefault(image.payload, []).append(
                image.score - others[image.file]
            )
    return {name: statistics.fmean(values) for name, values in deltas.items()}
