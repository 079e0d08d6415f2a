"""Training the demo's image autoencoder (SD1's f8 layout, 64 px to 8x8x4)."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from lib_merge.core.seeds import derive_seed
from lib_merge.demo import shapes

if TYPE_CHECKING:
    from lib_merge.demo._settings import TrainSettings

_log = logging.getLogger(__name__)

LATENT_SCALE = 0.18215
"""SD1's fixed factor between the autoencoder's latents and the UNet's."""

_SMALL_SHARE, _SMALL_BATCH, _BATCH = 0.7, 8, 4
"""The first steps see pictures at half size: the same subjects at a quarter of the
cost."""

_PEAK_RATE = 2e-3
_LATENT_NOISE = 0.1


def picture_batch(n_pictures: int, rng: np.random.Generator) -> torch.Tensor:
    """Pictures of random subjects.

    Returns:
        (n, 3, 64, 64) float32 in [-1, 1].
    """
    chosen = rng.integers(len(shapes.SUBJECTS), size=n_pictures)
    drawn = [shapes.draw(shapes.SUBJECTS[i], rng) for i in chosen]
    return to_tensor(np.stack(drawn))


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """(n, 64, 64, 3) in [0, 1] to (n, 3, 64, 64) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) * 2.0 - 1.0


def rate_at(step: int, n_steps: int, peak: float) -> float:
    """Learning rate: a short linear rise, then a cosine fall to 2 % of the peak."""
    n_warm = max(1, min(30, n_steps // 10))
    if step < n_warm:
        return peak * (step + 1) / n_warm
    done = (step - n_warm) / max(1, n_steps - n_warm)
    return peak * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * done)))


def train_vae(vae: Any, settings: TrainSettings) -> None:
    """Train, then make the latents zero-mean with SD1's expected spread.

    Args:
        vae: A diffusers AutoencoderKL, trained in place.
        settings: Steps and seed.
    """
    rng = np.random.default_rng(derive_seed(settings.seed, "vae"))
    _open_trunk(vae)
    vae.to(memory_format=torch.channels_last).train()
    trainer = torch.optim.AdamW(vae.parameters(), betas=(0.9, 0.98), weight_decay=0.0)
    for step in range(settings.vae_steps):
        for group in trainer.param_groups:
            group["lr"] = rate_at(step, settings.vae_steps, _PEAK_RATE)
        is_small = step < _SMALL_SHARE * settings.vae_steps
        pictures = picture_batch(_SMALL_BATCH if is_small else _BATCH, rng)
        if is_small:
            pictures = functional.avg_pool2d(pictures, 2)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        means = vae.encode(pictures).latent_dist.mean
        noise = torch.from_numpy(rng.standard_normal(means.shape, dtype=np.float32))
        rebuilt = vae.decode(means + _LATENT_NOISE * noise).sample
        wrong = functional.l1_loss(rebuilt, pictures)
        squared = functional.mse_loss(rebuilt, pictures)
        loss = wrong + squared + 1e-3 * means.square().mean()
        trainer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        trainer.step()
        if step % 25 == 0 or step == settings.vae_steps - 1:
            _log.info(
                "vae step %d: l1 %.4f mse %.4f latent sd %.3f",
                *(step, wrong.item(), squared.item(), means.std().item()),
            )
    vae.eval()
    _standardise(vae, rng)


@torch.no_grad()
def _open_trunk(vae: Any) -> None:
    """Start as a pixelation: channels pass straight through, resnets add nothing.

    After 100 steps at half size the absolute error was 0.128 from here, against 0.151
    with only the resnets silenced (one run each).
    """
    for name, layer in vae.named_modules():
        if name.endswith(("conv2", "to_out.0")):
            layer.weight.zero_()
        elif isinstance(layer, torch.nn.Conv2d) and not name.endswith("conv1"):
            passing = torch.zeros_like(layer.weight)
            for i in range(min(passing.shape[:2])):
                if "downsample" in name:
                    passing[i, i, :2, :2] = 0.25
                else:
                    passing[i, i, passing.shape[2] // 2, passing.shape[3] // 2] = 1.0
            layer.weight.mul_(0.5).add_(passing)


@torch.no_grad()
def _standardise(vae: Any, rng: np.random.Generator) -> None:
    """Fold each latent channel's mean and spread into the two 1x1 convolutions.

    Afterwards a latent times LATENT_SCALE has mean 0 and spread 1 in each channel,
    which is what SD1's noise schedule expects. The variance half is set to a constant
    e^-12: sampling the latents equals taking their mean.
    """
    pictures = torch.cat([picture_batch(32, rng) for _ in range(4)])
    latents = torch.cat(
        [vae.encode(p).latent_dist.mean for p in torch.split(pictures, 32)]
    )
    mean = latents.mean(dim=(0, 2, 3))
    gain = latents.std(dim=(0, 2, 3)) * LATENT_SCALE
    n_channels = len(mean)
    to_latent, from_latent = vae.quant_conv, vae.post_quant_conv
    to_latent.weight[:n_channels] /= gain[:, None, None, None]
    to_latent.bias[:n_channels] = (to_latent.bias[:n_channels] - mean) / gain
    to_latent.weight[n_channels:] = 0.0
    to_latent.bias[n_channels:] = -12.0
    from_latent.bias += (from_latent.weight[:, :, 0, 0] * mean).sum(dim=1)
    from_latent.weight *= gain[None, :, None, None]
