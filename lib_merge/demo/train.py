"""Trains the demo's models: `python -m lib_merge.demo.train`."""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lib_merge.core.seeds import derive_seed
from lib_merge.demo import PIPELINE_DIR, _vae
from lib_merge.demo._settings import TrainSettings

_log = logging.getLogger(__name__)


def new_vae() -> Any:
    """The autoencoder that pipeline/vae describes, untrained."""
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_config(AutoencoderKL.load_config(PIPELINE_DIR / "vae"))


def stage_vae(settings: TrainSettings) -> None:
    """Train the autoencoder; leaves vae.safetensors."""
    torch.manual_seed(derive_seed(settings.seed, "vae-init"))
    vae = new_vae()
    _vae.train_vae(vae, settings)
    contiguous = {k: v.contiguous() for k, v in vae.state_dict().items()}
    save_file(contiguous, settings.work_dir / "vae.safetensors")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(message)s")
    p = argparse.ArgumentParser()
    p.add_argument("--work", type=Path)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--vae-steps", type=int, default=500)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    a.work.mkdir(parents=True, exist_ok=True)
    t, c = time.time(), time.process_time()
    stage_vae(TrainSettings(a.work, vae_steps=a.vae_steps))
    _log.info("vae stage %.0f s wall %.0f s cpu", time.time() - t, time.process_time() - c)


if __name__ == "__main__":
    main()
