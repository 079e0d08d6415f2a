"""Measuring the demo's pair: judge scores of both parents and of mixtures."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from lib_merge.arch.sd1 import UNET_BLOCKS, role_of
from lib_merge.core.ports import LoadedScorer
from lib_merge.core.seeds import derive_seed
from lib_merge.demo import DEMO_PROMPTS, RENDER
from lib_merge.demo._layout import unet_key
from lib_merge.demo._settings import TrainSettings

_log = logging.getLogger(__name__)

BLOCKS = tuple(block.id for block in UNET_BLOCKS)
"""The 27 UNet blocks in the order of a weight vector."""

HELD_OUT = 10_000
"""First seed of the pictures that no search sees."""

_N_SEARCH_SEEDS = 2


@dataclass(frozen=True)
class Bench:
    """Renders and scores block-weighted mixtures of two checkpoints.

    Attributes:
        pipe: A diffusers pipeline whose UNet is overwritten.
        first: UNet tensors of A by single-file key, float32.
        second: UNet tensors of B.
        judge: Scores the pictures.
    """

    pipe: Any
    first: Mapping[str, Tensor]
    second: Mapping[str, Tensor]
    judge: LoadedScorer

    @torch.no_grad()
    def mix(self, weights: Sequence[float]) -> None:
        """Write lerp(A, B, weight of its block) into every UNet tensor."""
        by_block = dict(zip(BLOCKS, weights, strict=True))
        for name, parameter in self.pipe.unet.named_parameters():
            key = unet_key(name)
            role = role_of(key)
            assert role is not None
            weight = float(by_block[role.block])
            parameter.copy_(torch.lerp(self.first[key], self.second[key], weight))

    def scores(self, weights: Sequence[float], seeds: Sequence[int]) -> np.ndarray:
        """Raw scores of every demo prompt under every seed.

        Returns:
            (n_seeds, n_prompts) float64.
        """
        self.mix(weights)
        return np.array([self._score_seed(seed) for seed in seeds])

    def _score_seed(self, seed: int) -> list[float]:
        prompts = list(DEMO_PROMPTS)
        return self.judge.score(render(self.pipe, prompts, seed), prompts)


def render(pipe: Any, prompts: Sequence[str], seed: int) -> list[Any]:
    """Pictures of the demo's settings; picture i starts from noise seed + i."""
    noises = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    return list(
        pipe(
            list(prompts),
            generator=noises,
            num_inference_steps=RENDER.steps,
            guidance_scale=RENDER.cfg_scale,
            width=RENDER.width,
            height=RENDER.height,
        ).images
    )


def unet_tensors(path: Path) -> dict[str, Tensor]:
    """A checkpoint's UNet tensors in float32, by key."""
    prefix = "model.diffusion_model."
    return {k: v.float() for k, v in load_file(path).items() if k.startswith(prefix)}


def measure(bench: Bench, settings: TrainSettings) -> None:
    """Log held-out scores of A, B, uniform mixtures and the best of random vectors."""
    seeds = [HELD_OUT + 100 * i for i in range(settings.n_seeds)]
    n_blocks = len(BLOCKS)
    for label, weight in (("A", 0.0), ("B", 1.0), ("uniform 0.5", 0.5)):
        _report(label, bench.scores([weight] * n_blocks, seeds))
    for label, vector in splits().items():
        _report(label, bench.scores(vector, seeds))
    rng = np.random.default_rng(derive_seed(settings.seed, "vectors"))
    vectors = rng.random((settings.n_vectors, n_blocks))
    searched = range(0, 100 * _N_SEARCH_SEEDS, 100)
    means = [bench.scores(vector, searched).mean() for vector in vectors]
    best = int(np.argmax(means))
    _log.info(
        "%d random vectors on search seeds: mean %.3f sd %.3f best %.3f",
        *(len(means), np.mean(means), np.std(means), means[best]),
    )
    _report("best random vector", bench.scores(vectors[best], seeds))


def splits() -> dict[str, list[float]]:
    """Vectors that join one parent's input side to the other's output side."""
    is_down = [name.startswith("IN") or name == "M00" for name in BLOCKS]
    return {
        "inputs from B, outputs from A": [1.0 if down else 0.0 for down in is_down],
        "inputs from A, outputs from B": [0.0 if down else 1.0 for down in is_down],
    }


def _report(label: str, scores: np.ndarray) -> None:
    by_seed = scores.mean(axis=1)
    half = scores.shape[1] // 2
    _log.info(
        "held-out %s: mean %.3f, sd of seed means %.3f, first half of prompts %.3f, "
        "second %.3f",
        *(label, scores.mean(), by_seed.std(ddof=1) if len(by_seed) > 1 else 0.0),
        *(scores[:, :half].mean(), scores[:, half:].mean()),
    )
