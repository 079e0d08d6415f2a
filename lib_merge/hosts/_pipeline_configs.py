"""Local diffusers configs, and what a checkpoint's shapes say about which one fits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_merge.errors import HostError

_ATTENTION = tuple(
    f"{block}.1.transformer_blocks.0.attn2.to_k.weight" for block in (1, 4)
)


@dataclass(frozen=True)
class PipelineConfig:
    """A local folder of diffusers configs and the UNet widths it is for."""

    folder: Path
    width: int
    context: int


def find_pipeline_configs(folders: Sequence[Path]) -> tuple[PipelineConfig, ...]:
    """Every folder `pipeline` with diffusers configs in or beside the given ones."""
    found = {}
    for folder in folders:
        for place in (folder / "pipeline", folder.parent / "pipeline"):
            unet = place / "unet" / "config.json"
            if unet.is_file():
                config = json.loads(unet.read_text(encoding="utf-8"))
                found[place] = PipelineConfig(
                    folder=place,
                    width=int(config["block_out_channels"][0]),
                    context=int(config["cross_attention_dim"]),
                )
    return tuple(found.values())


def shape_of(path: Path, key: str) -> tuple[int, ...]:
    """The shape of a tensor in a file, or () when it has none of that name."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        if key not in file.keys():  # noqa: SIM118 - safe_open is no mapping
            return ()
        return tuple(file.get_slice(key).get_shape())


def check_readable(path: Path) -> None:
    """Raise unless the file opens as safetensors.

    Raises:
        HostError: It does not.
    """
    from safetensors import SafetensorError

    try:
        shape_of(path, "")
    except (OSError, SafetensorError) as fault:
        raise HostError(
            f"diffusers cannot load {path.name}: {fault}. It must be a whole SD1, SD2 "
            "or SDXL checkpoint in safetensors format."
        ) from fault


def config_for(path: Path, configs: Sequence[PipelineConfig]) -> PipelineConfig | None:
    """The config of a checkpoint's widths, or None where diffusers' own is right."""
    prefix = "model.diffusion_model.input_blocks."
    first = shape_of(path, f"{prefix}0.0.weight")
    # SDXL's first level has no attention.
    attention = next(
        filter(None, (shape_of(path, prefix + name) for name in _ATTENTION)), ()
    )
    for config in configs:
        if first[:1] == (config.width,) and attention[-1:] == (config.context,):
            return config
    return None
