"""Reads all models once, run by run in several threads, and sums up every pair."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lib_merge.analysis._crew import default_threads, in_order, n_ahead
from lib_merge.analysis._tile import NotFinite, Tile, run_values, tile_values
from lib_merge.analysis.models import CommonKey, ModelSet
from lib_merge.analysis.pairs import RowSums, sum_bytes
from lib_merge.checkpoint.handles import Handles, memory_bytes
from lib_merge.checkpoint.reader import CheckpointReader, torch_dtype
from lib_merge.core.ports import Progress
from lib_merge.engine.sources import Scratch
from lib_merge.errors import InputError, NonFiniteError

if TYPE_CHECKING:
    from torch import Tensor

_CACHED_SHARE = 1 / 3
"""Models that together have more than this share of the memory would push everything
else out of the page cache, and by the end their own beginning."""

_WAITING = 1
"""A thread more than there are processors, as one or another waits for the disk."""

_TILE_BYTES = 12 + 3 * 8
"""Of a value in a tile: single, double, and what is made of them for a moment."""


@dataclass(frozen=True)
class Spot:
    """Where a tile lies.

    Attributes:
        key: The tensor.
        start: Index of the tile's first value.
        index: Its number in the tensor.
        n_tiles: Tiles of the tensor.
    """

    key: CommonKey
    start: int
    index: int
    n_tiles: int


@dataclass(frozen=True, eq=False)
class TileSample:
    """What a watcher saw in one tile.

    Attributes:
        squares: Squared distances of what it tried, one row each, from every row.
        scale: Sum of all squared changes in the tile.
        n_values: Values of a model in it.
    """

    squares: Any
    scale: float
    n_values: int


class Watcher(Protocol):
    """Looks at tiles while they are in memory, and at the sums of whole tensors."""

    def look(self, spot: Spot, values: Tensor) -> TileSample | None:
        """See a tile; called from several threads.

        Args:
            spot: Where it lies.
            values: The base, then the changes of the others, float64.
        """
        ...

    def finish(
        self, key: CommonKey, sums: RowSums, samples: Sequence[TileSample]
    ) -> None:
        """See a whole tensor; called in the keys' order."""
        ...


@dataclass(frozen=True)
class _Run:
    """Values [start, stop) of one key's tensors."""

    key: CommonKey
    start: int
    stop: int


@dataclass(eq=False)
class _Found:
    run: _Run
    sums: RowSums
    samples: list[TileSample]


class Scan:
    """One pass over the models.

    Args:
        models: What is read.
        budget_bytes: Most memory for buffers and sums, over all threads.
        n_threads: Threads that read and compute; None takes what the machine has.
        n_kept: Sums that the caller will keep.
        watcher: Looks on.

    Raises:
        InputError: The budget is too small; says what is needed.
    """

    def __init__(
        self,
        models: ModelSet,
        *,
        budget_bytes: int,
        n_threads: int | None,
        n_kept: int,
        watcher: Watcher | None = None,
    ) -> None:
        self._models = models
        self._watcher = watcher
        n_models = len(models.headers)
        others = [i for i in range(n_models) if i != models.base]
        self.order = (models.base, *others)
        self.n_threads = _fitting_threads(
            models, budget_bytes, n_threads or default_threads() + _WAITING, n_kept
        )
        self.n_bytes = sum(
            models.headers[i].infos[key.names[i]].n_bytes
            for key in models.keys
            for i in range(n_models)
        )
        is_large = self.n_bytes > memory_bytes() * _CACHED_SHARE
        self._handles = Handles(is_in_order=not is_large, is_once=is_large)
        self._readers: list[CheckpointReader] = []
        self._workers: queue.SimpleQueue[_Buffers] = queue.SimpleQueue()

    def keys(self, progress: Progress) -> Iterator[tuple[CommonKey, RowSums]]:
        """The sums of every key, in order; the base is row 0 (see `order`).

        Args:
            progress: Advanced by bytes read; asked every run whether to stop.

        Raises:
            CheckpointError: A file changed, went away or could not be read.
            NonFiniteError: A model holds NaN or infinity.
            Cancelled: The user asked to stop.
        """
        try:
            self._open()
            yield from self._keys(progress)
        finally:
            for reader in self._readers:
                reader.close()

    def _open(self) -> None:
        headers = self._models.headers
        self._models.check_unchanged()
        for i in self.order:
            self._readers.append(CheckpointReader(headers[i], self._handles))
        n_bytes = _run_bytes(self._models)
        for _ in range(self.n_threads):
            self._workers.put(_Buffers(Tile(len(headers)), Scratch(n_bytes)))

    def _keys(self, progress: Progress) -> Iterator[tuple[CommonKey, RowSums]]:
        n_rows = len(self.order)
        sums, samples = RowSums.zero(n_rows), list[TileSample]()
        for found in in_order(self._work, self._runs(), self.n_threads):
            progress.check()
            sums.add(found.sums)
            samples += found.samples
            key, stop = found.run.key, found.run.stop
            progress.advance(self._n_bytes_of(found.run))
            if stop < key.n_values:
                continue
            if self._watcher is not None:
                self._watcher.finish(key, sums, samples)
            yield key, sums
            sums, samples = RowSums.zero(n_rows), []

    def _runs(self) -> Iterator[_Run]:
        """Runs of all keys, in the order of the base's bytes."""
        step = run_values(len(self.order))
        for key in self._models.keys:
            for start in range(0, key.n_values, step):
                stop = min(start + step, key.n_values)
                yield _Run(key, start, stop)

    def _n_bytes_of(self, run: _Run) -> int:
        n_bytes = sum(
            reader.header.infos[run.key.names[i]].dtype.size
            for i, reader in zip(self.order, self._readers, strict=True)
        )
        return n_bytes * (run.stop - run.start)

    def _work(self, run: _Run) -> _Found:
        buffers = self._workers.get()
        try:
            rows = self._read(run, buffers.scratch)
            return self._sum(run, rows, buffers.tile)
        finally:
            self._workers.put(buffers)

    def _read(self, run: _Run, scratch: Scratch) -> Tensor | list[Tensor]:
        rows = []
        at = 0
        for i, reader in zip(self.order, self._readers, strict=True):
            name = run.key.names[i]
            dtype = reader.header.infos[name].dtype
            end = at + (run.stop - run.start) * dtype.size
            reader.read_into(name, run.start, run.stop, scratch.memory[at:end])
            rows.append(scratch.tensor[at:end].view(torch_dtype(dtype)))
            at = -(-end // 8) * 8  # Every row begins where its type may begin.
        if len({row.dtype for row in rows}) == 1 and not rows[0].nbytes % 8:
            flat = scratch.tensor[:at].view(rows[0].dtype)
            return flat.view(len(rows), -1)
        return rows

    def _sum(self, run: _Run, rows: Tensor | list[Tensor], tile: Tile) -> _Found:
        samples: list[TileSample] = []
        step = tile_values(len(self.order))
        n_tiles = -(-run.key.n_values // step)

        def look(start: int, values: Tensor) -> None:
            assert self._watcher is not None
            at = run.start + start
            spot = Spot(run.key, at, at // step, n_tiles)
            sample = self._watcher.look(spot, values)
            if sample is not None:
                samples.append(sample)

        try:
            sums = tile.sums(rows, look if self._watcher is not None else None)
        except NotFinite:
            raise self._fault(run, rows) from None
        return _Found(run, sums, samples)

    def _fault(self, run: _Run, rows: Sequence[Tensor] | Tensor) -> NonFiniteError:
        """Who holds NaN or infinity, in one sentence."""
        import torch

        for i, row in zip(self.order, rows, strict=True):
            n_bad = int((~torch.isfinite(row.to(torch.float64))).sum())
            if n_bad:
                path = self._models.headers[i].path
                return NonFiniteError(
                    f"{path} holds NaN or infinity ({n_bad} of the values from "
                    f"{run.start} to {run.stop - 1} of '{run.key.names[i]}'), so it "
                    "has no distance to anything; repair it or leave it out."
                )
        return NonFiniteError(
            f"'{run.key.key}' holds values whose squares are beyond float64; models "
            "with such values cannot be compared."
        )


@dataclass(frozen=True)
class _Buffers:
    """What one thread works in."""

    tile: Tile
    scratch: Scratch


def _run_bytes(models: ModelSet) -> int:
    """Memory for the stored values of the largest run."""
    n_models = len(models.headers)
    longest = run_values(n_models)
    most = 0
    for key in models.keys:
        sizes = [
            header.infos[name].dtype.size
            for header, name in zip(models.headers, key.names, strict=True)
        ]
        most = max(most, min(longest, key.n_values) * sum(sizes))
    return most + 8 * n_models


def _fitting_threads(
    models: ModelSet, budget_bytes: int, n_threads: int, n_kept: int
) -> int:
    """As many of the threads as the budget has room for."""
    n_models = len(models.headers)
    sums = sum_bytes(n_models)
    tile = n_models * tile_values(n_models) * _TILE_BYTES
    for n in range(n_threads, 0, -1):
        needed = n * (_run_bytes(models) + tile) + sums * (n_kept + 2 * n_ahead(n))
        if needed <= budget_bytes:
            return n
    raise InputError(
        f"A memory budget of {budget_bytes / 1e6:.1f} MB is too small for "
        f"{n_models} models; give at least {needed / 1e6 + 0.1:.1f} MB (--memory)"
        + (", or do without the sums of every key." if n_kept > 200 else ".")
    )
