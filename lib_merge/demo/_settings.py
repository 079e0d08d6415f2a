"""How long each training stage of the demo runs, and where it keeps its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainSettings:
    """Everything that the demo's training depends on, besides the code.

    Attributes:
        work_dir: Where the stages leave their results for the next one.
        seed: Seeds every stage; the same seed and thread count repeat the run.
        vae_steps: Steps of the image autoencoder.
        judge_steps: Steps of the judge.
        base_steps: Steps of the UNet and text encoder.
        erode_steps: Steps of each parent's fine-tuning.
        n_pictures: Pictures drawn for each subject as training data.
        n_seeds: Held-out seeds a prompt in the final measurement.
        n_vectors: Random block vectors in the final measurement.
    """

    work_dir: Path
    seed: int = 0
    vae_steps: int = 900
    judge_steps: int = 800
    base_steps: int = 1000
    erode_steps: int = 150
    n_pictures: int = 160
    n_seeds: int = 6
    n_vectors: int = 30
