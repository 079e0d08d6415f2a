"""A permutation spec: which axis of which tensor follows which permutation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from lib_merge.analysis.rebasin.structure import Structure, random_member
from lib_merge.core.blocks import Component
from lib_merge.core.seeds import derive_seed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Permutations: TypeAlias = "Mapping[str, NDArray[np.int64]]"
"""B's channel at result[i] takes place i, by the permutation's name."""


@dataclass(frozen=True)
class Slice:
    """A run of one tensor's axis that follows a run of a permutation.

    Attributes:
        key: The tensor.
        axis: 0 or 1.
        start: First entry of the axis.
        offset: First position of the permutation.
        length: Entries; they lie within one part of the permutation.
    """

    key: str
    axis: int
    start: int
    offset: int
    length: int


@dataclass(frozen=True)
class Permutation:
    """One permutation of the spec.

    Attributes:
        name: Permanent; the place in the model, such as "input_blocks.1.0.hidden".
        component: What it belongs to.
        parts: Sizes of the parts that its positions consist of; a part's positions
            stay within it. One, but for attention: query and key, then value and
            output, which share the order of heads.
        structure: Which permutations are allowed.
        slices: What follows it.
    """

    name: str
    component: Component
    parts: tuple[int, ...]
    structure: Structure
    slices: tuple[Slice, ...]

    @property
    def width(self) -> int:
        """Number of positions."""
        return sum(self.parts)

    def touched(self) -> tuple[tuple[str, int], ...]:
        """The (key, axis) pairs that follow it, each once."""
        return tuple(dict.fromkeys((s.key, s.axis) for s in self.slices))

    def slices_of(self, key: str, axis: int) -> tuple[Slice, ...]:
        """The runs of one axis."""
        return tuple(s for s in self.slices if (s.key, s.axis) == (key, axis))


@dataclass(frozen=True)
class PermutationSpec:
    """Every permutation of an architecture; each leaves what the model computes as is.

    Attributes:
        permutations: By name.
        shapes: Of every tensor that follows one.
        warnings: Sentences about what had to be left out.
    """

    permutations: Mapping[str, Permutation]
    shapes: Mapping[str, tuple[int, ...]]
    warnings: tuple[str, ...] = ()
    _by_key: dict[str, list[tuple[str, Slice]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for name, permutation in self.permutations.items():
            for one in permutation.slices:
                self._by_key.setdefault(one.key, []).append((name, one))
        for key, slices in self._by_key.items():
            axes = {(name, one.axis) for name, one in slices}
            # Both axes of a tensor by one permutation would make its score quadratic.
            assert len({name for name, _ in axes}) == len(axes), key

    def names_on(self, key: str, *, axis: int | None = None) -> tuple[str, ...]:
        """The permutations that a tensor follows, on one axis or on any."""
        found = self._by_key.get(key, ())
        names = (name for name, one in found if axis in (None, one.axis))
        return tuple(dict.fromkeys(names))

    @cached_property
    def neighbours(self) -> Mapping[str, frozenset[str]]:
        """For each permutation those whose best choice depends on it."""
        found: dict[str, set[str]] = {name: set() for name in self.permutations}
        for slices in self._by_key.values():
            for name, one in slices:
                found[name] |= {n for n, other in slices if other.axis != one.axis}
        return {name: frozenset(others) for name, others in found.items()}

    def identity(self) -> dict[str, NDArray[np.int64]]:
        """Every permutation as the one that moves nothing."""
        import numpy as np

        return {n: np.arange(p.width) for n, p in self.permutations.items()}

    def random(self, seed: int) -> dict[str, NDArray[np.int64]]:
        """A random allowed choice of every permutation.

        Args:
            seed: Another seed gives another choice.
        """
        import numpy as np

        return {
            name: random_member(
                one.structure,
                one.width,
                np.random.default_rng(derive_seed(seed, "rebasin", name)),
            )
            for name, one in self.permutations.items()
        }

    def index(
        self, key: str, axis: int, permutations: Permutations
    ) -> NDArray[np.int64] | None:
        """Where each entry of an axis comes from, or None where nothing moves.

        Args:
            key: The tensor.
            axis: 0 or 1.
            permutations: By name; those that are missing move nothing.
        """
        import numpy as np

        slices = [s for s in self._by_key.get(key, ()) if s[1].axis == axis]
        found = None
        for name, one in slices:
            permutation = permutations.get(name)
            if permutation is None:
                continue
            if found is None:
                found = np.arange(self.shapes[key][axis])
            moved = permutation[one.offset : one.offset + one.length] - one.offset
            found[one.start : one.start + one.length] = one.start + moved
        if found is None or bool((found == np.arange(len(found))).all()):
            return None
        return found

    def apply(self, key: str, tensor: Tensor, permutations: Permutations) -> Tensor:
        """A tensor with its axes permuted; the input itself where nothing moves.

        Args:
            key: The tensor's name.
            tensor: Of any dtype, bit patterns are kept.
            permutations: By name.
        """
        import torch

        for axis in (0, 1):
            index = self.index(key, axis, permutations)
            if index is not None:
                moved = torch.from_numpy(index).to(tensor.device)
                moved_bits = bits_of(tensor).index_select(axis, moved)
                tensor = moved_bits.view(tensor.dtype)
        return tensor


def bits_of(tensor: Tensor) -> Tensor:
    """A tensor's bit patterns as integers, which every torch can index in any dtype."""
    import torch

    names = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.view(names[tensor.element_size()])
