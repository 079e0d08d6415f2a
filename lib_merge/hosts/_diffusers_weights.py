"""The parameters of a diffusers pipeline under the key names of its single file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class _Name(str):
    """A key that passes through diffusers' converters as if it were its tensor."""

    ndim = 1


class PipelineWeights:
    """The pipeline's parameters under the names that the single file uses.

    diffusers' own converters, run on the names alone, say where each one goes; so the
    map is right for every layout that diffusers itself can load.
    """

    def __init__(self, pipe: Any, path: Path) -> None:
        keys = _keys_of(path)
        self._targets: dict[str, Tensor] = {}
        self._is_split = any(".in_proj_weight" in key for key in keys)
        names = {key: _Name(key) for key in keys}
        self._add(pipe.unet, _unet_names(names, pipe.unet.config))
        self._add(pipe.vae, _vae_names(names, pipe.vae.config))
        self._add(pipe.text_encoder, _clip_names(names))

    def _add(self, module: Any, names: Mapping[str, str]) -> None:
        parameters = dict(module.named_parameters())
        for name, key in names.items():
            # transformers 5 dropped the prefix that single files still carry.
            short = name.removeprefix("text_model.")
            parameter = parameters.get(name, parameters.get(short))
            if parameter is not None:
                self._targets[str(key)] = parameter.detach()

    def refusal(self) -> str | None:
        """Why this pipeline cannot be written in place, or None."""
        if self._is_split:
            return (
                "diffusers splits the OpenCLIP text encoder of SD2 and SDXL, which the "
                "standalone app does not write in place; merge to a file instead."
            )
        return None

    def missing(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Keys of the file that the pipeline has no parameter for."""
        return tuple(key for key in keys if key not in self._targets)

    def write(self, key: str, start: int, values: Tensor) -> None:
        """Copy a flat run into the parameter of this key."""
        target = self._targets[key].view(-1)
        target[start : start + values.numel()].copy_(values)


def _keys_of(path: Path) -> tuple[str, ...]:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        return tuple(file.keys())


def _unet_names(names: Mapping[str, _Name], config: Any) -> Mapping[str, str]:
    from diffusers.loaders import single_file_utils

    kept = {k: v for k, v in names.items() if not k.startswith("model_ema.")}
    found: Mapping[str, str] = single_file_utils.convert_ldm_unet_checkpoint(
        kept, config
    )
    return found


def _vae_names(names: Mapping[str, _Name], config: Any) -> Mapping[str, str]:
    from diffusers.loaders import single_file_utils

    found: Mapping[str, str] = single_file_utils.convert_ldm_vae_checkpoint(
        names, config
    )
    return found


def _clip_names(names: Mapping[str, _Name]) -> Mapping[str, str]:
    from diffusers.loaders import single_file_utils

    found: Mapping[str, str] = single_file_utils.convert_ldm_clip_checkpoint(names)
    return found
