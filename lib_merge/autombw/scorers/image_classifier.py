"""Image classifiers of transformers as scorers: cafe aesthetic, aesthetic shadow ..."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.autombw.scorers._clip import (
    BATCH,
    NO_TRANSFORMERS,
    find_model,
    has_transformers,
    in_batches,
    is_model_folder,
)
from lib_merge.autombw.scorers._image_reward_files import check_counts, free_device
from lib_merge.core.ports import LoadedScorer, Progress, ScorerCard, ScorerOption
from lib_merge.errors import ScorerError

if TYPE_CHECKING:
    from PIL.Image import Image

REPOS = (
    "cafeai/cafe_aesthetic",
    "cafeai/cafe_waifu",
    "RE-N-Y/aesthetic-shadow-v2",
    "shadowlilac/aesthetic-shadow-v2",
    "shadowlilac/aesthetic-shadow",
)
URL = f"https://huggingface.co/{REPOS[0]}"

GOOD = ("aesthetic", "waifu", "hq", "high_quality", "good")
"""Labels that count where none is named: those of the classifiers above."""


@dataclass(frozen=True)
class ImageClassifier:
    """Scores any picture by how surely a classifier gives it one label.

    Range: about -4 to 4: the logarithm of p / (1 - p), so that its sigmoid is the
    label's probability p, what peers print. Higher is better; the prompt is not read.
    What it was trained on depends on the classifier: cafe_aesthetic on 3,500 pictures
    sorted by hand, aesthetic-shadow on anime pictures.

    Source: cafeai, shadowlilac (2022, 2023), through transformers'
    AutoModelForImageClassification.
    """

    id: str = "image_classifier"
    label: str = "Image classifier (cafe, shadow ...)"
    range: tuple[float, float] = (-4.0, 4.0)
    card: ScorerCard = field(
        default=ScorerCard(
            training="depends on the classifier",
            licence="of the classifier (cafe: AGPL-3.0; shadow: CC-BY-NC-4.0)",
            weights=(
                "a transformers image-classification folder (config.json, "
                "preprocessor_config.json, weights): given by you, or the first of "
                "these in the Hugging Face cache: " + ", ".join(REPOS)
            ),
            url=URL,
            options=(
                ScorerOption(
                    "label",
                    "",
                    "the label that counts; without it the one that is good: "
                    + ", ".join(GOOD),
                ),
            ),
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
                f"No classifier is on this machine; download {URL} (340 MB), for "
                f"example with `hf download {REPOS[0]}`, or give a folder."
            )
        if not is_model_folder(folder):
            return f"{folder} holds no transformers model; give a classifier's folder."
        if not (folder / "preprocessor_config.json").is_file():
            return (
                f"{folder} has no preprocessor_config.json, which says how pictures "
                "are scaled; download it from where the classifier is published."
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
        """Load a classifier.

        Raises:
            ScorerError: A file or a library is missing or wrong, or it has no such
                label.
        """
        reason = self.unavailable_reason(weights=weights)
        folder = weights or find_model(REPOS)
        if reason is not None or folder is None:
            raise ScorerError(reason or "No classifier is on this machine.")
        if progress is not None:
            progress.check()
        model, processor = _load(folder)
        labels = {int(i): str(name) for i, name in model.config.id2label.items()}
        index = _index((options or {}).get("label", ""), labels, folder)
        return _Loaded(model.eval().to(device), processor, index, device)


def _load(folder: Path) -> tuple[Any, Any]:
    import transformers

    place = {"pretrained_model_name_or_path": str(folder), "local_files_only": True}
    try:
        model = transformers.AutoModelForImageClassification.from_pretrained(**place)
        processor = transformers.AutoImageProcessor.from_pretrained(**place)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ScorerError(
            f"{folder} is no image classifier that transformers can load ({error})."
        ) from error
    return model.float(), processor


def _index(wanted: str, labels: Mapping[int, str], folder: Path) -> int:
    """Which of the classifier's labels counts."""
    by_name = {name.lower(): index for index, name in labels.items()}
    known = ", ".join(labels.values())
    if wanted:
        if wanted.lower() in by_name:
            return by_name[wanted.lower()]
        near = difflib.get_close_matches(wanted.lower(), by_name, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise ScorerError(
            f"The classifier in {folder} has no label '{wanted}'{hint} It has: {known}."
        )
    good = [by_name[name] for name in GOOD if name in by_name]
    if len(good) != 1:
        raise ScorerError(
            f"Which label of the classifier in {folder} counts? Give it as the option "
            f"`label`; it has: {known}."
        )
    return good[0]


class _Loaded:
    """A classifier in memory; satisfies the LoadedScorer port."""

    def __init__(self, model: Any, processor: Any, index: int, device: str) -> None:
        self._model = model
        self._processor = processor
        self._index = index
        self._device = device

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """log(p / (1 - p)) of the label that counts, in batches.

        Raises:
            ScorerError: Closed, or the numbers of pictures and prompts differ.
            NonFiniteError: The network's answer is not a number.
            MemoryLimitError: The device is full.
        """
        check_counts(images, prompts)
        if self._model is None:
            raise ScorerError("This scorer was closed; load it again.")
        model = self._model

        def judge(start: int) -> list[float]:
            import torch

            part = [image.convert("RGB") for image in images[start : start + BATCH]]
            found = self._processor(images=part, return_tensors="pt")
            logits = model(pixel_values=found["pixel_values"].to(self._device)).logits
            logits = logits.double()
            if logits.shape[1] == 1:
                return [float(value) for value in logits[:, 0]]
            others = torch.ones(logits.shape[1], dtype=torch.bool)
            others[self._index] = False
            rest = torch.logsumexp(logits[:, others.to(logits.device)], dim=1)
            return [float(value) for value in logits[:, self._index] - rest]

        return in_batches(judge, len(images), prompts)

    def close(self) -> None:
        """Free the network's memory."""
        self._model = None
        free_device(self._device)


SCORER = ImageClassifier()
