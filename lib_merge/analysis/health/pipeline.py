"""Writes a model as the folder of a diffusers pipeline, with the configs of another."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from lib_merge.analysis.health.convert import WIDE, ConvertOptions, dtype_of
from lib_merge.analysis.health.job import OutTensor, Rewrite
from lib_merge.analysis.health.recognise import recognise, stored_values
from lib_merge.analysis.health.rewrite import Written, write_file
from lib_merge.checkpoint import folders
from lib_merge.checkpoint.header import read_header
from lib_merge.checkpoint.outputs import check_disk
from lib_merge.checkpoint.scaled import is_scale
from lib_merge.core.dtypes import DType
from lib_merge.core.ports import Progress
from lib_merge.errors import CheckpointError, InputError, OutputError, RecipeError

_WEIGHTS = (".safetensors", ".bin", ".ckpt", ".msgpack", ".onnx", ".index.json")


@dataclass(frozen=True)
class FolderPlan:
    """A pipeline's folder to be.

    Attributes:
        like: The pipeline whose configs and tokenizers are copied.
        files: (component's folder, what its weights are).
        sentences: It in words.
    """

    like: Path
    files: tuple[tuple[str, Rewrite], ...]
    sentences: tuple[str, ...]

    @property
    def n_bytes(self) -> int:
        """Its weights together."""
        return sum(job.n_bytes for _, job in self.files)


def plan_pipeline(path: Path, like: Path, dtype: DType | None = None) -> FolderPlan:
    """Find out how a model would lie in a folder; nothing is written.

    Args:
        path: A model in any naming.
        like: The folder of a pipeline of the same architecture, with or without
            weights: a checkpoint holds no configs and no tokenizers.
        dtype: The precision of its weights; None keeps their own.

    Raises:
        CheckpointError: The model is of no known architecture, or not whole.
        RecipeError: The pipeline has no place for a component, or wants more.
    """
    if dtype is not None and dtype not in WIDE:
        raise InputError(
            f"A pipeline is not written in {dtype.torch_name}; use fp32, fp16 or bf16."
        )
    if not folders.is_pipeline(like):
        raise InputError(
            f"{like} is no pipeline's folder (no {folders.PIPELINE_FILE}); give one "
            "of the same architecture, for its configs and tokenizers."
        )
    header = read_header(path)
    known = recognise(header.infos, where=path.name)
    if known.layout is None:
        raise CheckpointError(f"{path} is {known.label} and no model for a pipeline.")
    wanted = known.layout.as_pipeline()
    options = ConvertOptions(dtype)
    groups: dict[str, list[OutTensor]] = {}
    for key, info in wanted.infos.items():
        if is_scale(key):
            continue
        folder, _, name = key.partition(".")
        role = wanted.role_of(key)
        written = replace(info, dtype=dtype_of(key, info, role, options))
        values = stored_values(header, known.layout, wanted, key)
        groups.setdefault(folder, []).append(OutTensor(name, written, values))
    _check_places(like, list(groups))
    inputs = (header.path,)
    files = tuple(
        (folder, Rewrite(tuple(tensors), {"format": "pt"}, inputs))
        for folder, tensors in groups.items()
    )
    sentences = [f"{folder}: {len(job.tensors)} tensors" for folder, job in files]
    n_left = sum(key not in _used(files) for key in header.infos)
    if n_left:
        sentences.append(
            f"{n_left} tensors that diffusers has no name for are left out"
        )
    return FolderPlan(like, files, tuple(sentences))


def _used(files: tuple[tuple[str, Rewrite], ...]) -> set[str]:
    from lib_merge.analysis.health.job import FileValues

    return {
        span.key
        for _, job in files
        for tensor in job.tensors
        if isinstance(tensor.values, FileValues)
        for span in tensor.values.spans
    }


def _check_places(like: Path, found: list[str]) -> None:
    wanted = folders.named_components(like)
    problems = [
        f"{like} has no {name}, which the model has; choose a pipeline of the same "
        "architecture."
        for name in found
        if name not in wanted
    ]
    problems += [
        f"The model has nothing for {name}, which {like} wants; take it from another "
        "model first (components)."
        for name in wanted
        if name not in found
    ]
    if problems:
        raise RecipeError(problems)


def write_pipeline(
    plan: FolderPlan, output: Path, progress: Progress | None = None
) -> tuple[Written, ...]:
    """Write the folder; it is whole or not there.

    Args:
        plan: What to write.
        output: A folder to be.
        progress: Advanced by bytes of each file; asked whether to stop.

    Raises:
        OutputError: It exists, or its parent cannot be written to.
        DiskFullError: There is not enough room.
        Cancelled: The user asked to stop; nothing is left behind.
    """
    target = output.expanduser().absolute()
    if target.exists():
        raise OutputError(f"The output {target} exists; choose another name.")
    if not target.parent.is_dir():
        raise OutputError(
            f"The folder {target.parent} of the output does not exist; create it or "
            "choose another."
        )
    check_disk(target, plan.n_bytes)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        _copy_configs(plan.like, draft)
        written = tuple(
            write_file(job, draft / folder / _file_name(folder), progress=progress)
            for folder, job in plan.files
        )
        draft.replace(target)
    except OSError as fault:
        raise OutputError(
            f"{target} cannot be written ({fault.strerror}); choose another place."
        ) from fault
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return tuple(
        replace(one, path=target / one.path.relative_to(draft)) for one in written
    )


def _file_name(folder: str) -> str:
    is_text = folder.startswith("text_encoder")
    return "model.safetensors" if is_text else "diffusion_pytorch_model.safetensors"


def _copy_configs(like: Path, draft: Path) -> None:
    """Copy a pipeline without its weights."""

    def weights(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if name.endswith(_WEIGHTS) or name[0] == "."]

    shutil.copytree(like, draft, ignore=weights)
