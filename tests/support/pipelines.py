"""Tiny models as folders of a diffusers pipeline, whole or in shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from lib_merge.arch import detect_layout
from lib_merge.checkpoint.header import read_header
from lib_merge.checkpoint.reader import CheckpointReader, read_stored
from lib_merge.core.layouts import find_stored


def pipeline_tensors(file: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors as a pipeline names them, the folder's name in front."""
    header = read_header(file)
    single = detect_layout(header.infos, where=str(file))
    pipeline = single.as_pipeline()
    found = {}
    with CheckpointReader(header) as reader:
        for key, info in pipeline.infos.items():
            stored = find_stored(pipeline, key, single)
            assert stored is not None
            found[key] = read_stored(reader, stored).view(info.shape)
    return found


def write_pipeline(
    folder: Path, tensors: Mapping[str, torch.Tensor], *, n_shards: int = 1
) -> Path:
    """Write a pipeline's folder.

    Args:
        folder: Made here.
        tensors: As `pipeline_tensors` gives them.
        n_shards: So many files for what denoises.
    """
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        component, _, name = key.partition(".")
        parts.setdefault(component, {})[name] = tensor.contiguous()
    index = {component: ["library", "Class"] for component in parts}
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(
        json.dumps({"_class_name": "Pipeline", "safety_checker": [None, None], **index})
    )
    for component, own in parts.items():
        is_text = component.startswith("text_encoder")
        stem = "model" if is_text else "diffusion_pytorch_model"
        (folder / component).mkdir()
        if component in ("unet", "transformer") and n_shards > 1:
            write_shards(folder / component, stem, own, n_shards)
        else:
            save_file(own, str(folder / component / f"{stem}.safetensors"))
    return folder


def write_shards(
    folder: Path, stem: str, tensors: Mapping[str, torch.Tensor], n_shards: int
) -> Path:
    """Write shards and their index.

    Returns:
        The index.
    """
    where = {}
    for i in range(n_shards):
        name = f"{stem}-{i + 1:05d}-of-{n_shards:05d}.safetensors"
        own = {k: t for j, (k, t) in enumerate(tensors.items()) if j % n_shards == i}
        save_file(own, str(folder / name))
        where.update(dict.fromkeys(own, name))
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return index
