"""CLIP score: how near a picture is to its prompt, for any CLIP of transformers."""

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

REPOS = (
    "openai/clip-vit-large-patch14",
    "openai/clip-vit-large-patch14-336",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    "openai/clip-vit-base-patch16",
    "openai/clip-vit-base-patch32",
)
URL = f"https://huggingface.co/{REPOS[0]}"

SCALE = 100.0
"""Cosines are multiplied by it, as torchmetrics' CLIPScore does."""


@dataclass(frozen=True)
class ClipScore:
    """Scores any picture against its prompt: 100 * cosine of CLIP's features.

    Range: about 15 to 35; higher is better; it says how well the picture shows the
    prompt, nothing of beauty. Reads the first 77 tokens of a prompt and the square
    centre of a picture. ViT-L/14: about 1.7 GB of memory.

    Source: Hessel et al., CLIPScore: A Reference-free Evaluation Metric for Image
    Captioning, 2021, arxiv.org/abs/2104.08718. There negative values count as 0 and
    the rest is multiplied by 2.5; here nothing is cut off.
    """

    id: str = "clip_score"
    label: str = "CLIP score"
    range: tuple[float, float] = (15.0, 35.0)
    card: ScorerCard = field(
        default=ScorerCard(
            training="pictures and their captions from the web",
            licence="MIT (OpenAI's and LAION's CLIP)",
            weights=(
                "the folder of a CLIP for transformers (config.json, weights, words): "
                "given by you, or the first of these in the Hugging Face cache: "
                + ", ".join(REPOS)
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
                f"No CLIP is on this machine; download {URL} (1.7 GB), for example "
                f"with `hf download {REPOS[0]}`, or give its folder."
            )
        if not is_model_folder(folder):
            return f"{folder} holds no transformers model; give the folder of a CLIP."
        return None if find_words(folder) else no_words(folder)

    def load(
        self,
        *,
        device: str = "cpu",
        weights: Path | None = None,
        progress: Progress | None = None,
        options: Mapping[str, str] | None = None,
    ) -> LoadedScorer:
        """Load a CLIP.

        Raises:
            ScorerError: A file or a library is missing or wrong.
        """
        reason = self.unavailable_reason(weights=weights)
        folder = weights or find_model(REPOS)
        if reason is not None or folder is None:
            raise ScorerError(reason or "No CLIP is on this machine.")
        if progress is not None:
            progress.check()
        return SimilarityScorer(load_clip(folder, device=device), scale=SCALE)


SCORER = ClipScore()
