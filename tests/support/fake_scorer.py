"""A scorer that reads the raw score which the fake host wrote into the pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL.Image import Image

from lib_merge.core.ports import Progress, ScorerCard
from tests.support.fake_study_host import raw_score


class FakeLoadedScorer:
    """Scores in memory."""

    def __init__(self, owner: FakeScorer) -> None:
        self._owner = owner

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """What the pixels say, or an accident."""
        assert len(images) == len(prompts)
        self._owner.prompts.extend(prompts)
        self._owner.n_calls += 1
        if self._owner.accident is not None:
            changed = self._owner.accident(self._owner.n_calls)
            if changed is not None:
                return [changed] * len(images)
        return [raw_score(image) for image in images]

    def close(self) -> None:
        """Count it."""
        self._owner.n_closed += 1


class FakeScorer:
    """Loads at once.

    Attributes:
        accident: Called with the number of each call; may raise, or return a value that
            every picture gets instead.
    """

    id = "fake"
    label = "fake scorer"
    range = (-4.0, 4.0)
    card = ScorerCard("nothing", "none", "none")

    def __init__(self) -> None:
        self.accident: Callable[[int], float | None] | None = None
        self.prompts: list[str] = []
        self.n_calls = 0
        self.n_closed = 0

    def unavailable_reason(
        self,
        *,
        weights: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> str | None:
        """It is always there."""
        return None

    def load(
        self,
        *,
        device: str = "cpu",
        weights: Path | None = None,
        progress: Progress | None = None,
        options: Mapping[str, str] | None = None,
    ) -> FakeLoadedScorer:
        """Load nothing."""
        return FakeLoadedScorer(self)
