"""The best allowed permutation for a matrix of scores: assignments within assignments.

The score of a permutation is a sum over positions, so the best one over a tree is found
from the leaves up: a leaf is one assignment, a class of subtrees is an assignment over
the best scores of its pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib_merge.analysis.rebasin.structure import Branch, Leaf, Structure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Scores:
    """Inner products of the channels of A with those of B.

    Attributes:
        matrices: One square matrix a part; entry (i, j) is A's channel i with B's j.
            Parts lie side by side on the permutation's positions.
        norms: Of A's channels, over all parts.
        norms_b: Of B's channels.
    """

    matrices: tuple[NDArray[np.floating], ...]
    norms: NDArray[np.float64]
    norms_b: NDArray[np.float64]

    def block(self, to: Leaf, source: Leaf) -> NDArray[np.floating]:
        """The scores of a leaf's positions with another leaf's."""
        start = 0
        for matrix in self.matrices:
            if to.start < start + len(matrix):
                row, column = to.start - start, source.start - start
                return matrix[row : row + to.size, column : column + source.size]
            start += len(matrix)
        raise IndexError(to.start)

    def chosen(self, permutation: NDArray[np.int64]) -> NDArray[np.float64]:
        """The score of every position under a permutation."""
        import numpy as np

        found, start = [], 0
        for matrix in self.matrices:
            stop = start + len(matrix)
            columns = permutation[start:stop] - start
            found.append(matrix[np.arange(len(matrix)), columns].astype(np.float64))
            start = stop
        return np.concatenate(found)

    @property
    def n_bytes(self) -> int:
        """Memory that it takes, and that solving it takes on top."""
        # scipy works on float64, and on a second copy of it where it maximises.
        return sum(m.nbytes + 16 * m.size for m in self.matrices)


@dataclass(frozen=True)
class _Found:
    score: float
    pieces: tuple[tuple[Leaf, NDArray[np.int64]], ...]


def best_permutation(structure: Structure, scores: Scores) -> NDArray[np.int64]:
    """The allowed permutation with the highest sum of scores.

    Args:
        structure: What is allowed.
        scores: Of all positions.
    """
    import numpy as np

    found = np.arange(sum(len(m) for m in scores.matrices), dtype=np.int64)
    for leaf, order in _best(structure, structure, scores).pieces:
        found[leaf.start : leaf.start + leaf.size] = order
    return found


def is_best(scores: Scores, permutation: NDArray[np.int64]) -> bool:
    """Whether a permutation takes the largest score of every row; seen at a glance."""
    import numpy as np

    largest = np.concatenate([m.max(axis=1) for m in scores.matrices])
    return bool((scores.chosen(permutation) >= largest).all())


def _best(to: Structure, source: Structure, scores: Scores) -> _Found:
    if isinstance(to, Leaf):
        assert isinstance(source, Leaf)
        return _best_leaf(to, source, scores)
    assert isinstance(source, Branch)
    total = 0.0
    pieces: list[tuple[Leaf, NDArray[np.int64]]] = []
    for places, sources in zip(to.classes, source.classes, strict=True):
        for found in _best_class(places, sources, scores):
            total += found.score
            pieces += found.pieces
    return _Found(total, tuple(pieces))


def _best_leaf(to: Leaf, source: Leaf, scores: Scores) -> _Found:
    import numpy as np

    block = scores.block(to, source)
    columns = _assigned(block)
    score = block[np.arange(len(block)), columns].sum(dtype=np.float64)
    return _Found(float(score), ((to, source.start + columns),))


def _assigned(block: NDArray[np.floating]) -> NDArray[np.int64]:
    """The best column for every row, each column once."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    columns: NDArray[np.int64] = block.argmax(axis=1)
    if np.bincount(columns, minlength=len(block)).max() > 1:
        # Not every row can have its largest score.
        _, columns = linear_sum_assignment(block, maximize=True)
    return columns


def _best_class(
    places: Sequence[Structure], sources: Sequence[Structure], scores: Scores
) -> list[_Found]:
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    if len(places) == 1:
        return [_best(places[0], sources[0], scores)]
    if all(isinstance(node, Leaf) for node in (*places, *sources)):
        return _best_leaves(places, sources, scores)  # type: ignore[arg-type]
    pairs = [[_best(place, source, scores) for source in sources] for place in places]
    table = np.array([[pair.score for pair in row] for row in pairs])
    _, columns = linear_sum_assignment(table, maximize=True)
    return [row[column] for row, column in zip(pairs, columns, strict=True)]


def _best_leaves(
    places: Sequence[Leaf], sources: Sequence[Leaf], scores: Scores
) -> list[_Found]:
    """As the general case, for many small leaves of one size at once."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    blocks = np.array([[scores.block(p, s) for s in sources] for p in places])
    columns = blocks.argmax(axis=-1)
    in_order = np.sort(columns, axis=-1)
    is_open = (in_order[..., 1:] == in_order[..., :-1]).any(axis=-1)
    for place, source in np.argwhere(is_open):
        _, found = linear_sum_assignment(blocks[place, source], maximize=True)
        columns[place, source] = found
    chosen = np.take_along_axis(blocks, columns[..., None], axis=-1)
    table = chosen[..., 0].sum(axis=-1, dtype=np.float64)
    _, partners = linear_sum_assignment(table, maximize=True)
    return [
        _Found(
            float(table[place, partner]),
            ((places[place], sources[partner].start + columns[place, partner]),),
        )
        for place, partner in enumerate(partners)
    ]
