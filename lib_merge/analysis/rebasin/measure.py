"""Distances and inner products of a pair in float64, in one streaming read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib_merge.analysis.rebasin.pair import A, B, PairReader
from lib_merge.core.blocks import Component
from lib_merge.core.ports import Progress
from lib_merge.errors import NonFiniteError

if TYPE_CHECKING:
    from torch import Tensor

    from lib_merge.analysis.rebasin.spec import Permutations

_RUN = 1 << 22
"""Values that are widened to float64 at once."""


@dataclass(frozen=True)
class Sums:
    """Float64 sums over the tensors of one component.

    Attributes:
        inner: Sum of a * b.
        squares_a: Sum of a * a.
        squares_b: Sum of b * b.
        squares_delta: Sum of (a - b)^2.
    """

    inner: float = 0.0
    squares_a: float = 0.0
    squares_b: float = 0.0
    squares_delta: float = 0.0

    def plus(self, other: Sums) -> Sums:
        """Both together."""
        return Sums(
            self.inner + other.inner,
            self.squares_a + other.squares_a,
            self.squares_b + other.squares_b,
            self.squares_delta + other.squares_delta,
        )

    @property
    def distance(self) -> float:
        """The L2 distance of A and B."""
        return math.sqrt(self.squares_delta)

    @property
    def cosine(self) -> float:
        """Of the angle between A and B as vectors; 0 where one of them is zero."""
        norms = math.sqrt(self.squares_a * self.squares_b)
        return self.inner / norms if norms else 0.0


def measure_pair(
    reader: PairReader,
    permutations: Permutations,
    progress: Progress,
    *,
    label: str = "Measuring",
) -> dict[Component, Sums]:
    """Compare A with B as permuted, component by component.

    Args:
        reader: The pair.
        permutations: Of B; empty for B as it is.
        progress: Advanced by bytes; asked once a tensor whether to stop.
        label: Of the phase.

    Raises:
        NonFiniteError: A model holds NaN or infinity.
    """
    pair = reader.pair
    infos = [header.infos for header in pair.headers]
    n_bytes = {
        key: sum(infos[m][pair.stored(m, key)].n_bytes for m in (A, B))
        for key in pair.components
    }
    progress.start(label, sum(n_bytes.values()))
    found: dict[Component, Sums] = {}
    for key, component in pair.components.items():
        progress.check()
        a = reader.read(A, key, keep=key in pair.spec.shapes)
        b = reader.read(B, key, keep=key in pair.spec.shapes)
        moved = pair.spec.apply(key, b, permutations)
        sums = _sums(a, moved)
        if not math.isfinite(sums.squares_delta):
            _refuse_non_finite(reader, {A: a, B: b}, key)
        found[component] = found.get(component, Sums()).plus(sums)
        progress.advance(n_bytes[key])
    return found


def total(sums: Mapping[Component, Sums]) -> Sums:
    """All components together."""
    result = Sums()
    for one in sums.values():
        result = result.plus(one)
    return result


def _sums(a: Tensor, b: Tensor) -> Sums:
    result = Sums()
    for wide_a, wide_b in zip(_runs(a), _runs(b), strict=True):
        delta = wide_a - wide_b
        products = (wide_a @ wide_b, wide_a @ wide_a, wide_b @ wide_b, delta @ delta)
        result = result.plus(Sums(*(float(value) for value in products)))
    return result


def _runs(tensor: Tensor) -> Iterator[Tensor]:
    import torch

    for run in torch.split(tensor.reshape(-1), _RUN):
        yield run.to(torch.float64)


def _refuse_non_finite(
    reader: PairReader, tensors: Mapping[int, Tensor], key: str
) -> None:
    import torch

    for model, tensor in tensors.items():
        n_bad = sum(int((~torch.isfinite(run)).sum()) for run in _runs(tensor))
        if n_bad:
            raise NonFiniteError(
                f"{reader.pair.headers[model].path}, tensor '{key}': {n_bad} values "
                "are NaN or infinite, so it cannot be matched; repair the model or "
                "choose another."
            )
