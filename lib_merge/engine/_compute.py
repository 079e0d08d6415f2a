"""Computes runs of one tensor, tile by tile, in memory that is used again and again."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lib_merge.checkpoint.reader import torch_dtype
from lib_merge.core.plan import CopyOp, KeyTask, Op, models_of
from lib_merge.core.ports import Sink
from lib_merge.engine.rounding import round_into
from lib_merge.engine.sources import Scratch, Sources
from lib_merge.errors import NonFiniteError
from lib_merge.methods import methods

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_ELEMENT_BYTES = 8


@dataclass(frozen=True)
class Unit:
    """Values [start, stop) of one output tensor."""

    task: KeyTask
    start: int
    stop: int


@dataclass(frozen=True)
class Sizes:
    """How much is handled at once, in elements.

    Attributes:
        chunk: Read, written and reported at once.
        tile: Computed at once; small enough for the processor's cache.
    """

    chunk: int
    tile: int

    def worker_bytes(self, n_models: int) -> int:
        """Memory that one worker takes for a merge of so many models, at most."""
        chunks = (n_models + 1) * self.chunk * MAX_ELEMENT_BYTES
        # One tile a model, the result, and what a method needs in between.
        tiles = (n_models + 6) * self.tile * MAX_ELEMENT_BYTES
        return chunks + tiles


class NonFiniteInputs:
    """Keys in which a model itself holds NaN or infinity; shared by all workers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: set[str] = set()

    def add(self, key: str) -> None:
        """Note a key."""
        with self._lock:
            self._keys.add(key)

    def keys(self) -> tuple[str, ...]:
        """All of them, sorted."""
        return tuple(sorted(self._keys))


class Worker:
    """Computes units; each thread has its own.

    Args:
        sources: The open models.
        sink: Where values go.
        sizes: Buffer sizes.
        compute_dtype: What methods work in.
        device: Where they work.
        non_finite: Where keys with NaN or infinity in a model are noted.
    """

    def __init__(
        self,
        sources: Sources,
        sink: Sink,
        *,
        sizes: Sizes,
        compute_dtype: torch.dtype,
        device: str,
        non_finite: NonFiniteInputs,
    ) -> None:
        self._sources = sources
        self._sink = sink
        self._sizes = sizes
        self._compute_dtype = compute_dtype
        self._device = device
        self._non_finite = non_finite
        self._scratch: dict[int | str, Scratch] = {}

    def run(self, unit: Unit) -> None:
        """Compute one unit and hand it to the sink.

        Raises:
            NonFiniteError: A value came out as NaN or infinity, or does not fit the
                type to save in, where every model was finite.
        """
        task = unit.task
        raws = {
            model: self._sources.fetch(
                model,
                task.key,
                start=unit.start,
                stop=unit.stop,
                scratch=self._buffer(model, unit.stop - unit.start),
            )
            for model in models_of(task.op)
        }
        out_dtype = torch_dtype(task.dtype)
        if isinstance(task.op, CopyOp) and raws[task.op.model].dtype == out_dtype:
            self._sink.write(task.key, unit.start, raws[task.op.model])
            return
        n_elements = unit.stop - unit.start
        n_bytes = n_elements * task.dtype.size
        out = self._buffer("out", n_elements).tensor[:n_bytes].view(out_dtype)
        for start in range(0, n_elements, self._sizes.tile):
            stop = min(start + self._sizes.tile, n_elements)
            tiles = {model: raw[start:stop] for model, raw in raws.items()}
            self._tile(task, unit.start + start, tiles, out[start:stop])
        self._sink.write(task.key, unit.start, out)

    def _buffer(self, name: int | str, n_elements: int) -> Scratch:
        """Bytes for so many of the widest elements, kept for the next unit."""
        wanted = n_elements * MAX_ELEMENT_BYTES
        buffer = self._scratch.get(name)
        if buffer is None or buffer.n_bytes < wanted:
            # Grown to the next power of two: sizes settle after a few tensors.
            buffer = Scratch(1 << max(12, (wanted - 1).bit_length()))
            self._scratch[name] = buffer
        return buffer

    def _tile(
        self, task: KeyTask, start: int, raws: Mapping[int, Tensor], out: Tensor
    ) -> None:
        if isinstance(task.op, CopyOp):
            values = raws[task.op.model]
        else:
            inputs = {model: self._widened(raw) for model, raw in raws.items()}
            values = _evaluate(task.op, inputs)
        _round_checked(out, values, _Place(task, start, raws, self._non_finite))

    def _widened(self, raw: Tensor) -> Tensor:
        if self._device == "cpu":
            return raw.to(self._compute_dtype)
        return raw.to(self._device).to(self._compute_dtype)


def _evaluate(op: Op, inputs: Mapping[int, Tensor]) -> Any:
    if isinstance(op, CopyOp):
        return inputs[op.model]
    method = methods().get(op.method)
    return method.call_with(
        [_evaluate(part, inputs) for part in op.inputs], dict(op.params)
    )


@dataclass(frozen=True)
class _Place:
    """Where a tile lies, for messages, with what it was computed from."""

    task: KeyTask
    start: int
    raws: Mapping[int, Tensor]
    non_finite: NonFiniteInputs


def _round_checked(out: Tensor, values: Tensor, place: _Place) -> None:
    import torch

    round_into(out, values)
    if values.element_size() == 1:
        values = values.to(torch.float32)
    low, high = torch.aminmax(values)
    limit = torch.finfo(out.dtype).max
    # NaN compares false, so this is true for finite values within the limits only.
    if low.item() >= -limit and high.item() <= limit:
        return
    bad = ~torch.isfinite(out.to(torch.float64))
    # Some versions of torch clamp to the largest float8 instead of giving NaN.
    bad |= values.to(torch.float64).abs() > _rounding_limit(out.dtype)
    for raw in place.raws.values():
        is_fine = torch.isfinite(raw.to(torch.float64))
        if not bool(is_fine.all()):
            place.non_finite.add(place.task.key)
        bad &= is_fine
    if bool(bad.any()):
        index = int(bad.nonzero()[0])
        raise NonFiniteError(_message(place, index, float(values[index])))


def _rounding_limit(dtype: torch.dtype) -> float:
    """The largest value that rounds to a finite number: half a step above the last."""
    import torch

    info = torch.finfo(dtype)
    step = info.eps * 2.0 ** math.floor(math.log2(info.max))
    return info.max + step / 2


def _message(place: _Place, index: int, value: float) -> str:
    task = place.task
    where = f"'{task.key}' (block {task.block}, value {place.start + index})"
    if math.isfinite(value):
        return (
            f"{where} came out as {value:g}, which does not fit {task.dtype.torch_name}"
            "; save in a wider type (--save-dtype bfloat16 or float32), or take a "
            "smaller alpha there."
        )
    return (
        f"{where} came out as {value:g} although every model is finite there; take a "
        "smaller alpha there, or compute in float64 (--precision float64)."
    )
