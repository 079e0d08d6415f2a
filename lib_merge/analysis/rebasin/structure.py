"""Which permutations of a channel axis are allowed, as a tree.

A leaf is a run of channels that may change places freely. A branch holds classes of
subtrees; the subtrees of one class may change places as wholes, and each may be
permuted inside. Groups of a normalisation and attention heads are such subtrees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Leaf:
    """Channels [start, start + size) in any order among themselves."""

    start: int
    size: int


@dataclass(frozen=True)
class Branch:
    """Classes of subtrees; those of one class have one shape and may change places."""

    classes: tuple[tuple[Structure, ...], ...]


Structure: TypeAlias = "Leaf | Branch"


@dataclass(frozen=True)
class Partition:
    """Groups of neighbouring channels that a normalisation takes its statistics over.

    Attributes:
        cuts: Where groups begin, from 0, and the number of channels at the end.
        pinned: First channels of groups that stay where they are, because a part of
            the same group belongs to another axis.
    """

    cuts: tuple[int, ...]
    pinned: frozenset[int] = frozenset()

    def inside(self, start: int, stop: int) -> tuple[int, ...]:
        """Cuts strictly within channels [start, stop)."""
        return tuple(cut for cut in self.cuts if start < cut < stop)

    def pin_of(self, channel: int, start: int, stop: int) -> int | None:
        """Which group holds a channel, where that group cannot change places.

        Args:
            channel: Within channels [start, stop), in which places are changed.
            start: First channel.
            stop: The one behind the last.

        Returns:
            The group's first channel, or None where the group may move: it is neither
            pinned nor cut by the run of channels. A run within one group is not bound.
        """
        first = max(cut for cut in self.cuts if cut <= channel)
        end = min(cut for cut in self.cuts if cut > channel)
        if first in self.pinned:
            return first
        is_cut = first < start or end > stop
        return first if is_cut and self.inside(start, stop) else None


def free(size: int) -> Structure:
    """Any permutation of so many channels."""
    return Leaf(0, size)


def heads(n_heads: int, size: int) -> Structure:
    """Attention heads: any order of heads, and of what each of them holds.

    Positions are 2 * n_heads * size: first the features of query and key, head by head,
    then those of value and output. Both halves of a head move together, and each half
    is permuted inside by itself.

    Args:
        n_heads: How many.
        size: Features of one.
    """
    width = n_heads * size
    pairs = [
        Branch(((Leaf(i * size, size),), (Leaf(width + i * size, size),)))
        for i in range(n_heads)
    ]
    return Branch((tuple(pairs),)) if n_heads > 1 else pairs[0]


def grouped(size: int, partitions: Sequence[Partition]) -> Structure:
    """Permutations that map the groups of every partition onto its groups.

    Where groups of two partitions overlap without one holding the other, the pieces
    between their cuts keep their order; turning such a chain of pieces around would be
    allowed as well and is left out.

    Args:
        size: Number of channels.
        partitions: Each over all of them; none allows every permutation.
    """
    distinct = tuple(dict.fromkeys(partitions))
    return _grouped(0, size, distinct)


def _grouped(start: int, stop: int, partitions: tuple[Partition, ...]) -> Structure:
    cuts = [c for c in (p.inside(start, stop) for p in partitions) if c]
    if not cuts:
        return Leaf(start, stop - start)
    common = set(cuts[0]).intersection(*cuts[1:])
    if common:
        pieces = _pieces(start, stop, common)
        return _classified(pieces, start, stop, partitions)
    # No cut is shared: keep the order of pieces between the cuts of the coarsest ones.
    coarsest = [c for c in cuts if not any(set(o) < set(c) for o in cuts)]
    pieces = _pieces(start, stop, set().union(*coarsest))
    return Branch(tuple((_grouped(*piece, partitions),) for piece in pieces))


def _pieces(start: int, stop: int, cuts: set[int]) -> list[tuple[int, int]]:
    return list(pairwise([start, *sorted(cuts), stop]))


def _classified(
    pieces: Sequence[tuple[int, int]],
    start: int,
    stop: int,
    partitions: tuple[Partition, ...],
) -> Structure:
    """A branch in which pieces that every partition cuts alike may change places."""
    classes: dict[object, list[Structure]] = {}
    for first, end in pieces:
        cuts = (
            (
                tuple(c - first for c in p.inside(first, end)),
                p.pin_of(first, start, stop),
            )
            for p in partitions
        )
        node = _grouped(first, end, partitions)
        classes.setdefault((end - first, *cuts), []).append(node)
    found = tuple(tuple(nodes) for nodes in classes.values())
    if len(found) == 1 and all(isinstance(n, Leaf) and n.size == 1 for n in found[0]):
        return Leaf(pieces[0][0], len(pieces))
    return Branch(found)


def random_member(
    structure: Structure, width: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """A random allowed permutation; position i takes what was at result[i].

    Args:
        structure: What is allowed.
        width: Number of positions.
        rng: Where the choice comes from.
    """
    import numpy as np

    found = np.arange(width, dtype=np.int64)
    _fill(found, structure, structure, rng)
    return found


def _fill(
    found: NDArray[np.int64], to: Structure, source: Structure, rng: np.random.Generator
) -> None:
    if isinstance(to, Leaf):
        assert isinstance(source, Leaf)
        order = source.start + rng.permutation(source.size)
        found[to.start : to.start + to.size] = order
        return
    assert isinstance(source, Branch)
    for places, sources in zip(to.classes, source.classes, strict=True):
        for place, index in zip(places, rng.permutation(len(sources)), strict=True):
            _fill(found, place, sources[index], rng)


def allows(structure: Structure, permutation: NDArray[np.int64]) -> bool:
    """Whether a permutation is one of those that a structure stands for."""
    return _is_image(permutation, structure, structure)


def _is_image(permutation: NDArray[np.int64], to: Structure, source: Structure) -> bool:
    if isinstance(to, Leaf):
        assert isinstance(source, Leaf)
        found = sorted(permutation[to.start : to.start + to.size].tolist())
        return found == list(range(source.start, source.start + source.size))
    assert isinstance(source, Branch)
    for places, sources in zip(to.classes, source.classes, strict=True):
        owners = {first_position(node): node for node in sources}
        starts = sorted(owners)
        for place in places:
            wanted = int(permutation[first_position(place)])
            at = max((s for s in starts if s <= wanted), default=None)
            # Each source serves one place.
            node = owners.pop(at, None) if at is not None else None
            if node is None or not _is_image(permutation, place, node):
                return False
    return True


def first_position(structure: Structure) -> int:
    """The least position that a subtree holds."""
    if isinstance(structure, Leaf):
        return structure.start
    return min(first_position(node) for nodes in structure.classes for node in nodes)
