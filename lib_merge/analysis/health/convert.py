"""Plans a copy of a checkpoint in another precision, float8 with scales included."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lib_merge.analysis.health.job import (
    MARKER_INFO,
    Numbers,
    OutTensor,
    Rewrite,
    whole,
    with_change,
)
from lib_merge.analysis.health.recognise import Recognised, recognise
from lib_merge.checkpoint.header import Header, read_header
from lib_merge.checkpoint.scaled import EIGHT_BITS, MARKER, is_scale, scale_keys
from lib_merge.core.blocks import Component, KeyRole, TensorInfo, Treatment
from lib_merge.core.dtypes import DType
from lib_merge.errors import InputError

WIDE = (DType.F32, DType.F16, DType.BF16)
"""Precisions that every weight is converted to."""

_NUMBERED_BLOCK = re.compile(r".*\d$")


@dataclass(frozen=True)
class ConvertOptions:
    """What a copy is to be like.

    Attributes:
        dtype: The precision wanted; None keeps every tensor's own.
        is_scaled: Whether eight-bit weights get a scale each.
        keep_ema: Whether EMA shadow weights stay.
        is_single: Whether tensors get the names of single files; else they keep theirs.
    """

    dtype: DType | None
    is_scaled: bool = True
    keep_ema: bool = False
    is_single: bool = False


@dataclass(frozen=True)
class ConvertPlan:
    """What a conversion would do.

    Attributes:
        sentences: It in words.
        warnings: What the user should know of.
        job: The file that is written.
    """

    sentences: tuple[str, ...]
    warnings: tuple[str, ...]
    job: Rewrite


def plan_convert(path: Path, options: ConvertOptions) -> ConvertPlan:
    """Find out what a conversion would do; nothing is written.

    Scaled float8 is that of ComfyUI: a weight W is stored as W / s beside
    `LAYER.scale_weight` (s, one float32), and an empty-valued `scaled_fp8` announces
    it; s makes the largest value of W the largest of the type. Only matrices inside the
    numbered blocks of what denoises become eight bits; convolutions, norms, embeddings,
    text encoders and VAE stay in 16 bits, where eight would ruin them.

    Args:
        path: The file.
        options: What its copy is to be like.

    Raises:
        CheckpointError: The file cannot be read.
        InputError: Its weights cannot be held in the precision wanted.
    """
    if options.dtype not in (None, *WIDE, *EIGHT_BITS):
        assert options.dtype is not None
        raise InputError(
            f"{options.dtype.torch_name} is nothing to convert to; use fp32, fp16, "
            "bf16, fp8 (e4m3fn) or fp8_e5m2."
        )
    header = read_header(path)
    known = recognise(header.infos, where=path.name)
    is_eight = options.dtype in EIGHT_BITS
    if options.is_single and known.layout is None:
        raise InputError(f"{path} is {known.label}; its names stay as they are.")
    if is_eight and known.architecture is None:
        raise InputError(
            f"{path} is {known.label}; only a model of a known architecture is "
            "converted to eight bits, because only some of its weights stand it."
        )
    tensors = list(_tensors(header, known, options))
    if is_eight and not any(t.info.dtype is options.dtype for t in tensors):
        raise InputError(
            f"{path} has no matrix in a numbered block of what denoises, so nothing "
            "of it can be eight bits."
        )
    sentences = tuple(_sentences(header, tensors))
    metadata = with_change(header.metadata, "convert", path, sentences)
    warnings = []
    if options.dtype is DType.F8_E5M2 and options.is_scaled:
        warnings.append(
            "ComfyUI of late 2025 and later takes every scaled float8 for e4m3fn; use "
            "fp8_e4m3fn, or --unscaled with fp8_e5m2."
        )
    job = Rewrite(tuple(tensors), metadata, (header.path,))
    return ConvertPlan(sentences, tuple(warnings), job)


def _tensors(
    header: Header, known: Recognised, options: ConvertOptions
) -> Iterator[OutTensor]:
    has_scales = False
    for key, info in (known.infos if options.is_single else header.infos).items():
        role = known.role_of(key) if options.is_single else known.stored_role(key)
        is_ema = role is not None and role.treatment is Treatment.DROP_UNLESS_ASKED
        if is_scale(key) or (is_ema and not options.keep_ema):
            continue
        is_named = options.is_single
        values = known.values(header, key) if is_named else whole(header, key)
        tensor = OutTensor(key, info, values)
        dtype = dtype_of(key, info, role, options)
        tensor = replace(tensor, info=replace(info, dtype=dtype))
        if dtype in EIGHT_BITS and dtype is options.dtype and options.is_scaled:
            layer = key.removesuffix(".weight")
            tensor = replace(tensor, scale_key=f"{layer}.scale_weight")
            has_scales = True
        yield tensor
    if has_scales:
        assert options.dtype is not None
        marker = replace(MARKER_INFO, dtype=options.dtype)
        prefix = known.stored_prefix(Component.UNET)
        if options.is_single and known.architecture is not None:
            prefix = known.architecture.names[0].prefix
        yield OutTensor(f"{prefix}{MARKER}", marker, Numbers(is_counted=False))


def dtype_of(
    key: str, info: TensorInfo, role: KeyRole | None, options: ConvertOptions
) -> DType:
    """What a tensor is written in."""
    is_constant = role is not None and (
        role.component is Component.SCHEDULE or role.treatment is Treatment.COPY
    )
    if not info.dtype.is_float or is_constant:
        return info.dtype
    if options.dtype is None:
        # Eight bits without their scale would be wrong, and no name says which had one.
        return DType.F16 if info.dtype in EIGHT_BITS else info.dtype
    if options.dtype not in EIGHT_BITS:
        return options.dtype
    is_suited = (
        role is not None
        and role.component is Component.UNET
        and role.treatment is Treatment.MERGE
        and _NUMBERED_BLOCK.match(role.block) is not None
        and key.endswith(".weight")
        and len(info.shape) == 2
    )
    if is_suited:
        return options.dtype
    if info.dtype in EIGHT_BITS or info.dtype.size > 2:
        return DType.F16
    return info.dtype


def _sentences(header: Header, tensors: list[OutTensor]) -> Iterator[str]:
    counts: Counter[tuple[str, str, bool]] = Counter()
    for tensor in tensors:
        before = header.infos.get(tensor.key)
        if before is not None and before.dtype is not tensor.info.dtype:
            one, other = before.dtype.torch_name, tensor.info.dtype.torch_name
            counts[one, other, tensor.scale_key is not None] += 1
    for (before_name, after, is_scaled), count in counts.items():
        scaled = ", each with its scale" if is_scaled else ""
        yield f"{count} tensors from {before_name} to {after}{scaled}"
    scales = scale_keys(header.infos)
    if scales:
        yield f"{len(scales)} scaled float8 tensors are multiplied out first"
    kept = {tensor.key for tensor in tensors}
    n_renamed = sum(key not in header.infos for key in kept) - bool(_n_scaled(tensors))
    if n_renamed > 0:
        yield f"{n_renamed} tensors get the names of single files"
        return
    n_ema = sum(key not in kept and not is_scale(key) for key in header.infos)
    if n_ema:
        yield f"{n_ema} EMA shadow weights are left out"


def _n_scaled(tensors: list[OutTensor]) -> int:
    """How many tensors get a scale."""
    return sum(tensor.scale_key is not None for tensor in tensors)
