"""The parameters of a diffusers pipeline under the key names of its single file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.hosts._clip_names import canonical_key, text_key
from lib_merge.hosts._live import LiveWeights, Slot, part_slot, quantised_name

if TYPE_CHECKING:
    from torch import Tensor

_UNET = "model.diffusion_model."
_VAE = "first_stage_model."


class _Name(str):
    """A key that passes through diffusers' converters as if it were its tensor."""

    __slots__ = ()
    # The VAE's converter flattens 1x1 convolutions; two axes need no flattening.
    ndim = 2
    shape = (1, 1)


def open_weights(pipe: Any, path: Path) -> LiveWeights:
    """The pipeline's weights, open for writing under the names of its file.

    diffusers' own converters, run on the UNet's and VAE's names alone, say where each
    goes; so the map is right for every layout that diffusers can load.

    Args:
        pipe: A pipeline that `from_single_file` made.
        path: The file that it was made from.
    """
    keys = _keys_of(path)
    slots: dict[str, tuple[Slot, ...]] = {}
    for prefix, module, names in (
        (_UNET, pipe.unet, _unet_names),
        (_VAE, pipe.vae, _vae_names),
    ):
        own = {key: _Name(key) for key in keys if key.startswith(prefix)}
        slots.update(_slots_by_name(module, names(own, module.config)))
    for key in keys:
        parts = _text_slots(pipe, key)
        if parts:
            slots[canonical_key(key)] = parts
    tensors: dict[str, Sequence[Tensor]] = {
        f"{prefix}{name}": (parameter,)
        for prefix, module in ((_UNET, pipe.unet), (_VAE, pipe.vae))
        for name, parameter in module.named_parameters()
    }
    return LiveWeights(
        lambda key: slots.get(key, ()), _is_needed, _reason(quantised_name(tensors))
    )


def _reason(name: str | None) -> str | None:
    if name is None:
        return None
    return f"{name} is quantised in memory; load the model in float16 or float32."


def _is_needed(key: str) -> bool:
    """Whether a key that has no parameter would change the picture."""
    found = text_key(key)
    if found is not None:
        return bool(found.parts) and not _is_unused_text(key)
    return key.startswith((_UNET, _VAE))


def _is_unused_text(key: str) -> bool:
    # SD2 pictures are made from the last layer but one, which diffusers loads; the
    # last layer and the projection stand in the file only.
    return key.startswith("cond_stage_model.model.")


def _slots_by_name(
    module: Any, names: Mapping[str, str]
) -> dict[str, tuple[Slot, ...]]:
    parameters = dict(module.named_parameters())
    return {
        str(key): (Slot(offset=0, view=parameters[name].detach()),)
        for name, key in names.items()
        if name in parameters
    }


def _text_slots(pipe: Any, key: str) -> tuple[Slot, ...]:
    found = text_key(key)
    if found is None:
        return ()
    is_second = key.startswith("conditioner.embedders.1.")
    module = getattr(pipe, "text_encoder_2" if is_second else "text_encoder", None)
    if module is None:
        return ()
    parameters = dict(module.named_parameters())
    slots = []
    for part in found.parts:
        # transformers 5 dropped the prefix that single files still carry.
        short = part.name.removeprefix("text_model.")
        tensor = parameters.get(part.name, parameters.get(short))
        if tensor is not None:
            slots.append(part_slot(part, tensor.detach()))
    return tuple(slots)


def _keys_of(path: Path) -> tuple[str, ...]:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        return tuple(file.keys())


def _unet_names(names: Mapping[str, _Name], config: Any) -> Mapping[str, str]:
    from diffusers.loaders import single_file_utils

    convert: Callable[..., Mapping[str, str]]
    convert = single_file_utils.convert_ldm_unet_checkpoint
    return convert(dict(names), config)


def _vae_names(names: Mapping[str, _Name], config: Any) -> Mapping[str, str]:
    from diffusers.loaders import single_file_utils

    convert: Callable[..., Mapping[str, str]]
    convert = single_file_utils.convert_ldm_vae_checkpoint
    return convert(dict(names), config)
