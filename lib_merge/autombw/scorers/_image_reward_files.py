"""Weights and vocabulary of ImageReward-layout networks, from files to scores."""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lib_merge.errors import MemoryLimitError, NonFiniteError, ScorerError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from lib_merge.autombw.scorers._image_reward_net import ImageRewardNet
_log = logging.getLogger(__name__)

MAX_TOKENS = 35
"""Prompts are cut to this many tokens, [CLS] and [SEP] included, as in training."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_SD = (0.26862954, 0.26130258, 0.27577711)
_BATCH = 16
_VOCABULARIES = ("vocab.txt", "tokenizer.json")
_BERT = ("models--google-bert--bert-base-uncased", "models--bert-base-uncased")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a .safetensors or (weights only) .pt file.

    Where a file keeps them one level down, under "state_dict", those are meant.

    Raises:
        ScorerError: The file is missing, damaged or holds more than tensors.
    """
    import torch

    if not path.is_file():
        raise ScorerError(
            f"The scorer's weights {path} do not exist; put the file there or give "
            "another path."
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return cast("dict[str, torch.Tensor]", load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as err:
        raise ScorerError(
            f"The scorer's weights {path} cannot be read ({err}). The file may be "
            "incomplete; download it again."
        ) from err
    except Exception as error:
        # safetensors raises a class of its own that derives from Exception alone.
        if type(error).__module__.split(".")[0] != "safetensors":
            raise
        raise ScorerError(
            f"The scorer's weights {path} are no valid safetensors file ({error}). "
            "Download it again."
        ) from error
    if not isinstance(state, dict):
        raise ScorerError(
            f"{path} holds a {type(state).__name__}, not weights by name; choose "
            "ImageReward.pt or a file of the same layout."
        )
    inner = state.get("state_dict")
    state = inner if isinstance(inner, dict) else state
    return {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}


class PromptTokens:
    """BERT word pieces of prompts, cut and padded to MAX_TOKENS.

    Args:
        vocabulary: A vocab.txt, or a tokenizer.json of a lower-casing BERT.

    Raises:
        ScorerError: The file cannot be used.
    """

    def __init__(self, vocabulary: Path) -> None:
        self._has_warned = False
        self._tokens = _tokenizer(vocabulary)
        self._tokens.no_truncation()
        self._tokens.no_padding()

    def encode(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and attention, both (n, MAX_TOKENS) int64.

        Too long a prompt is cut as ImageReward cuts it; the first time is logged.
        """
        import torch

        rows, masks = [], []
        for prompt in prompts:
            ids = list(self._tokens.encode(prompt).ids)
            if len(ids) > MAX_TOKENS:
                self._warn(prompt, len(ids))
                ids = [*ids[: MAX_TOKENS - 1], ids[-1]]
            n_padding = MAX_TOKENS - len(ids)
            rows.append(ids + [0] * n_padding)
            masks.append([1] * len(ids) + [0] * n_padding)
        return torch.tensor(rows), torch.tensor(masks)

    def _warn(self, prompt: str, n_tokens: int) -> None:
        if not self._has_warned:
            self._has_warned = True
            _log.warning(
                "The scorer reads only the first %d of the %d tokens of the prompt "
                "'%s...'; what stands behind them has no effect on scores.",
                *(MAX_TOKENS, n_tokens, prompt[:40]),
            )


def _tokenizer(vocabulary: Path) -> Any:
    try:
        from tokenizers import BertWordPieceTokenizer, Tokenizer
    except ImportError as error:
        raise ScorerError(
            "The Python package 'tokenizers' is missing; install transformers, which "
            "brings it."
        ) from error
    if not vocabulary.is_file():
        raise ScorerError(
            f"The vocabulary {vocabulary} does not exist; put the vocab.txt of "
            "bert-base-uncased there."
        )
    if vocabulary.suffix == ".json":
        return Tokenizer.from_file(str(vocabulary))
    return BertWordPieceTokenizer(str(vocabulary), lowercase=True)


def preprocess(images: Sequence[Image], size_px: int) -> torch.Tensor:
    """Pictures as the network was trained on them.

    Short side scaled to `size_px` (bicubic), centre cut out, CLIP's mean and sd: the
    sides of a wide picture are not seen.

    Returns:
        (n, 3, size_px, size_px) float32.
    """
    return normalise([_cut(image.convert("RGB"), size_px) for image in images])


def normalise(squares: Sequence[Image]) -> torch.Tensor:
    """RGB pictures of one size with CLIP's mean and deviation taken out.

    Returns:
        (n, 3, height, width) float32.
    """
    import numpy as np
    import torch

    mean = np.array(CLIP_MEAN, dtype=np.float32)
    sd = np.array(CLIP_SD, dtype=np.float32)
    rows = []
    for square in squares:
        values = np.asarray(square, dtype=np.float32) / np.float32(255.0)
        rows.append(torch.from_numpy((values - mean) / sd).permute(2, 0, 1))
    return torch.stack(rows)


def _cut(image: Image, size_px: int) -> Image:
    from PIL.Image import Resampling

    width, height = image.size
    short = min(width, height)
    scaled = (int(size_px * width / short), int(size_px * height / short))
    if scaled != image.size:
        image = image.resize(scaled, Resampling.BICUBIC)
    left = round((scaled[0] - size_px) / 2.0)
    top = round((scaled[1] - size_px) / 2.0)
    return image.crop((left, top, left + size_px, top + size_px))


class LoadedNet:
    """An ImageReward-layout network in memory; satisfies the LoadedScorer port.

    Args:
        weights: Its weights.
        vocabulary: Its vocab.txt or tokenizer.json.
        device: torch device.

    Raises:
        ScorerError: A file is missing or wrong, or they do not belong together.
    """

    def __init__(self, weights: Path, vocabulary: Path, *, device: str = "cpu") -> None:
        from lib_merge.autombw.scorers._image_reward_net import build_network

        self._tokens = PromptTokens(vocabulary)
        self._net: ImageRewardNet | None = build_network(
            read_weights(weights), where=str(weights)
        ).to(device)
        self._device = device

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Rewards; one a picture.

        Raises:
            ScorerError: Closed, or the numbers of pictures and prompts differ.
            NonFiniteError: The network's answer is not a number.
            MemoryLimitError: The device is full.
        """
        if self._net is None:
            raise ScorerError("This scorer was closed; load it again.")
        check_counts(images, prompts)
        rewards: list[float] = []
        for start in range(0, len(images), _BATCH):
            part = slice(start, start + _BATCH)
            rewards += self._score_batch(self._net, images[part], prompts[part])
        check_finite(rewards, prompts)
        return rewards

    def _score_batch(
        self, net: ImageRewardNet, images: Sequence[Image], prompts: Sequence[str]
    ) -> list[float]:
        import torch

        pictures = preprocess(images, net.sizes.image_px)
        ids, attends = self._tokens.encode(prompts)
        if int(ids.max()) >= net.sizes.n_words:
            raise ScorerError(
                f"The vocabulary has an id {int(ids.max())}, but the network knows "
                f"{net.sizes.n_words} words; give the vocabulary that belongs to the "
                "weights."
            )
        try:
            with torch.inference_mode():
                rewards = net(*(x.to(self._device) for x in (pictures, ids, attends)))
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryLimitError(
                f"No memory left on {self._device} to score {len(images)} pictures; "
                "score on the cpu."
            ) from error
        return [float(reward) for reward in rewards.cpu()]

    def close(self) -> None:
        """Free the network's memory."""
        self._net = None
        free_device(self._device)


def free_device(device: str) -> None:
    """Give a CUDA device's unused memory back to others."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def check_counts(images: Sequence[object], prompts: Sequence[str]) -> None:
    """One prompt a picture.

    Raises:
        ScorerError: The numbers differ.
    """
    if len(images) != len(prompts):
        raise ScorerError(
            f"{len(images)} pictures came with {len(prompts)} prompts to the scorer; "
            "give one prompt a picture."
        )


def check_finite(rewards: Sequence[float], prompts: Sequence[str]) -> None:
    """No reward is NaN or infinite.

    Raises:
        NonFiniteError: One is.
    """
    for reward, prompt in zip(rewards, prompts, strict=True):
        if not math.isfinite(reward):
            raise NonFiniteError(
                f"The scorer answered {reward} for a picture of '{prompt[:60]}'; look "
                "at the picture, and check the scorer's weights file."
            )


def find_vocabulary(weights: Path, caches: Sequence[Path]) -> Path | None:
    """The vocabulary that goes with a weights file.

    Args:
        weights: The weights; a vocabulary in the same folder comes first.
        caches: Hugging Face hub caches searched for bert-base-uncased.
    """
    places = [weights.parent]
    for cache in caches:
        for repo in _BERT:
            places += sorted((cache / repo / "snapshots").glob("*"))
    for place in places:
        for name in _VOCABULARIES:
            if (place / name).is_file():
                return place / name
    return None
