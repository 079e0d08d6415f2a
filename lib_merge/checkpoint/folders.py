"""Which files make up a model of several: a pipeline's folder, or shards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_merge.errors import CheckpointError

PIPELINE_FILE = "model_index.json"
INDEX_SUFFIX = ".safetensors.index.json"

COMPONENTS = (
    "unet",
    "transformer",
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
    "vae",
)
"""Folders of a pipeline that hold what can be merged."""

_STEMS = ("diffusion_pytorch_model", "model")
_WEIGHTS = (".safetensors", INDEX_SUFFIX)


@dataclass(frozen=True)
class PartFile:
    """One file of a model.

    Attributes:
        prefix: Put in front of its keys; "" unless it is a component of a pipeline.
        path: The file.
    """

    prefix: str
    path: Path


def is_pipeline(path: Path) -> bool:
    """Whether a path is the folder of a whole diffusers pipeline."""
    return (path / PIPELINE_FILE).is_file()


def is_model_folder(path: Path) -> bool:
    """Whether a path is a folder that can be read as one model."""
    if not path.is_dir():
        return False
    return is_pipeline(path) or next(iter(_candidates(path)), None) is not None


def model_parts(path: Path) -> tuple[PartFile, ...]:
    """The files of a pipeline's folder, a component's folder, or an index of shards.

    Args:
        path: The folder, or the file that lists the shards.

    Raises:
        CheckpointError: It is none of these, or lacks a file that it names.
    """
    if path.name.endswith(INDEX_SUFFIX):
        return tuple(PartFile("", shard) for shard in _shards(path))
    if not is_pipeline(path):
        return tuple(PartFile("", file) for file in _weights(path))
    found = []
    for component in named_components(path):
        files = _weights(path / component)
        found += [PartFile(f"{component}.", file) for file in files]
    if not found:
        raise CheckpointError(
            f"{path / PIPELINE_FILE} names none of {', '.join(COMPONENTS)}; choose the "
            "folder of an image pipeline."
        )
    return tuple(found)


def named_components(path: Path) -> list[str]:
    """The components that a pipeline says it has."""
    data = _json(path / PIPELINE_FILE)
    named = []
    for component in COMPONENTS:
        entry = data.get(component)
        if isinstance(entry, list) and any(entry):
            named.append(component)
    return named


def _weights(folder: Path) -> Sequence[Path]:
    """The files of one component: its plain weights, else its only variant."""
    found = list(_candidates(folder))
    if not found:
        has_pickle = folder.is_dir() and any(folder.glob("*.bin"))
        raise CheckpointError(
            f"{folder} holds no weights in .safetensors"
            f"{' (only .bin)' if has_pickle else ''}; save the model with "
            "safe_serialization, or choose its single file."
        )
    chosen = found[0]
    return _shards(chosen) if chosen.name.endswith(INDEX_SUFFIX) else (chosen,)


def _candidates(folder: Path) -> Iterator[Path]:
    """Files that may be a component's weights, the best first."""
    for stem in _STEMS:
        for suffix in _WEIGHTS:
            if (folder / f"{stem}{suffix}").is_file():
                yield folder / f"{stem}{suffix}"
    for stem in _STEMS:
        # Variants: model.fp16.safetensors, model.safetensors.index.fp16.json.
        for file in sorted(folder.glob(f"{stem}.*.safetensors")):
            if "-of-" not in file.name:
                yield file


def _shards(index: Path) -> tuple[Path, ...]:
    data = _json(index).get("weight_map")
    names = list(dict.fromkeys(data.values())) if isinstance(data, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise CheckpointError(
            f"{index} lists no shards (no 'weight_map'); download it again."
        )
    # A shard lies beside its index; a name with folders in it would lead elsewhere.
    files = [index.parent / Path(name).name for name in sorted(names)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(
            f"{index} names {len(missing)} shards that are not there "
            f"({', '.join(missing[:3])}); download them, too."
        )
    return tuple(files)


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} does not exist; check the spelling or choose another model."
        ) from None
    except (OSError, ValueError) as fault:
        raise CheckpointError(
            f"{path} is no readable JSON ({type(fault).__name__}); download it again."
        ) from fault
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is no JSON object; download it again.")
    return data
