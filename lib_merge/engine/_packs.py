"""Packs: small tensors of one block merged as one, for merges that follow each other.

A model has hundreds of tensors of a few thousand values, and each costs the same
fifth of a millisecond however small it is. Where a method works value by value, those
of one block that get the same parameters are laid end to end, once, and merged with one
call. What comes out is the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib_merge.checkpoint.reader import torch_dtype
from lib_merge.core.dtypes import DType
from lib_merge.core.method import MergeMethod
from lib_merge.core.plan import CopyOp, KeyTask, MergeOp, models_of
from lib_merge.core.ports import Sink
from lib_merge.core.runs import Over
from lib_merge.core.spaces import Space
from lib_merge.engine._evaluate import given_inputs, given_params
from lib_merge.engine.rounding import round_into
from lib_merge.engine.sources import FileId, Scratch, Sources
from lib_merge.methods import methods

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_ELEMENTS = 1 << 16
"""Tensors up to this size are packed; a larger one is worth a call of its own."""

MAX_BYTES = 64 << 20
"""Most memory for packs; what does not fit is merged one by one."""


@dataclass(frozen=True)
class _Pack:
    """Some tensors of every model, end to end, as stored.

    Attributes:
        values: By model node.
        is_usable: Whether each model stores them in one type, and none of them is NaN
            or infinite.
    """

    values: Mapping[int, Tensor]
    is_usable: bool

    @property
    def n_bytes(self) -> int:
        return sum(values.nbytes for values in self.values.values())


class Packs:
    """Keeps the packs of the models that are being merged."""

    def __init__(self) -> None:
        self._packs: dict[tuple[object, ...], _Pack] = {}
        self._files: Mapping[int, FileId] = {}
        self._n_bytes = 0

    def clear(self) -> None:
        """Forget everything."""
        self._packs.clear()
        self._n_bytes = 0

    def merge(
        self,
        tasks: Sequence[KeyTask],
        sink: Sink,
        *,
        sources: Sources,
        files: Mapping[int, FileId],
        compute: DType,
        advance: Callable[[int], None],
    ) -> list[KeyTask]:
        """Merge and write what can be merged in packs.

        Args:
            tasks: What is to be written.
            sink: Where to.
            sources: The open models.
            files: What identifies them.
            compute: What methods work in.
            advance: Told bytes of progress.

        Returns:
            The tasks that are left for the engine: large ones, other methods, models
            with NaN or infinity, and results that do not fit their type.
        """
        if dict(files) != dict(self._files):
            self.clear()
            self._files = dict(files)
        groups: dict[tuple[object, ...], list[KeyTask]] = {}
        left = []
        for task in tasks:
            kind = _kind(task)
            if kind is None:
                left.append(task)
            else:
                groups.setdefault(kind, []).append(task)
        for group in groups.values():
            if len(group) < 2 or not self._write(group, sink, sources, compute):
                left += group
            else:
                advance(sum(task.n_bytes for task in group))
        return left

    def _write(
        self, group: Sequence[KeyTask], sink: Sink, sources: Sources, compute: DType
    ) -> bool:
        import torch

        pack = self._pack(group, sources)
        if pack is None or not pack.is_usable:
            return False
        values = _apply(group[0].op, pack, torch_dtype(compute))
        out = torch.empty(values.numel(), dtype=torch_dtype(group[0].dtype))
        round_into(out, values)
        low, high = torch.aminmax(values)
        limit = torch.finfo(out.dtype).max
        if not (low.item() >= -limit and high.item() <= limit):
            return False
        start = 0
        for task in group:
            stop = start + task.n_elements
            sink.write(task.key, 0, out[start:stop])
            start = stop
        return True

    def _pack(self, group: Sequence[KeyTask], sources: Sources) -> _Pack | None:
        models = models_of(group[0].op)
        name = (models, *(task.key for task in group))
        found = self._packs.get(name)
        if found is None:
            found = _read(models, group, sources)
            if self._n_bytes + found.n_bytes > MAX_BYTES:
                return None
            self._packs[name] = found
            self._n_bytes += found.n_bytes
        return found


def _kind(task: KeyTask) -> tuple[object, ...] | None:
    """Tasks of equal kinds make one pack; None cannot be packed."""
    op = task.op
    if not isinstance(op, MergeOp) or not 0 < task.n_elements <= MAX_ELEMENTS:
        return None
    if not all(part is None or isinstance(part, CopyOp) for part in op.inputs):
        return None
    if not _is_by_value(methods().get(op.method)):
        return None
    return (task.block, task.dtype, op)


def _is_by_value(method: MergeMethod) -> bool:
    """Whether every value of the result depends on nothing but its own."""
    is_plain = not method.halo and not method.wants_place and method.measure is None
    return method.over is Over.ELEMENTS and is_plain


def _read(models: Sequence[int], group: Sequence[KeyTask], sources: Sources) -> _Pack:
    import torch

    values = {}
    for model in models:
        parts = []
        for task in group:
            n_bytes = task.n_elements * sources.element_bytes(model, task.key)
            scratch = Scratch(max(1, n_bytes))
            stop = task.n_elements
            part = sources.fetch(model, task.key, start=0, stop=stop, scratch=scratch)
            parts.append(part.clone())
        if len({part.dtype for part in parts}) > 1:
            return _Pack({}, is_usable=False)
        values[model] = torch.cat(parts)
    total = sum(float(v.to(torch.float64).sum()) for v in values.values())
    return _Pack(values, is_usable=total - total == 0.0)


def _apply(op: object, pack: _Pack, dtype: torch.dtype) -> Tensor:
    """What the engine's evaluator does for one run, on a whole pack."""
    assert isinstance(op, MergeOp)
    method = methods().get(op.method)

    def read(index: int) -> Tensor:
        part = op.inputs[index]
        assert isinstance(part, CopyOp)
        return pack.values[part.model].to(dtype)

    base = read(0) if method.has_base else None
    args = method.arguments(read, given_inputs(op), base)
    values: Tensor = method.function(*args, **given_params(op, method))
    if method.result is Space.DELTA and base is not None:
        values = base + values
    return values
