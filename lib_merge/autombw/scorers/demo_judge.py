"""The demo's judge: a small network in the ImageReward layout that knows 16 prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lib_merge.autombw.scorers._image_reward_files import LoadedNet
from lib_merge.core.ports import LoadedScorer, Progress, ScorerCard
from lib_merge.demo import JUDGE_WEIGHTS


@dataclass(frozen=True)
class DemoJudge:
    """Scores pictures of one coloured shape.

    Range: about -2 (neither colour nor shape as asked, or no shape) to 2 (as asked and
    clean); one of colour and shape right is about -0.6. Higher is better. Trained by
    `python -m lib_merge.demo.train` on drawn pictures with right and wrong prompts, so
    that it means nothing on any other picture. Loaded by the code that loads
    ImageReward.pt. Weights: in this repository, under its licence.
    """

    id: str = "demo_judge"
    label: str = "Demo judge (coloured shapes)"
    range: tuple[float, float] = (-2.0, 2.0)
    card: ScorerCard = field(
        default=ScorerCard(
            training="drawn pictures of coloured shapes",
            licence="of this repository",
            weights="in this repository, or given by you with a vocab.txt beside",
        ),
        repr=False,
    )

    def unavailable_reason(
        self,
        *,
        weights: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> str | None:
        """Its files are part of the repository."""
        judge = weights or JUDGE_WEIGHTS
        for path in (judge, judge.with_name("vocab.txt")):
            if not path.is_file():
                return (
                    f"{path} is missing; restore it from the repository, or run "
                    "python -m lib_merge.demo.train."
                )
        return None

    def load(
        self,
        *,
        device: str = "cpu",
        weights: Path | None = None,
        progress: Progress | None = None,
        options: Mapping[str, str] | None = None,
    ) -> LoadedScorer:
        """Load the judge.

        Args:
            device: torch device.
            weights: Another judge, with its vocab.txt beside it.
            progress: Asked before loading whether to stop.
            options: It has none.

        Raises:
            ScorerError: A file is missing or wrong.
        """
        path = weights or JUDGE_WEIGHTS
        vocabulary = path.with_name("vocab.txt")
        if progress is not None:
            progress.check()
        return LoadedNet(path, vocabulary, device=device)


SCORER = DemoJudge()
