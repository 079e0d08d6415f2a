"""PickScore v1: which of two pictures of one prompt people would pick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lib_merge.autombw.scorers._clip import (
    NO_TRANSFORMERS,
    SimilarityScorer,
    find_model,
    find_words,
    has_transformers,
    is_model_folder,
    load_clip,
    no_words,
)
from lib_merge.core.ports import LoadedScorer, Progress, ScorerCard
from lib_merge.errors import ScorerError

REPOS = ("yuvalkirstain/PickScore_v1",)
URL = f"https://huggingface.co/{REPOS[0]}"


@dataclass(frozen=True)
class PickScore:
    """Scores any picture against its prompt: logit scale * cosine, as published.

    Range: about 17 to 24; higher is better; a difference of 1 means that people pick
    the better picture in 73 of 100 cases. Trained on the choices of the users of
    Pick-a-Pic, half a million pairs. Reads the first 77 tokens of a prompt and the
    square centre of a picture. A CLIP ViT-H/14: about 4 GB of memory.

    Source: Kirstain et al., Pick-a-Pic: An Open Dataset of User Preferences for
    Text-to-Image Generation, 2023, arxiv.org/abs/2305.01569.
    """

    id: str = "pickscore"
    label: str = "PickScore v1"
    range: tuple[float, float] = (17.0, 24.0)
    card: ScorerCard = field(
        default=ScorerCard(
            training="choices between two pictures by users of Pick-a-Pic (2023)",
            licence="of the weights: none is stated on their page that we know of",
            weights=(
                f"the folder of {REPOS[0]} (config.json, model.safetensors, words): "
                "given by you, or the Hugging Face cache"
            ),
            url=URL,
        ),
        repr=False,
    )

    def unavailable_reason(
        self,
        *,
        weights: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> str | None:
        """Which file or library is missing, and what to do."""
        if not has_transformers():
            return NO_TRANSFORMERS
        folder = weights or find_model(REPOS)
        if folder is None:
            return (
                f"PickScore is not on this machine; download {URL} (3.9 GB), for "
                f"example with `hf download {REPOS[0]}`, or give its folder."
            )
        if not is_model_folder(folder):
            return f"{folder} holds no transformers model; give the folder of {URL}."
        return None if find_words(folder) else no_words(folder)

    def load(
        self,
        *,
        device: str = "cpu",
        weights: Path | None = None,
        progress: Progress | None = None,
        options: Mapping[str, str] | None = None,
    ) -> LoadedScorer:
        """Load PickScore.

        Raises:
            ScorerError: A file or a library is missing or wrong.
        """
        reason = self.unavailable_reason(weights=weights)
        folder = weights or find_model(REPOS)
        if reason is not None or folder is None:
            raise ScorerError(reason or "PickScore is not on this machine.")
        if progress is not None:
            progress.check()
        return SimilarityScorer(load_clip(folder, device=device))


SCORER = PickScore()
