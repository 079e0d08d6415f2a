"""A checkpoint that is to be written: which tensors, where their values come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lib_merge
from lib_merge.checkpoint.header import Header
from lib_merge.core.blocks import TensorInfo
from lib_merge.core.dtypes import DType

CHANGES = "mergelab_changes"
"""Metadata that lists what was done to a file since it was merged or trained."""

MARKER_INFO = TensorInfo(DType.F8_E4M3, (2,))
"""Two zeros: ComfyUI then multiplies in full precision; one or none lets it use fp8."""


@dataclass(frozen=True)
class Span:
    """Values [start, stop) of one stored tensor."""

    key: str
    start: int
    stop: int


@dataclass(frozen=True)
class FileValues:
    """Values that a file holds.

    Attributes:
        header: The file's.
        spans: One after the other they are the values.
        turned: (rows, columns) of the one span, a whole matrix to be transposed, or
            None where values are taken in their order.
        must_be_finite: Whether NaN or infinity among them is an error.
    """

    header: Header
    spans: tuple[Span, ...]
    turned: tuple[int, int] | None = None
    must_be_finite: bool = False


@dataclass(frozen=True)
class Numbers:
    """Values that are known without a file: 0, 1, 2 ... or zeros."""

    is_counted: bool


@dataclass(frozen=True)
class OutTensor:
    """One tensor of the file that is written.

    Attributes:
        key: Its name.
        info: Its shape and type.
        values: Where they come from.
        scale_key: Where the scale goes that makes the values fit eight bits; None
            writes them as they are.
    """

    key: str
    info: TensorInfo
    values: FileValues | Numbers
    scale_key: str | None = None


@dataclass(frozen=True)
class Rewrite:
    """A whole file to be.

    Attributes:
        tensors: All of its tensors; scales go without saying.
        metadata: Its strings.
        inputs: The files that it is made of, the main one first.
    """

    tensors: tuple[OutTensor, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[Path, ...] = ()

    def infos(self) -> list[tuple[str, TensorInfo]]:
        """Every key of the file, with those of scales."""
        found = []
        for tensor in self.tensors:
            found.append((tensor.key, tensor.info))
            if tensor.scale_key is not None:
                found.append((tensor.scale_key, TensorInfo(DType.F32, ())))
        return found

    @property
    def n_bytes(self) -> int:
        """Its tensors together."""
        return sum(info.n_bytes for _, info in self.infos())


def whole(header: Header, key: str, *, must_be_finite: bool = False) -> FileValues:
    """All values of a stored tensor."""
    span = Span(key, 0, header.infos[key].n_elements)
    return FileValues(header, (span,), must_be_finite=must_be_finite)


def with_change(
    metadata: Mapping[str, str], name: str, source: Path, steps: Sequence[str]
) -> dict[str, str]:
    """A file's metadata with one more change at the end of its list.

    Args:
        metadata: As it was.
        name: What was done: "repair", "convert" ...
        source: The file that it was done to.
        steps: What was done in detail, a sentence each.
    """
    before: Any = None
    try:
        before = json.loads(metadata.get(CHANGES, "[]"))
    except (ValueError, RecursionError):
        before = [metadata[CHANGES]]
    changes = before if isinstance(before, list) else [before]
    change = {
        "change": name,
        "version": lib_merge.__version__,
        "of": source.name,
        "steps": list(steps),
    }
    return {
        "format": "pt",
        **metadata,
        CHANGES: json.dumps([*changes, change]),
    }


def retyped(tensor: OutTensor, dtype: DType) -> OutTensor:
    """The tensor written in another type."""
    return replace(tensor, info=replace(tensor.info, dtype=dtype))


def cut_values(values: FileValues, start: int, stop: int) -> FileValues:
    """Values [start, stop) of what a file holds; the whole of a transposed one.

    Args:
        values: What to cut.
        start: The first value.
        stop: The one behind the last.
    """
    if values.turned is not None:
        return values
    spans = []
    position = 0
    for span in values.spans:
        n_elements = span.stop - span.start
        first, last = max(start - position, 0), min(stop - position, n_elements)
        if first < last:
            spans.append(Span(span.key, span.start + first, span.start + last))
        position += n_elements
    return replace(values, spans=tuple(spans))
