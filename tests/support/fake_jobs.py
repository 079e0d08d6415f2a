"""Jobs and pictures of the fake WebUIs, and models made of nothing but names."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image


class NansException(Exception):
    """modules.devices.NansException."""


@dataclasses.dataclass(repr=False)
class StableDiffusionProcessing:
    """The fields that every host has."""

    sd_model: Any = None
    outpath_samples: str | None = None
    outpath_grids: str | None = None
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = -1
    subseed: int = -1
    sampler_name: str | None = None
    batch_size: int = 1
    n_iter: int = 1
    steps: int = 50
    cfg_scale: float = 7.0
    width: int = 512
    height: int = 512
    restore_faces: bool | None = None
    tiling: bool | None = None
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False
    override_settings: dict[str, Any] | None = None
    styles: list[str] | None = None
    subseed_strength: float = 0.0
    disable_extra_networks: bool = False
    enable_hr: bool = False
    denoising_strength: float = 0.75
    hr_scale: float = 2.0
    hr_upscaler: str | None = None
    hr_second_pass_steps: int = 0
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    hr_prompt: str = ""
    hr_negative_prompt: str = ""
    hr_sampler_name: str | None = None

    def __post_init__(self) -> None:
        # Bound when the job is built: who clears the cache later clears another list.
        self.cached_c = type(self).cached_c  # type: ignore[attr-defined]
        self.scripts: Any = None
        self.script_args: Any = None
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


@dataclasses.dataclass(repr=False)
class ScheduledProcessing(StableDiffusionProcessing):
    """Hosts since A1111 1.9 name the scheduler apart; Forge Classic does not."""

    scheduler: str | None = None
    hr_scheduler: str | None = None


@dataclasses.dataclass
class Processed:
    images: list[Image.Image]
    index_of_first_image: int = 0


def tree(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> torch.nn.Module:
    """Nested modules whose parameters have these names; integers become buffers."""
    root = torch.nn.Module()
    for key, tensor in tensors.items():
        *path, name = key.split(".")
        place = root
        for part in path:
            if part not in place._modules:
                place.add_module(part, torch.nn.Module())
            place = place._modules[part]  # type: ignore[assignment]
        if tensor.is_floating_point():
            copy = tensor.clone().to(dtype)
            place.register_parameter(name, torch.nn.Parameter(copy))
        else:
            place.register_buffer(name, tensor.clone())
    return root


def under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors under a prefix, without it."""
    return {k[len(prefix) :]: t for k, t in tensors.items() if k.startswith(prefix)}


def leaves(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """Layers that hold weights, as LoRA code sees them."""
    for name, child in module.named_modules():
        if child._parameters.get("weight") is not None:
            yield name, child


def digest(modules: Mapping[str, torch.nn.Module]) -> str:
    """A name for all parameters of some modules; NaN is found as the host finds it."""
    found = hashlib.blake2b(digest_size=16)
    for label, module in sorted(modules.items()):
        for name, tensor in module.named_parameters():
            if name.endswith("logit_scale"):
                # CLIP's training needs it, a picture does not.
                continue
            values = tensor.detach().float()
            if bool(torch.isnan(values).any()):
                raise NansException("A tensor with NaNs was produced in Unet.")
            clean = name.replace("wrapped.", "")
            found.update(f"{label}.{clean}".encode() + values.numpy().tobytes())
    return found.hexdigest()


def draw(job: Any, cond: str, weights: str, steps: int) -> Image.Image:
    """A picture that differs as soon as anything it depends on differs."""
    settings = (job.seed, steps, job.cfg_scale, job.sampler_name, job.enable_hr)
    more = getattr(job, "scheduler", None)
    seed = f"{cond}{weights}{settings}{more}{job.negative_prompt}".encode()
    scale = job.hr_scale if job.enable_hr else 1
    width, height = int(job.width * scale), int(job.height * scale)
    noise = hashlib.shake_256(seed).digest(width * height * 3)
    pixels = np.frombuffer(noise, dtype=np.uint8).reshape(height, width, 3)
    return Image.fromarray(pixels)
