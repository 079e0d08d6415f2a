"""LAION's aesthetic predictors v1 and v2, and heads of their layout (chadscorer)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.autombw.scorers._clip import (
    NO_TRANSFORMERS,
    Clip,
    find_model,
    has_transformers,
    in_batches,
    is_model_folder,
    load_clip,
)
from lib_merge.autombw.scorers._image_reward_files import (
    check_counts,
    preprocess,
    read_weights,
)
from lib_merge.core.ports import LoadedScorer, Progress, ScorerCard, ScorerOption
from lib_merge.errors import ScorerError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

REPOS = ("openai/clip-vit-large-patch14", "openai/clip-vit-base-patch32")
URL = "https://github.com/christophschuhmann/improved-aesthetic-predictor"

_RELU = "reluMSE"
"""Part of the name of the one published head with activations between its layers."""


@dataclass(frozen=True)
class LaionAesthetic:
    """Scores any picture for its looks; the prompt is not read.

    Range: about 3 to 8 of 10; higher is better. A small head on CLIP's features of the
    square centre of a picture (ViT-L/14, about 1.7 GB of memory). Heads that fit:
    LAION v1 (sa_0_4_vit_l_14_linear.pth: one layer), v2 (sac+logos+ava1-l14-linearMSE
    .pth and its sisters: five layers) and chadscorer.pth (the layout of v2). Trained on
    people's ratings: v1 on Simulacra captions, v2 on those, AVA and LAION-Logos.

    Source: Schuhmann, improved-aesthetic-predictor, 2022, and LAION-AI/
    aesthetic-predictor, 2022.
    """

    id: str = "laion_aesthetic"
    label: str = "LAION aesthetic v1 / v2, chadscorer"
    range: tuple[float, float] = (3.0, 8.0)
    card: ScorerCard = field(
        default=ScorerCard(
            training="people's ratings of pictures (SAC, AVA, LAION-Logos)",
            licence="Apache-2.0 (LAION's heads)",
            weights=(
                "a head file (.pth or .safetensors) given by you; CLIP ViT-L/14 as a "
                "transformers folder: option `clip`, or the Hugging Face cache"
            ),
            url=URL,
            options=(
                ScorerOption(
                    "clip", "", "folder of the CLIP that the head was made for"
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
        if weights is None:
            return (
                "It needs a head file: download sac+logos+ava1-l14-linearMSE.pth "
                f"(4 MB) from {URL} and give its path as the scorer's weights."
            )
        if not weights.is_file():
            return f"The head {weights} does not exist; give another path."
        folder = _clip_folder(options)
        if folder is None or not is_model_folder(folder):
            return (
                "It needs CLIP ViT-L/14: `hf download openai/clip-vit-large-patch14` "
                "(1.7 GB), or give the folder as the option `clip`."
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
        """Load a head and its CLIP.

        Raises:
            ScorerError: A file or a library is missing or wrong, or they do not belong
                together.
        """
        reason = self.unavailable_reason(weights=weights, options=options)
        folder = _clip_folder(options)
        if reason is not None or weights is None or folder is None:
            raise ScorerError(reason or "The head is missing.")
        if progress is not None:
            progress.check()
        layers = _layers(read_weights(weights), weights)
        clip = load_clip(folder, device=device, has_prompts=False)
        if layers[0][0].shape[1] != clip.width:
            raise ScorerError(
                f"{weights} reads {layers[0][0].shape[1]} features, but the CLIP in "
                f"{folder} gives {clip.width}; give the CLIP that belongs to it."
            )
        return _Head(clip, layers, device, has_relu=_RELU in weights.name)


def _clip_folder(options: Mapping[str, str] | None) -> Path | None:
    given = (options or {}).get("clip", "")
    return Path(given).expanduser() if given else find_model(REPOS)


def _layers(state: Mapping[str, Tensor], path: Path) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) of every layer of a head, from its first to its last."""
    plain = {key.removeprefix("module."): value for key, value in state.items()}
    if set(plain) == {"weight", "bias"}:
        names = [""]
    else:
        numbers = {key.split(".")[1] for key in plain if key.startswith("layers.")}
        is_all = all(number.isdigit() for number in numbers)
        names = [f"layers.{n}." for n in sorted(map(int, numbers))] if is_all else []
    known = {name + part for name in names for part in ("weight", "bias")}
    if not names or set(plain) != known:
        raise ScorerError(
            f"{path} is no head that is known here (it holds {sorted(plain)[:4]}); "
            "LAION v1 has weight and bias, v2 and chadscorer layers.0.weight ..."
        )
    layers = [(plain[f"{n}weight"].float(), plain[f"{n}bias"].float()) for n in names]
    widths = [weight.shape for weight, _ in layers]
    fits = all(a[0] == b[1] for a, b in pairwise(widths))
    if not fits or widths[-1][0] != 1:
        raise ScorerError(f"The layers of {path} do not follow on each other.")
    return layers


class _Head:
    """A head and its CLIP in memory; satisfies the LoadedScorer port."""

    def __init__(
        self,
        clip: Clip,
        layers: Sequence[tuple[Tensor, Tensor]],
        device: str,
        *,
        has_relu: bool,
    ) -> None:
        self._clip = clip
        self._layers = [(w.to(device), b.to(device)) for w, b in layers]
        self._has_relu = has_relu

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """The head's ratings, in batches.

        Raises:
            ScorerError: Closed, or the numbers of pictures and prompts differ.
            NonFiniteError: The network's answer is not a number.
            MemoryLimitError: The device is full.
        """
        from lib_merge.autombw.scorers._clip import BATCH

        check_counts(images, prompts)

        def rate(start: int) -> list[float]:
            part = images[start : start + BATCH]
            values = self._clip.picture_features(part, preprocess)
            for number, (weight, bias) in enumerate(self._layers):
                if number and self._has_relu:
                    values = values.relu()
                values = values @ weight.T + bias
            return [float(value) for value in values[:, 0]]

        return in_batches(rate, len(images), prompts)

    def close(self) -> None:
        """Free the network's memory."""
        self._clip.close()
        self._layers = []


SCORER = LaionAesthetic()
