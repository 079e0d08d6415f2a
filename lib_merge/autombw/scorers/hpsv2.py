"""HPS v2 and v2.1: Human Preference Score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.autombw.scorers._caches import hub_file
from lib_merge.autombw.scorers._clip import (
    NO_TRANSFORMERS,
    Clip,
    SimilarityScorer,
    find_words,
    has_transformers,
    no_words,
)
from lib_merge.core.ports import LoadedScorer, Progress, ScorerCard
from lib_merge.errors import ScorerError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

REPOS = ("xswu/HPSv2",)
FILES = ("HPS_v2.1_compressed.pt", "HPS_v2_compressed.pt")
"""Weights of v2.1, which is looked for first, and of v2."""

URL = f"https://huggingface.co/{REPOS[0]}/resolve/main/{FILES[0]}"


def padded(images: Sequence[Image], size_px: int) -> torch.Tensor:
    """Pictures as HPS v2 sees them: whole, the long side scaled, black beside them.

    Returns:
        (n, 3, size_px, size_px) float32, CLIP's mean and deviation taken out.
    """
    import numpy as np
    import torch
    from torch.nn.functional import interpolate, pad

    from lib_merge.autombw.scorers._image_reward_files import CLIP_MEAN, CLIP_SD

    rows = []
    for image in images:
        values = np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255)
        pixels = torch.from_numpy(values).permute(2, 0, 1)[None]
        scale = size_px / max(image.size)
        if scale != 1.0:
            size = [round(side * scale) for side in (image.height, image.width)]
            pixels = interpolate(pixels, size=size, mode="bicubic", antialias=True)
        below = size_px - pixels.shape[2]
        right = size_px - pixels.shape[3]
        edges = (right // 2, right - right // 2, below // 2, below - below // 2)
        rows.append(pad(pixels, edges))
    mean = torch.tensor(CLIP_MEAN).view(1, 3, 1, 1)
    sd = torch.tensor(CLIP_SD).view(1, 3, 1, 1)
    return (torch.cat(rows) - mean) / sd


@dataclass(frozen=True)
class HpsV2:
    """Scores any picture against its prompt: logit scale * cosine.

    Range: about 20 to 35; higher is better. The authors' package prints the cosine
    alone, this value divided by the logit scale of about 100. Trained on 798 thousand
    choices between pictures (HPD v2); v2.1 on better ones. Reads the first 77 tokens
    of a prompt and the whole picture. A CLIP ViT-H/14: about 4 GB of memory.

    Source: Wu et al., Human Preference Score v2: A Solid Benchmark for Evaluating
    Human Preferences of Text-to-Image Synthesis, 2023, arxiv.org/abs/2306.09341.
    """

    id: str = "hpsv2"
    label: str = "HPS v2 / v2.1"
    range: tuple[float, float] = (20.0, 35.0)
    card: ScorerCard = field(
        default=ScorerCard(
            training="798 thousand choices between pictures of one prompt (HPD v2)",
            licence="Apache-2.0",
            weights=(
                f"{FILES[0]} or {FILES[1]}: given by you, or in the Hugging Face "
                "cache; CLIP's words beside it or in the cache"
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
        path = weights or _cached()
        if path is None or not path.is_file():
            where = "in the Hugging Face cache" if path is None else f"at {path}"
            return (
                f"The weights of HPS v2 are not {where}; download {URL} (3.9 GB) and "
                "give the file."
            )
        return None if find_words(path.parent) else no_words(path.parent)

    def load(
        self,
        *,
        device: str = "cpu",
        weights: Path | None = None,
        progress: Progress | None = None,
        options: Mapping[str, str] | None = None,
    ) -> LoadedScorer:
        """Load HPS v2.

        Raises:
            ScorerError: A file or a library is missing or wrong.
        """
        from lib_merge.autombw.scorers._image_reward_files import read_weights
        from lib_merge.autombw.scorers._open_clip import build_clip

        reason = self.unavailable_reason(weights=weights)
        path = weights or _cached()
        if reason is not None or path is None:
            raise ScorerError(reason or "The weights of HPS v2 are missing.")
        if progress is not None:
            progress.check()
        model = build_clip(read_weights(path), str(path))
        clip = Clip(model, find_words(path.parent), device)
        return SimilarityScorer(clip, padded)


def _cached() -> Path | None:
    found = (hub_file(REPOS, name) for name in FILES)
    return next((path for path in found if path is not None), None)


SCORER = HpsV2()
