"""How the differences of two models are spread in one block; reads that block only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lib_merge.analysis.models import CommonKey, ModelSet, find_models
from lib_merge.checkpoint.reader import CheckpointReader
from lib_merge.core.ports import Progress
from lib_merge.engine.progress import NullProgress
from lib_merge.errors import InputError, NonFiniteError

if TYPE_CHECKING:
    from torch import Tensor

N_BARS = 81
_RUN = 1 << 20


@dataclass(frozen=True)
class Histogram:
    """Counts of differences, b less a.

    Attributes:
        part: The block or component.
        names: Of both models.
        reach: The bars go from -reach to reach, all of one width.
        counts: By bar; odd in number, so that the middle one is around 0.
        n_equal: Values that are exactly equal in both (part of the middle bar).
        n_beyond: Values below the first bar and above the last.
        deviation: Root mean square of the differences.
    """

    part: str
    names: tuple[str, str]
    reach: float
    counts: tuple[int, ...]
    n_equal: int
    n_beyond: tuple[int, int]
    deviation: float


def difference_histogram(
    one: Path, two: Path, part: str, progress: Progress | None = None
) -> Histogram:
    """Count the differences of two models in one part.

    Two passes over the part: the first finds how wide the bars are to be (four times
    the root mean square to either side).

    Args:
        one: The model that is taken away.
        two: The other.
        part: A block (IN04) or a component (unet).
        progress: Advanced by bytes.

    Raises:
        InputError: The files cannot be compared, or have no such part.
        NonFiniteError: A difference is NaN or infinite.
        CheckpointError: A file changed while it was read.
    """
    models = find_models([one, two])
    keys = _keys_of(models, part)
    progress = progress or NullProgress()
    progress.start(
        "Counting differences", 2 * sum(key.n_values for key in keys), "values"
    )
    squares, n_values = 0.0, 0
    for gaps in _runs(models, keys, progress):
        squares += float(gaps.square().sum())
        n_values += gaps.numel()
    deviation = (squares / n_values) ** 0.5
    reach = 4 * deviation or 1.0
    counts = np.zeros(N_BARS, dtype=np.int64)
    n_equal, below, above = 0, 0, 0
    for gaps in _runs(models, keys, progress):
        values = gaps.numpy()
        counts += np.histogram(values, bins=N_BARS, range=(-reach, reach))[0]
        n_equal += int((values == 0).sum())
        below += int((values < -reach).sum())
        above += int((values > reach).sum())
    models.check_unchanged()
    return Histogram(
        part=part,
        names=(models.names[0], models.names[1]),
        reach=reach,
        counts=tuple(int(count) for count in counts),
        n_equal=n_equal,
        n_beyond=(below, above),
        deviation=deviation,
    )


def _runs(
    models: ModelSet, keys: Sequence[CommonKey], progress: Progress
) -> Iterator[Tensor]:
    """The differences of both models, float64, run by run."""
    import torch

    first, second = models.headers
    with CheckpointReader(first) as one, CheckpointReader(second) as two:
        for key in keys:
            for start in range(0, key.n_values, _RUN):
                progress.check()
                stop = min(start + _RUN, key.n_values)
                gaps = two.read(key.names[1], start, stop).to(torch.float64)
                gaps -= one.read(key.names[0], start, stop)
                if not torch.isfinite(gaps.sum()):
                    models.check_unchanged()
                    raise NonFiniteError(
                        f"{first.path} or {second.path} holds NaN or infinity in "
                        f"'{key.key}'; repair it or choose another."
                    )
                progress.advance(stop - start)
                yield gaps


def _keys_of(models: ModelSet, part: str) -> list[CommonKey]:
    names = {part, part.upper(), part.lower()}
    found = [k for k in models.keys if {k.block, k.component.value, k.key} & names]
    if not found:
        known = ", ".join(dict.fromkeys(str(key.block) for key in models.keys))
        raise InputError(
            f"There is no block or component '{part}' in both models; they have "
            f"{known}."
        )
    return found
