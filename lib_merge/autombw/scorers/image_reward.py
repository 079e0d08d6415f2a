"""ImageReward-v1.0: how well people would like a picture for its prompt."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.autombw.scorers._caches import hub_caches, hub_file, own_folder
from lib_merge.autombw.scorers._download import Source, download, is_offline
from lib_merge.autombw.scorers._image_reward_files import (
    LoadedNet,
    check_counts,
    check_finite,
    find_vocabulary,
    free_device,
)
from lib_merge.core.ports import LoadedScorer, Progress, ScorerCard
from lib_merge.errors import ScorerError

if TYPE_CHECKING:
    from PIL.Image import Image

_log = logging.getLogger(__name__)

URL = "https://huggingface.co/THUDM/ImageReward/resolve/main/ImageReward.pt"
"""Where the weights are published (1.79 GB, Apache-2.0)."""

VOCABULARY_URL = "https://huggingface.co/bert-base-uncased/resolve/main/vocab.txt"
"""Where its words are published (Apache-2.0)."""

REPOS = ("zai-org/ImageReward", "THUDM/ImageReward")
"""Names of its repository in the Hugging Face cache."""

_MED_CONFIG = "med_config.json"
_PACKAGES = Path("~/.cache/ImageReward/ImageReward.pt")


def default_weights() -> Path:
    """Where a download puts its weights: the folder that the user chose for scorers,
    else where the image-reward package keeps them."""
    folder = own_folder()
    return _PACKAGES.expanduser() if folder is None else folder / _PACKAGES.name


def find_weights() -> Path:
    """The weights on this machine, or where a download puts them."""
    default = default_weights()
    for place in (default, _PACKAGES.expanduser()):
        if place.is_file():
            return place
    return hub_file(REPOS, default.name) or default


@dataclass(frozen=True)
class ImageReward:
    """Scores any picture against its prompt.

    Range: about -2 to 2, mean 0 and spread 1 over its training pairs; higher is better.
    Trained on 137 thousand comparisons that people made between pictures of one prompt.
    Reads the first 35 tokens of a prompt and the square centre of a picture. About
    1.6 GB of GPU memory. Uses the image-reward package where that imports and its
    med_config.json lies beside the weights, else the same network in plain torch.
    Weights: URL above, Apache-2.0. Its authors publish no checksum that we know of; a
    download is compared with the SHA-256 that the Hugging Face hub names for the file.

    Source: Xu et al., ImageReward: Learning and Evaluating Human Preferences for
    Text-to-Image Generation, 2023, arxiv.org/abs/2304.05977.
    """

    id: str = "image_reward"
    label: str = "ImageReward v1.0"
    range: tuple[float, float] = (-2.0, 2.0)
    card: ScorerCard = field(
        default=ScorerCard(
            training="137 thousand comparisons by experts (ImageRewardDB, 2023)",
            licence="Apache-2.0",
            weights=(
                "ImageReward.pt and bert's vocab.txt: given by you, else in the folder "
                "of your settings, else in ~/.cache/ImageReward, else the Hugging "
                "Face cache, else downloaded (1.79 GB) at the first use"
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
        if importlib.util.find_spec("tokenizers") is None:
            return (
                "The Python package 'tokenizers' is missing; install transformers, "
                "which brings it."
            )
        if weights is None and not is_offline():
            return None
        return _missing_file(weights or find_weights())

    def load(
        self,
        *,
        device: str = "cpu",
        weights: Path | None = None,
        progress: Progress | None = None,
        options: Mapping[str, str] | None = None,
    ) -> LoadedScorer:
        """Load ImageReward, after downloading what is missing.

        Args:
            device: torch device.
            weights: ImageReward.pt, if not where find_weights() says; bert's
                vocab.txt is looked for beside it, then in the Hugging Face cache.
            progress: Shows a download, and is asked whether to stop.
            options: It has none.

        Raises:
            ScorerError: A file is missing or wrong, or cannot be downloaded.
        """
        path = weights or _fetched_weights(progress)
        if progress is not None:
            progress.check()
        package = _package_model(path, device)
        if package is not None:
            return package
        if not path.is_file():
            raise ScorerError(_no_weights(path))
        return LoadedNet(path, _fetched_vocabulary(path, progress), device=device)


def _fetched_weights(progress: Progress | None) -> Path:
    path = find_weights()
    if not path.is_file():
        _log.info("Downloading %s.", URL)
        download(Source(URL), path, progress)
    return path


def _fetched_vocabulary(weights: Path, progress: Progress | None) -> Path:
    found = find_vocabulary(weights, hub_caches())
    if found is not None:
        return found
    # Not beside the weights of a hub snapshot, which belongs to the hub's library.
    target = default_weights().with_name("vocab.txt")
    if target.is_file():
        return target
    if is_offline():
        raise ScorerError(_no_vocabulary(weights))
    return download(Source(VOCABULARY_URL), target, progress)


def _missing_file(weights: Path) -> str | None:
    if not weights.is_file():
        return _no_weights(weights)
    if find_vocabulary(weights, hub_caches()) is None and is_offline():
        return _no_vocabulary(weights)
    return None


def _no_weights(weights: Path) -> str:
    return (
        f"The ImageReward weights {weights} are missing; download {URL} (1.79 GB) "
        "and put it there."
    )


def _no_vocabulary(weights: Path) -> str:
    return (
        "The words of bert-base-uncased are missing; download "
        f"{VOCABULARY_URL} and put it beside {weights}."
    )


class _PackageModel:
    """The image-reward package's own model; satisfies the LoadedScorer port."""

    def __init__(self, model: Any, device: str) -> None:
        self._model = model
        self._device = device

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Rewards, one picture at a time as the package works.

        Raises:
            ScorerError: Closed, or the numbers of pictures and prompts differ.
            NonFiniteError: The network's answer is not a number.
        """
        import torch

        if self._model is None:
            raise ScorerError("This scorer was closed; load it again.")
        check_counts(images, prompts)
        with torch.inference_mode():
            pairs = zip(prompts, images, strict=True)
            rewards = [float(self._model.score(text, image)) for text, image in pairs]
        check_finite(rewards, prompts)
        return rewards

    def close(self) -> None:
        """Free the network's memory."""
        self._model = None
        free_device(self._device)


def _package_model(weights: Path, device: str) -> _PackageModel | None:
    """The package's model, or None where it cannot be had without a download."""
    config = weights.with_name(_MED_CONFIG)
    has_files = weights.is_file() and config.is_file()
    if not has_files or importlib.util.find_spec("ImageReward") is None:
        return None
    try:
        package = importlib.import_module("ImageReward")
        model = package.load(str(weights), device=device, med_config=str(config))
    except (ImportError, AttributeError, OSError, RuntimeError, TypeError) as error:
        # Its dependencies of 2023 rarely import today; the plain network needs none.
        _log.info("The image-reward package does not load here (%s).", error)
        return None
    return _PackageModel(model, device)


SCORER = ImageReward()
