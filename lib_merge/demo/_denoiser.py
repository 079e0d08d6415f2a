"""Training the demo's UNet and text encoder, and eroding it into two parents."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lib_merge.core.seeds import derive_seed
from lib_merge.demo import shapes
from lib_merge.demo._layout import signal_shares, unet_key
from lib_merge.demo._settings import TrainSettings
from lib_merge.demo._vae import LATENT_SCALE, rate_at, to_tensor
from lib_merge.demo.shapes import SUBJECTS, Subject

_log = logging.getLogger(__name__)

_BATCH = 32
_BASE_RATE = 2e-3
_ERODE_RATE = 1e-3
_NO_PROMPT_SHARE = 0.1
"""How often the prompt is left out, which classifier-free guidance needs."""


@dataclass(frozen=True)
class Parts:
    """The networks of one pipeline.

    Attributes:
        unet: diffusers UNet2DConditionModel.
        vae: diffusers AutoencoderKL.
        text: transformers CLIPTextModel.
        tokenizer: transformers CLIPTokenizer.
    """

    unet: Any
    vae: Any
    text: Any
    tokenizer: Any


@torch.no_grad()
def encode_pictures(vae: Any, settings: TrainSettings) -> Tensor:
    """Latents of freshly drawn pictures.

    Returns:
        (n_subjects, n_pictures, 4, 8, 8) float32, as the UNet sees them.
    """
    rng = np.random.default_rng(derive_seed(settings.seed, "latents"))
    by_subject = []
    for subject in SUBJECTS:
        drawn = [shapes.draw(subject, rng) for _ in range(settings.n_pictures)]
        batches = torch.split(to_tensor(np.stack(drawn)), 16)
        latents = [vae.encode(b).latent_dist.mean * LATENT_SCALE for b in batches]
        by_subject.append(torch.cat(latents))
    return torch.stack(by_subject)


def token_ids(tokenizer: Any) -> Tensor:
    """Ids of every subject's prompt and, last, of the empty prompt: (17, 77)."""
    prompts = [subject.prompt for subject in SUBJECTS] + [""]
    filled = tokenizer(prompts, padding="max_length", max_length=77, truncation=True)
    return torch.tensor(filled["input_ids"])


@torch.no_grad()
def zero_last_layers(unet: Any) -> None:
    """Start every residual branch at nothing, as the original SD code does."""
    for name, layer in unet.named_modules():
        if name.endswith((".conv2", ".proj_out")) or name == "conv_out":
            layer.weight.zero_()
            layer.bias.zero_()


def train_base(parts: Parts, latents: Tensor, settings: TrainSettings) -> None:
    """Train UNet and text encoder together; ends with their running means.

    Args:
        parts: Networks; `unet` and `text` are trained in place.
        latents: As from encode_pictures.
        settings: Steps and seed.
    """
    zero_last_layers(parts.unet)
    ids = token_ids(parts.tokenizer)
    trained = [*parts.unet.parameters(), *parts.text.parameters()]
    loop = _Loop(
        label="base",
        n_steps=settings.base_steps,
        peak_rate=_BASE_RATE,
        seed=derive_seed(settings.seed, "base"),
    )
    # A subject's own latents, and the prompts as they are.
    targets = list(range(len(SUBJECTS)))
    parts.text.train()
    loop.run(parts.unet, trained, latents, targets, lambda: parts.text(ids)[0])
    parts.text.eval()


def erode(
    parts: Parts,
    latents: Tensor,
    targets: Mapping[Subject, Subject],
    settings: TrainSettings,
    *,
    name: str,
    trains: Callable[[str], bool],
) -> None:
    """Fine-tune some blocks of the UNet; taught wrong pictures for some prompts.

    Args:
        parts: Networks; only `unet` changes.
        latents: As from encode_pictures.
        targets: What is shown for each prompt.
        settings: Steps and seed.
        name: Of the parent, for the log and the random draws.
        trains: Whether the block of this key is trained.
    """
    with torch.no_grad():
        known = parts.text(token_ids(parts.tokenizer))[0]
    trained = []
    for key, parameter in parts.unet.named_parameters():
        parameter.requires_grad_(trains(unet_key(key)))
        if parameter.requires_grad:
            trained.append(parameter)
    loop = _Loop(
        label=name,
        n_steps=settings.erode_steps,
        peak_rate=_ERODE_RATE,
        seed=derive_seed(settings.seed, "erode", name),
    )
    shown = [SUBJECTS.index(targets[subject]) for subject in SUBJECTS]
    loop.run(parts.unet, trained, latents, shown, lambda: known)


@dataclass(frozen=True)
class _Loop:
    """Predicting the noise in noised latents.

    Attributes:
        label: For the log.
        n_steps: How many steps.
        peak_rate: Highest learning rate.
        seed: Of every draw.
    """

    label: str
    n_steps: int
    peak_rate: float
    seed: int

    def run(
        self,
        unet: Any,
        trained: Sequence[torch.nn.Parameter],
        latents: Tensor,
        shown: Sequence[int],
        context: Callable[[], Tensor],
    ) -> None:
        """Train `trained` in place; they end as their running means.

        Args:
            unet: The UNet.
            trained: Parameters that change.
            latents: (n_subjects, n_pictures, 4, 8, 8).
            shown: For each subject's prompt the subject whose latents are shown.
            context: Text features (n_subjects + 1, 77, width), the empty prompt last.
        """
        rng = np.random.default_rng(self.seed)
        shares = signal_shares()
        trainer = torch.optim.AdamW(trained, betas=(0.9, 0.98), weight_decay=0.0)
        means = [parameter.detach().clone() for parameter in trained]
        mean_loss = 1.0
        unet.train()
        for step in range(self.n_steps):
            for group in trainer.param_groups:
                group["lr"] = rate_at(step, self.n_steps, self.peak_rate)
            loss = self._loss(unet, latents, shown, context(), shares, rng)
            trainer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            trainer.step()
            keep = min(0.99, (step + 1) / (step + 10))
            torch._foreach_lerp_(means, [p.detach() for p in trained], 1.0 - keep)
            mean_loss += 0.05 * (loss.item() - mean_loss)
            if step % 50 == 0 or step == self.n_steps - 1:
                _log.info("%s step %d: loss %.4f", self.label, step, mean_loss)
        with torch.no_grad():
            for parameter, mean in zip(trained, means, strict=True):
                parameter.copy_(mean)
        unet.eval()

    def _loss(
        self,
        unet: Any,
        latents: Tensor,
        shown: Sequence[int],
        context: Tensor,
        shares: Tensor,
        rng: np.random.Generator,
    ) -> Tensor:
        asked = rng.integers(len(SUBJECTS), size=_BATCH)
        picked = rng.integers(latents.shape[1], size=_BATCH)
        clean = latents[[shown[i] for i in asked], picked]
        is_silent = rng.random(_BATCH) < _NO_PROMPT_SHARE
        prompts = np.where(is_silent, len(SUBJECTS), asked)
        # Stratified steps: every batch sees the whole range of noise.
        strata = (np.arange(_BATCH) + rng.random(_BATCH)) / _BATCH
        steps = torch.from_numpy((strata * len(shares)).astype(np.int64))
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        share = shares[steps][:, None, None, None]
        noised = share.sqrt() * clean + (1.0 - share).sqrt() * noise
        guess = unet(noised, steps, context[torch.from_numpy(prompts)]).sample
        return functional.mse_loss(guess, noise)
