"""Fidelity: cheap rungs (small, few steps, no hires pass) that screen trials.

A rung is worth its pictures only while it ranks merges as full pictures do. So the
first trials render both, the rank correlation is measured, a rung that correlates
poorly is dropped, and every few trials a control renders both again.

How a trial uses this module:

    plan = decide(settings.fidelity, slots)
    for rung in plan.rungs:                      # the cheapest first
        ... render [cheaper(shot.request, rung) for shot in shots], tally the scores ...
        rungs[rung.name] = score
        if not plan.is_whole and not goes_on(settings.fidelity, slots, rung, score):
            # the trial ends here: TrialRecord.rung = rung.name
            estimate = full_score(slots, rung.name, score)
    ... render the full pictures ...

Every trial keeps its scores by rung (`Slot.rungs`). A screened trial enters the search
with its estimate, as an uncertain point; it never is the best. `rank_correlation`
gives what the report shows.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, TypeVar

from lib_merge.autombw.history import Slot
from lib_merge.errors import StudyError

MIN_PAIRS = 4
"""Trials with both scores, below which no correlation is told."""

MIN_SIDE_PX = 256
"""A side that is not shortened below this, where it was longer: hosts' models draw
nothing sensible on less. Smaller pictures may shrink to half."""


@dataclass(frozen=True)
class Rung:
    """A cheaper way to render the same shots.

    Attributes:
        name: Names it in records and reports.
        size_scale: Factor of both sides, above 0 and at most 1.
        step_factor: Factor of the steps, above 0 and at most 1.
        has_hires: Whether the hires pass is kept where the payload has one.
    """

    name: str
    size_scale: float = 0.5
    step_factor: float = 0.5
    has_hires: bool = False

    def __post_init__(self) -> None:
        factors = (self.size_scale, self.step_factor)
        if not self.name or not all(0 < factor <= 1 for factor in factors):
            raise StudyError(
                f"Rung '{self.name}': it needs a name, and factors above 0, at most 1 "
                f"(size {self.size_scale:g}, steps {self.step_factor:g})."
            )


NO_HIRES = Rung("no_hires", size_scale=1.0, step_factor=1.0)
DRAFT = Rung("draft")


@dataclass(frozen=True)
class FidelitySettings:
    """Which rungs screen, and how far they are trusted.

    Attributes:
        rungs: The cheapest first; none means that all trials render full pictures.
        n_calibration: First trials that render every rung and the full pictures.
        min_correlation: Spearman correlation below which a rung is dropped.
        keep: Share of the screened trials that goes on.
        control_every: Every so many trials one renders both again, whatever the rung
            says, so that the correlation stays honest.
    """

    rungs: tuple[Rung, ...] = ()
    n_calibration: int = 10
    min_correlation: float = 0.6
    keep: float = 0.34
    control_every: int = 10

    def __post_init__(self) -> None:
        if len({rung.name for rung in self.rungs}) < len(self.rungs):
            raise StudyError("Two rungs have the same name; rename one.")
        if self.n_calibration < MIN_PAIRS or self.control_every < 2:
            raise StudyError(
                f"Rungs need at least {MIN_PAIRS} calibration trials (not "
                f"{self.n_calibration}) and a control every 2 trials or rarer (not "
                f"{self.control_every})."
            )
        if not 0 < self.keep <= 1 or not -1 <= self.min_correlation <= 1:
            raise StudyError(
                f"Rungs: keep {self.keep:g} must lie in 0 to 1 and min_correlation "
                f"{self.min_correlation:g} in -1 to 1."
            )

    def to_json(self) -> dict[str, Any]:
        """A plain JSON object; `from_json` gives equal settings back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FidelitySettings:
        """Read what `to_json` wrote."""
        rungs = tuple(Rung(**rung) for rung in data.get("rungs", ()))
        return cls(**{**data, "rungs": rungs})


class Sized(Protocol):
    """What a rung changes of a payload or a render request."""

    @property
    def steps(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def enable_hr(self) -> bool: ...


Request = TypeVar("Request", bound=Sized)


def cheaper(request: Request, rung: Rung) -> Request:
    """A payload or render request as a rung renders it.

    Sides are scaled and rounded to multiples of 64, or of 8 for pictures below 512
    pixels. Everything else (prompt, seed, sampler, guidance) stays.
    """
    is_hires = request.enable_hr and rung.has_hires
    changed: Request = replace(
        request,  # type: ignore[type-var]
        width=_side(request.width, request, rung),
        height=_side(request.height, request, rung),
        steps=max(1, math.ceil(request.steps * rung.step_factor)),
        enable_hr=is_hires,
    )
    return changed


def _side(side: int, request: Sized, rung: Rung) -> int:
    multiple = 64 if min(request.width, request.height) >= 512 else 8
    scaled = round(side * rung.size_scale / multiple) * multiple
    return min(side, max(scaled, min(MIN_SIDE_PX, side // 2), multiple))


def cost(request: Any) -> float:
    """What a picture costs, in pixels times steps; the hires pass included."""
    pixels = request.width * request.height
    total = float(pixels * request.steps)
    if request.enable_hr:
        width = request.hr_resize_x or request.width * request.hr_scale
        height = request.hr_resize_y or request.height * request.hr_scale
        steps = request.hr_second_pass_steps or request.steps
        total += width * height * steps * request.denoising_strength
    return total


@dataclass(frozen=True)
class TrialPlan:
    """What the next trial renders.

    Attributes:
        rungs: Rungs before the full pictures, the cheapest first.
        is_whole: Whether the full pictures are rendered whatever the rungs say.
        reason: Why, in a few words, for the log and the tab.
    """

    rungs: tuple[Rung, ...]
    is_whole: bool
    reason: str


def decide(settings: FidelitySettings, slots: Sequence[Slot]) -> TrialPlan:
    """What the next trial renders, given the decided slots."""
    if not settings.rungs:
        return TrialPlan((), True, "full pictures")
    kept = live_rungs(settings, slots)
    if not kept:
        return TrialPlan((), True, "full pictures: no rung ranks merges as they do")
    n_pairs = min(len(_pairs(slots, rung.name)) for rung in kept)
    if n_pairs < settings.n_calibration:
        return TrialPlan(kept, True, "calibration: cheap and full pictures")
    if len(slots) % settings.control_every == 0:
        return TrialPlan(kept, True, "control: cheap and full pictures")
    return TrialPlan(kept, False, "cheap pictures first")


def live_rungs(settings: FidelitySettings, slots: Sequence[Slot]) -> tuple[Rung, ...]:
    """The rungs that were not dropped.

    A rung is judged by the calibration trials, then again with every control; trials
    that the rung itself chose would say too little of it.
    """
    kept = []
    for rung in settings.rungs:
        pairs = _unchosen(settings, slots, rung.name)
        is_judged = len(pairs) >= settings.n_calibration
        if not is_judged or _spearman(pairs) >= settings.min_correlation:
            kept.append(rung)
    return tuple(kept)


def goes_on(
    settings: FidelitySettings, slots: Sequence[Slot], rung: Rung, score: float
) -> bool:
    """Whether a trial's score on a rung is good enough for what comes after it.

    It is when it is among the best `keep` of the scores that the rung gave, the last
    ones counting alone once there are many: a search gets better, and so does what it
    is held against.
    """
    seen = [slot.rungs[rung.name] for slot in slots if rung.name in slot.rungs]
    seen = seen[-4 * settings.n_calibration :]
    n_better = sum(other > score for other in seen)
    return n_better < settings.keep * (len(seen) + 1)


def rank_correlation(slots: Sequence[Slot], rung: str) -> float | None:
    """Spearman correlation of a rung's and the full scores over all that have both.

    Returns:
        None while fewer than `MIN_PAIRS` trials have both.
    """
    pairs = _pairs(slots, rung)
    return _spearman(pairs) if len(pairs) >= MIN_PAIRS else None


def full_score(slots: Sequence[Slot], rung: str, score: float) -> float | None:
    """The full score to expect of a trial that a rung gave this score.

    A straight line through the trials that have both, drawn towards their mean by the
    correlation (plain least squares).

    Returns:
        None while too few trials have both.
    """
    pairs = _pairs(slots, rung)
    if len(pairs) < MIN_PAIRS:
        return None
    cheap, full = zip(*pairs, strict=True)
    middle, level = statistics.fmean(cheap), statistics.fmean(full)
    spread = sum((x - middle) ** 2 for x in cheap)
    if spread == 0:
        return level
    both = sum((x - middle) * (y - level) for x, y in pairs)
    return float(level + both / spread * (score - middle))


def full_score_error(slots: Sequence[Slot], rung: str) -> float | None:
    """Standard deviation of what `full_score` misses; None while it is unknown."""
    pairs = _pairs(slots, rung)
    if len(pairs) < MIN_PAIRS:
        return None
    misses = [y - (full_score(slots, rung, x) or 0.0) for x, y in pairs]
    return math.sqrt(sum(miss**2 for miss in misses) / (len(pairs) - 2))


def _pairs(slots: Sequence[Slot], rung: str) -> list[tuple[float, float]]:
    return [
        (slot.rungs[rung], slot.score)
        for slot in slots
        if rung in slot.rungs and slot.is_measured and slot.score is not None
    ]


def _unchosen(
    settings: FidelitySettings, slots: Sequence[Slot], rung: str
) -> list[tuple[float, float]]:
    """Pairs of calibration and control trials."""
    pairs: list[tuple[float, float]] = []
    for number, slot in enumerate(slots):
        is_control = number % settings.control_every == 0
        if len(pairs) < settings.n_calibration or is_control:
            pairs += _pairs([slot], rung)
    return pairs


def _spearman(pairs: Sequence[tuple[float, float]]) -> float:
    """Rank correlation; ties share their mean rank, constants correlate with 0."""
    columns = [_ranks(column) for column in zip(*pairs, strict=True)]
    if any(len(set(column)) == 1 for column in columns):
        return 0.0
    return statistics.correlation(*columns)


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered.index(v) + (ordered.count(v) - 1) / 2 for v in values]
