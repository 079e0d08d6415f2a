"""CLIP networks from files on this machine, by transformers: pictures and words."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.autombw.scorers._caches import hub_snapshots
from lib_merge.autombw.scorers._image_reward_files import (
    check_counts,
    check_finite,
    free_device,
    normalise,
)
from lib_merge.errors import MemoryLimitError, ScorerError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    Preprocess = Callable[[Sequence[Image], int], torch.Tensor]

_log = logging.getLogger(__name__)

BATCH = 8
MAX_TOKENS = 77

WORDS = (
    "openai/clip-vit-large-patch14",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    "openai/clip-vit-base-patch32",
    "openai/clip-vit-base-patch16",
)
"""Repositories that hold CLIP's words, which are the same in all of them."""

NO_TRANSFORMERS = (
    "The Python package 'transformers' is missing; install it (every WebUI has it)."
)


def has_transformers() -> bool:
    """Whether transformers can be imported."""
    return importlib.util.find_spec("transformers") is not None


def is_model_folder(folder: Path) -> bool:
    """Whether a folder holds a transformers model."""
    names = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")
    has_weights = any((folder / name).is_file() for name in names)
    return has_weights and (folder / "config.json").is_file()


def find_model(repos: Sequence[str]) -> Path | None:
    """A transformers model in the Hugging Face cache."""
    found = (s for repo in repos for s in hub_snapshots(repo) if is_model_folder(s))
    return next(found, None)


def has_words(folder: Path) -> bool:
    """Whether a folder holds CLIP's words."""
    files = {path.name for path in folder.glob("*.*")}
    return "tokenizer.json" in files or {"vocab.json", "merges.txt"} <= files


def find_words(folder: Path) -> Path | None:
    """CLIP's words: in this folder, its `tokenizer` folder, or the cache."""
    places = [folder, folder / "tokenizer"]
    places += [place for repo in WORDS for place in hub_snapshots(repo)]
    return next((place for place in places if has_words(place)), None)


def centre(images: Sequence[Image], size_px: int) -> torch.Tensor:
    """Pictures as transformers' CLIP processor gives them.

    Short side scaled to `size_px` (bicubic), centre cut out, rounded down.

    Returns:
        (n, 3, size_px, size_px) float32, CLIP's mean and deviation taken out.
    """
    from PIL.Image import Resampling

    squares = []
    for image in images:
        width, height = image.size
        short = min(width, height)
        scaled = (int(size_px * width / short), int(size_px * height / short))
        large = image.convert("RGB").resize(scaled, Resampling.BICUBIC)
        left, top = (scaled[0] - size_px) // 2, (scaled[1] - size_px) // 2
        squares.append(large.crop((left, top, left + size_px, top + size_px)))
    return normalise(squares)


class Clip:
    """A CLIP network in memory.

    Args:
        model: transformers' CLIPModel, in evaluation mode.
        words: A folder with its words, or None where only pictures are read.
        device: torch device.
    """

    def __init__(self, model: Any, words: Path | None, device: str) -> None:
        self._model: Any = model.float().to(device)
        self._tokens = _tokenizer(words) if words is not None else None
        self._device = device
        self._has_warned = False
        self.size_px = int(model.config.vision_config.image_size)
        self.width = int(model.config.projection_dim)

    @property
    def scale(self) -> float:
        """What cosines are multiplied by: exp of the trained logit scale."""
        return float(self.model.logit_scale.detach().exp())

    @property
    def model(self) -> Any:
        """The network.

        Raises:
            ScorerError: It was closed.
        """
        if self._model is None:
            raise ScorerError("This scorer was closed; load it again.")
        return self._model

    def picture_features(
        self, images: Sequence[Image], preprocess: Preprocess
    ) -> torch.Tensor:
        """(n, width) float32 of length 1."""
        model = self.model
        pixels = preprocess(images, self.size_px).to(self._device)
        return _unit(
            model.visual_projection(model.vision_model(pixel_values=pixels)[1])
        )

    def word_features(self, prompts: Sequence[str]) -> torch.Tensor:
        """(n, width) float32 of length 1; prompts are cut at 77 tokens."""
        if self._tokens is None:
            raise ScorerError("This CLIP was loaded without its words.")
        self._warn_of_cut(prompts)
        found = self._tokens(
            list(prompts),
            padding="max_length",
            max_length=MAX_TOKENS,
            truncation=True,
            return_tensors="pt",
        )
        model = self.model
        most = int(found["input_ids"].max())
        if most >= model.config.text_config.vocab_size:
            raise ScorerError(
                f"The tokenizer has an id {most}, but the network knows "
                f"{model.config.text_config.vocab_size} words; give the words that "
                "belong to the weights."
            )
        read = model.text_model(
            input_ids=found["input_ids"].to(self._device),
            attention_mask=found["attention_mask"].to(self._device),
        )
        return _unit(model.text_projection(read[1]))

    def _warn_of_cut(self, prompts: Sequence[str]) -> None:
        if self._has_warned or self._tokens is None:
            return
        for prompt in prompts:
            n_tokens = len(self._tokens(prompt, verbose=False)["input_ids"])
            if n_tokens > MAX_TOKENS:
                self._has_warned = True
                _log.warning(
                    "The scorer reads only the first %d of the %d tokens of the prompt "
                    "'%s...'; what stands behind them has no effect on scores.",
                    *(MAX_TOKENS, n_tokens, prompt[:40]),
                )
                return

    def close(self) -> None:
        """Free the network's memory."""
        self._model = None
        free_device(self._device)


def _unit(features: torch.Tensor) -> torch.Tensor:
    features = features.float()
    length: torch.Tensor = features.norm(dim=-1, keepdim=True)
    return features / length


class SimilarityScorer:
    """Scores pictures by how near their prompt they are; a LoadedScorer.

    Args:
        clip: The network.
        preprocess: How pictures become what it sees.
        scale: What cosines are multiplied by; by default the network's own.
    """

    def __init__(
        self, clip: Clip, preprocess: Preprocess = centre, scale: float | None = None
    ) -> None:
        self._clip = clip
        self._preprocess = preprocess
        self._scale = clip.scale if scale is None else scale

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """scale * cosine of picture and prompt, in batches.

        Raises:
            ScorerError: Closed, or the numbers of pictures and prompts differ.
            NonFiniteError: The network's answer is not a number.
            MemoryLimitError: The device is full.
        """
        check_counts(images, prompts)

        def similar(start: int) -> list[float]:
            part = slice(start, start + BATCH)
            pictures = self._clip.picture_features(images[part], self._preprocess)
            words = self._clip.word_features(prompts[part])
            return [float(x) for x in self._scale * (pictures * words).sum(-1)]

        return in_batches(similar, len(images), prompts)

    def close(self) -> None:
        """Free the network's memory."""
        self._clip.close()


def in_batches(
    score: Callable[[int], list[float]], n_images: int, prompts: Sequence[str]
) -> list[float]:
    """Scores of all pictures, asked for from every start of a batch.

    Raises:
        NonFiniteError: A score is not a number.
        MemoryLimitError: The device is full.
    """
    import torch

    scores: list[float] = []
    try:
        with torch.inference_mode():
            for start in range(0, n_images, BATCH):
                scores += score(start)
    except torch.cuda.OutOfMemoryError as error:
        raise MemoryLimitError(
            f"No memory left to score {n_images} pictures; score on the cpu."
        ) from error
    check_finite(scores, prompts)
    return scores


def load_clip(folder: Path, *, device: str, has_prompts: bool = True) -> Clip:
    """Load a transformers CLIP folder without asking the network.

    Args:
        folder: config.json, weights, and CLIP's words unless they are in the cache.
        device: torch device.
        has_prompts: Whether prompts will be read.

    Raises:
        ScorerError: It cannot be loaded.
    """
    import transformers

    words = find_words(folder) if has_prompts else None
    if has_prompts and words is None:
        raise ScorerError(no_words(folder))
    try:
        model = transformers.CLIPModel.from_pretrained(
            str(folder), local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ScorerError(
            f"{folder} is no CLIP model that transformers can load ({error}). It must "
            "hold config.json and model.safetensors."
        ) from error
    return Clip(model.eval(), words, device)


def no_words(folder: Path) -> str:
    """What to do where CLIP's words are missing."""
    return (
        "CLIP's words are missing; put vocab.json and merges.txt of "
        f"https://huggingface.co/{WORDS[0]} into {folder}."
    )


def _tokenizer(folder: Path) -> Any:
    import transformers

    try:
        return transformers.CLIPTokenizerFast.from_pretrained(
            str(folder), local_files_only=True
        )
    except (OSError, ValueError, TypeError) as error:
        raise ScorerError(
            f"CLIP's words in {folder} cannot be read: {error}."
        ) from error
