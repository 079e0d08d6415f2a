"""What comparisons are checked against: plain float64 loops over pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from tests.support.checkpoints import write_checkpoint

State = Mapping[str, torch.Tensor]


def is_weight(tensor: torch.Tensor, key: str) -> bool:
    """Whether a key of the tiny checkpoints is one that is compared."""
    return tensor.is_floating_point() and "." in key and "position_ids" not in key


def moved(
    state: State, seed: int, scale: float, dtype: torch.dtype | None = None
) -> dict[str, torch.Tensor]:
    """A model with normal noise on every weight, in its own dtype or another."""
    noise = torch.Generator().manual_seed(seed)
    found = {}
    for key, tensor in state.items():
        if not is_weight(tensor, key):
            found[key] = tensor.clone()
            continue
        step = torch.randn(tensor.shape, generator=noise, dtype=torch.float64) * scale
        found[key] = (tensor.double() + step).to(dtype or tensor.dtype)
    return found


def write_models(folder: Path, states: Mapping[str, State]) -> list[Path]:
    """Write some models, each under its name."""
    return [
        write_checkpoint(folder / f"{name}.safetensors", state)
        for name, state in states.items()
    ]


def pair_loop(states: Sequence[State], keys: Sequence[str]) -> np.ndarray:
    """L2 distances over some keys, pair by pair, key by key."""
    n_models = len(states)
    found = np.zeros((n_models, n_models))
    for i in range(n_models):
        for j in range(n_models):
            total = 0.0
            for key in keys:
                gap = states[i][key].double() - states[j][key].double()
                total += float(gap.square().sum())
            found[i, j] = total**0.5
    return found


def flat(state: State, keys: Sequence[str]) -> np.ndarray:
    """All values of some keys as one float64 vector."""
    return torch.cat([state[key].double().reshape(-1) for key in keys]).numpy()
