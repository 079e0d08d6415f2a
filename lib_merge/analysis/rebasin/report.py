"""What an alignment did: how far each permutation moved, and the distances."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lib_merge.analysis.rebasin.matching import Matching
from lib_merge.analysis.rebasin.measure import Sums, total
from lib_merge.analysis.rebasin.pair import A, B, Pair
from lib_merge.core.blocks import Component


@dataclass(frozen=True)
class Move:
    """How far one permutation moved.

    Attributes:
        name: Of the permutation.
        component: What it belongs to.
        width: Number of its channels.
        n_moved: Channels that are elsewhere now.
        gain: What the search added to the score by it after the start.
    """

    name: str
    component: Component
    width: int
    n_moved: int
    gain: float


@dataclass(frozen=True)
class Distance:
    """A compared with B in one component, or in all of them.

    Attributes:
        name: The component, or "all".
        before: With B as it is.
        after: With B aligned.
    """

    name: str
    before: Sums
    after: Sums


@dataclass(frozen=True)
class Report:
    """The outcome of a matching.

    Attributes:
        model_a: File name of A.
        model_b: File name of B.
        arch_id: Of both.
        matching: What was found.
        moves: Every permutation, in the model's order.
        distances: By component, all together last.
        warnings: Sentences that the user should see.
    """

    model_a: str
    model_b: str
    arch_id: str
    matching: Matching
    moves: tuple[Move, ...]
    distances: tuple[Distance, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A plain JSON object."""
        return {
            "a": self.model_a,
            "b": self.model_b,
            "architecture": self.arch_id,
            "start": self.matching.start,
            "scores": list(self.matching.scores),
            "is_settled": self.matching.is_settled,
            "distances": {
                one.name: {
                    "before": one.before.distance,
                    "after": one.after.distance,
                    "cosine_before": one.before.cosine,
                    "cosine_after": one.after.cosine,
                }
                for one in self.distances
            },
            "permutations": [
                {
                    "name": move.name,
                    "component": move.component.value,
                    "width": move.width,
                    "n_moved": move.n_moved,
                    "gain": move.gain,
                }
                for move in self.moves
            ],
            "warnings": list(self.warnings),
        }


def report_of(pair: Pair, matching: Matching) -> Report:
    """Describe what a search found.

    Args:
        pair: The models.
        matching: What was found.
    """
    return Report(
        model_a=pair.headers[A].path.name,
        model_b=pair.headers[B].path.name,
        arch_id=pair.architecture.id,
        matching=matching,
        moves=tuple(_moves(pair, matching)),
        distances=tuple(_distances(matching)),
        warnings=pair.spec.warnings,
    )


def _moves(pair: Pair, matching: Matching) -> Iterator[Move]:
    import numpy as np

    for name, permutation in pair.spec.permutations.items():
        found = matching.permutations[name]
        n_moved = int((found != np.arange(len(found))).sum())
        gain = matching.gains.get(name, 0.0)
        yield Move(name, permutation.component, permutation.width, n_moved, gain)


def _distances(matching: Matching) -> Iterator[Distance]:
    for component, before in matching.before.items():
        yield Distance(component.value, before, matching.after[component])
    yield Distance("all", total(matching.before), total(matching.after))
