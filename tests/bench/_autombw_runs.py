"""One search of a landscape by MergeLab's own study code, with pictures made up.

Slots, sampler, order of shots, pruning, rungs and the choice of finalists are those of
a study: `SlotTable`, `Search`, `Trial` and `finalists`. Only the objective is another:
it asks the landscape for a picture's score instead of a host and a scorer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_merge.autombw._measuring import Trial
from lib_merge.autombw._slots import SlotTable
from lib_merge.autombw.objective import Measured
from lib_merge.autombw.payloads import Payload
from lib_merge.autombw.pruning import PruningSettings
from lib_merge.autombw.records import COMPLETE, ImageScore, TrialRecord
from lib_merge.autombw.search import Search, finalists
from lib_merge.autombw.settings import StudySettings, shots
from lib_merge.autombw.space import BlockRange
from lib_merge.autombw.stopping import StoppingSettings
from lib_merge.core.block_orders import CSV_ORDER
from tests.bench._demo_landscape import DemoLandscape
from tests.bench._family import N_SHOTS, Landscape


@dataclass(frozen=True)
class Choice:
    """What one would have got by stopping at this moment.

    Attributes:
        images: Pictures rendered so far.
        true: The true score of the point that would have been chosen.
    """

    images: int
    true: float


class _Pictures:
    """Stands in for `objective.Objective`."""

    def __init__(self, landscape: Landscape | DemoLandscape) -> None:
        self._landscape = landscape
        self.n_rendered = 0

    def measure(
        self,
        point: dict[str, float],
        wanted: Sequence[Any],
        folder: Path,
        *,
        go_on: Callable[[Sequence[ImageScore]], bool] | None = None,
    ) -> Measured:
        x = list(point.values())
        images: list[ImageScore] = []
        for shot in wanted:
            number = int(shot.payload.name)
            score = self._landscape.picture(x, number)
            images.append(
                ImageScore(shot.file, shot.payload.name, number, "", {"": score}, score)
            )
            self.n_rendered += 1
            if go_on is not None and len(images) < len(wanted) and not go_on(images):
                return Measured(tuple(images), 0.0, is_whole=False)
        return Measured(tuple(images), 0.0, features=((0.0, 1.0),) * len(images))


def bench_settings(
    sampler: str, seed: int, *, is_pruning: bool, n_trials: int = 9999
) -> StudySettings:
    """A study over AutoMBW's 27 blocks and 12 payloads of one picture each."""
    return StudySettings(
        name="bench",
        method="weighted_sum",
        models=("a", "b"),
        payloads=tuple(Payload(str(i), "a", seed=i) for i in range(N_SHOTS)),
        arch_id="sd1",
        ranges=tuple(BlockRange(block) for block in CSV_ORDER),
        sampler=sampler,
        seed=seed,
        n_trials=n_trials,
        pruning=PruningSettings(is_on=is_pruning),
        stopping=StoppingSettings(n_without_gain=0),
    )


class Run:
    """A search that goes on until so many pictures are rendered.

    Args:
        landscape: What is searched.
        settings: From `bench_settings`.
        final_passes: Held-out passes over the payloads for each of the best five at
            the end; their pictures count.
    """

    def __init__(
        self,
        landscape: Landscape | DemoLandscape,
        settings: StudySettings,
        *,
        final_passes: int = 2,
    ) -> None:
        self._landscape = landscape
        self._settings = settings
        self._passes = final_passes
        self._pictures = _Pictures(landscape)
        self._table = SlotTable(settings, (), settings.start_points())
        self._search = Search(settings.space.axes, settings.sampler, settings.seed)

    @property
    def n_trials(self) -> int:
        """Slots so far."""
        return self._search.n_slots

    def go(self, budget: int, *, every: int = 1) -> list[Choice]:
        """Search until `budget` pictures; what would be chosen after each trial.

        Args:
            budget: Pictures, those of the finalists included.
            every: Trials between two choices.
        """
        n_final = self._settings.n_finalists * self._passes * N_SHOTS
        choices: list[Choice] = []
        while self._pictures.n_rendered + N_SHOTS <= budget - n_final:
            self._trial()
            is_due = self.n_trials % every == 0
            if is_due and self.n_trials > len(self._table.starts):
                choices.append(
                    Choice(self._pictures.n_rendered, self._true(self._first()))
                )
        choices.append(Choice(self._pictures.n_rendered + n_final, self._final()))
        return choices

    def _trial(self) -> None:
        number = self._search.n_slots
        starts = self._table.starts
        is_start = number < len(starts)
        point = dict(starts[number].point) if is_start else self._search.suggest()
        draft = TrialRecord(number, number, 0, "", point, COMPLETE)
        slots = list(self._table.decided().values())
        trial = Trial(draft, self._settings, slots, is_start=is_start)
        self._table.add(trial.measure(self._pictures, Path()))  # type: ignore[arg-type]
        self._search.tell(self._table.decided()[number])

    def _true(self, number: int) -> float:
        return self._landscape.true(list(self._search.slots[number].point.values()))

    def _first(self) -> int:
        """What is believed to be the best."""
        return self._search.ranking()[0]

    def _final(self) -> float:
        """The true score of the winner on held-out pictures."""
        order = finalists(self._settings, self._search.slots)
        held_out = range(N_SHOTS, N_SHOTS * (1 + self._passes))

        def mean(number: int) -> float:
            x = list(self._search.slots[number].point.values())
            return sum(self._landscape.picture(x, shot) for shot in held_out)

        return self._true(max(order[: self._settings.n_finalists], key=mean))


def n_shots(settings: StudySettings) -> int:
    """Pictures a whole trial."""
    return len(shots(settings))
