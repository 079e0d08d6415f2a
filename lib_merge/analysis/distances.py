"""Compares models: every distance and similarity of every pair, in one reading."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib_merge.analysis._scan import Scan
from lib_merge.analysis.comparison import Comparison, LeftOut
from lib_merge.analysis.models import CommonKey, ModelSet, find_models
from lib_merge.analysis.pairs import PairSums, RowSums
from lib_merge.analysis.predict import Predictor
from lib_merge.core.ports import Progress
from lib_merge.engine.progress import NullProgress
from lib_merge.errors import NonFiniteError


@dataclass(frozen=True)
class CompareOptions:
    """How models are compared; memory and threads change no bit of the result.

    Attributes:
        budget_bytes: Most memory for buffers and sums. Python and torch themselves
            come on top (about 300 MB).
        n_threads: Threads that read and compute; None takes what the machine has, at
            most eight.
        is_by_key: Whether the sums of every single tensor are kept.
        predict_share: Share of the values that merges are tried on, to tell where they
            would lie; 1 takes all of them, None tries nothing.
    """

    budget_bytes: int = 2 << 30
    n_threads: int | None = None
    is_by_key: bool = False
    predict_share: float | None = None


def compare_files(
    paths: Sequence[Path],
    base: Path | None = None,
    options: CompareOptions | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare checkpoints, reading each of them once.

    Args:
        paths: Two or more files.
        base: The model that changes are measured from, among them or not; None takes
            the first.
        options: Memory, threads, and how much is kept.
        progress: Advanced by bytes; asked once a run whether to stop.

    Raises:
        InputError: The files cannot be compared, or the budget is too small.
        CheckpointError: A file is missing, damaged, or changes while it is read.
        NonFiniteError: A model holds NaN or infinity.
        Cancelled: The user asked to stop.
    """
    return compare_models(find_models(paths, base), options, progress)


def compare_models(
    models: ModelSet,
    options: CompareOptions | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare models whose headers were read; see `compare_files`."""
    options = options or CompareOptions()
    progress = progress or NullProgress()
    began = time.monotonic()
    parts = _Parts(models, is_by_key=options.is_by_key)
    watcher = None
    if options.predict_share is not None:
        watcher = Predictor(models, share=options.predict_share)
    scan = Scan(
        models,
        budget_bytes=options.budget_bytes,
        n_threads=options.n_threads,
        n_kept=parts.n_kept,
        watcher=watcher,
    )
    progress.start("Comparing", scan.n_bytes)
    try:
        for key, sums in scan.keys(progress):
            parts.add(key, sums)
    except NonFiniteError:
        # A file that is being written again may show anything: that is the fault then.
        models.check_unchanged()
        raise
    models.check_unchanged()
    rows = np.argsort(scan.order)
    return Comparison(
        names=models.names,
        paths=tuple(str(header.path) for header in models.headers),
        base=models.base,
        n_apart=models.n_apart,
        architecture=models.architecture.label,
        components=parts.components(rows),
        blocks=parts.blocks(rows),
        keys=parts.keys(rows),
        left_out=tuple(LeftOut(k.key, k.reason) for k in models.left_out),
        predictions=watcher.predictions(rows) if watcher else (),
        seconds=time.monotonic() - began,
        n_bytes=scan.n_bytes,
        n_threads=scan.n_threads,
    )


class _Parts:
    """Adds the keys' sums up to blocks, and those to components.

    Args:
        models: What is compared.
        is_by_key: Whether to keep every key's, too.
    """

    def __init__(self, models: ModelSet, *, is_by_key: bool) -> None:
        self._models = models
        self._is_by_key = is_by_key
        self._keys: dict[str, RowSums] = {}
        n_rows = len(models.headers)
        used = {key.block for key in models.keys}
        self._order = [b for b in models.architecture.blocks if b.id in used]
        self._blocks = {block.id: RowSums.zero(n_rows) for block in self._order}

    @property
    def n_kept(self) -> int:
        """Sums that will be held, once they are also in the models' order."""
        n_components = len({block.component for block in self._order})
        n_keys = len(self._models.keys) if self._is_by_key else 0
        return 2 * (len(self._order) + n_components + n_keys)

    def add(self, key: CommonKey, sums: RowSums) -> None:
        """Take in a key's sums."""
        self._blocks[key.block].add(sums)
        if self._is_by_key:
            self._keys[key.key] = sums

    def components(self, rows: np.ndarray) -> Mapping[str, PairSums]:
        """By component, in the architecture's order."""
        found: dict[str, RowSums] = {}
        for block in self._order:
            name = block.component.value
            sums = found.setdefault(name, RowSums.zero(len(rows)))
            sums.add(self._blocks[block.id])
        return dict(self._ordered(found, rows))

    def blocks(self, rows: np.ndarray) -> Mapping[str, PairSums]:
        """By block, in the architecture's order."""
        named = {str(block.id): self._blocks[block.id] for block in self._order}
        return dict(self._ordered(named, rows))

    def keys(self, rows: np.ndarray) -> Mapping[str, PairSums]:
        """By key, in the order of the base's bytes."""
        return dict(self._ordered(self._keys, rows))

    def _ordered(
        self, found: Mapping[str, RowSums], rows: np.ndarray
    ) -> Iterator[tuple[str, PairSums]]:
        for name, sums in found.items():
            yield name, sums.ordered(rows, self._models.base)
