"""Scaled eight-bit weights: what is stored is no weight before it meets its scale."""

from __future__ import annotations

from collections.abc import Mapping

from lib_merge.checkpoint.header import Header
from lib_merge.core.blocks import KeyInfos
from lib_merge.core.dtypes import DType
from lib_merge.errors import CheckpointError

EIGHT_BITS = (DType.F8_E4M3, DType.F8_E5M2)

MARKER = "scaled_fp8"
"""An empty tensor of this name announces scaled weights (ComfyUI's convention)."""

_OF_WEIGHTS = (".scale_weight", ".weight_scale")
"""Both spellings of ComfyUI: that of its first files and that of later ones
(comfy/utils.py, convert_old_quants)."""

_SUFFIXES = (*_OF_WEIGHTS, ".scale_input", ".input_scale")


def is_scale(key: str) -> bool:
    """Whether a key belongs to scaled fp8 and is no weight."""
    is_marker = key == MARKER or key.endswith("." + MARKER)
    return is_marker or key.endswith(_SUFFIXES)


def scale_keys(infos: KeyInfos) -> Mapping[str, str]:
    """The key of its scale, for every eight-bit weight that has one."""
    found = {}
    for key, info in infos.items():
        if not key.endswith(".weight") or info.dtype not in EIGHT_BITS:
            continue
        layer = key.removesuffix(".weight")
        for suffix in _OF_WEIGHTS:
            scale = infos.get(layer + suffix)
            if scale is not None and scale.n_elements == 1:
                found[key] = layer + suffix
    return found


def refuse_scaled(header: Header) -> None:
    """Say what to do with a file that is no use before its scales are multiplied out.

    Raises:
        CheckpointError: It holds scaled eight-bit weights.
    """
    n_scaled = len(scale_keys(header.infos))
    if n_scaled:
        raise CheckpointError(
            f"{header.path} holds {n_scaled} weights in eight bits with scales of "
            "their own; multiply them out first (python -m lib_merge convert FILE NEW "
            "--to fp16), then take the new file."
        )


def scale_only(infos: KeyInfos) -> tuple[str, ...]:
    """Keys that say how eight-bit weights are scaled, and are no weights."""
    return tuple(key for key in infos if is_scale(key))
