"""BRISQUE: how undistorted a picture looks, without a neural network."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.autombw.scorers._image_reward_files import check_counts, check_finite
from lib_merge.core.ports import LoadedScorer, Progress, ScorerCard
from lib_merge.errors import ScorerError

if TYPE_CHECKING:
    from PIL.Image import Image

_PROBE_PX = 64


@dataclass(frozen=True)
class Brisque:
    """Scores any picture for blur, noise and block artefacts: minus BRISQUE.

    Range: about -80 (blurred) to 0 (clean); higher is better. It reads no prompt and
    says nothing of content: of use as a small part of a score, against merges that
    smear. Trained on people's ratings of distorted photographs (LIVE). Uses the
    `brisque` package, which brings its weights.

    Source: Mittal, Moorthy, Bovik, No-Reference Image Quality Assessment in the
    Spatial Domain, 2012.
    """

    id: str = "brisque"
    label: str = "BRISQUE (no distortion)"
    range: tuple[float, float] = (-80.0, 0.0)
    card: ScorerCard = field(
        default=ScorerCard(
            training="ratings of distorted photographs (LIVE)",
            licence="Apache-2.0 (the package)",
            weights="in the Python package `brisque`",
            url="https://pypi.org/project/brisque",
        ),
        repr=False,
    )

    def unavailable_reason(
        self,
        *,
        weights: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> str | None:
        """Whether its package is missing."""
        if importlib.util.find_spec("brisque") is None:
            return (
                "The Python package 'brisque' is missing; pip install "
                "brisque[opencv-python-headless] brings it (numpy 1.26; it fails with "
                "numpy 2.4)."
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
        """Load the package, and judge a test pattern with it.

        Raises:
            ScorerError: The package is missing or does not work here.
        """
        from PIL import Image

        reason = self.unavailable_reason()
        if reason is not None:
            raise ScorerError(reason)
        try:
            model = importlib.import_module("brisque").BRISQUE(url=False)
            loaded = _Loaded(model)
            probe = Image.effect_noise((_PROBE_PX, _PROBE_PX), 40).convert("RGB")
            loaded.score([probe], ["a test pattern"])
        except (ImportError, AttributeError, TypeError, ValueError, OSError) as error:
            raise ScorerError(
                f"The package 'brisque' does not work here ({type(error).__name__}: "
                f"{error}); it is known to fail with numpy 2.4 and to work with 1.26."
            ) from error
        return loaded


class _Loaded:
    """The package's model; satisfies the LoadedScorer port."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Minus BRISQUE of every picture.

        Raises:
            ScorerError: Closed, or the numbers of pictures and prompts differ.
            NonFiniteError: The answer is not a number.
        """
        import numpy as np

        if self._model is None:
            raise ScorerError("This scorer was closed; load it again.")
        check_counts(images, prompts)
        pixels = [np.asarray(image.convert("RGB")) for image in images]
        scores = [-float(self._model.score(picture)) for picture in pixels]
        check_finite(scores, prompts)
        return scores

    def close(self) -> None:
        """Free the model."""
        self._model = None


SCORER = Brisque()
