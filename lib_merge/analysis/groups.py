"""Orders models by likeness and names groups, copies, outliers and neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib_merge.analysis.pairs import PairSums

ALIKE = 0.002
"""Relative distance up to which models are called nearly equal: about what rounding to
bfloat16 does to one."""

OUTLIER = 2.5
"""An outlier is so many times farther from its nearest neighbour than is usual."""

_MIN_FOR_OUTLIERS = 5
_LEAST_SILHOUETTE = 0.2
_MOST_GROUPS = 40


@dataclass(frozen=True)
class Neighbour:
    """The model next to another.

    Attributes:
        model: Its position.
        distance: L2.
    """

    model: int
    distance: float


@dataclass(frozen=True)
class Outlier:
    """A model far from all others.

    Attributes:
        model: Its position.
        factor: So many times the usual distance to the nearest neighbour.
    """

    model: int
    factor: float


@dataclass(frozen=True)
class Grouping:
    """What is noteworthy about some models.

    Attributes:
        order: Positions so that alike models stand side by side.
        cluster_of: A number from 1 on for every model; 0 where it is in no cluster.
        copies: Groups of models that are equal in every value.
        alike: Groups of models that are nearly equal, copies not counted.
        outliers: Models far from all others.
        nearest: The next neighbour of every model.
    """

    order: tuple[int, ...]
    cluster_of: tuple[int, ...]
    copies: tuple[tuple[int, ...], ...]
    alike: tuple[tuple[int, ...], ...]
    outliers: tuple[Outlier, ...]
    nearest: tuple[Neighbour, ...]

    @property
    def n_clusters(self) -> int:
        """How many clusters were found; 1 or 0 means that there is no structure."""
        return max(self.cluster_of, default=0)


def group_models(sums: PairSums) -> Grouping:
    """Find out what is noteworthy.

    Args:
        sums: Of the part that counts; two or more models.
    """
    distances = sums.l2()
    tree = _Tree(distances)
    equal = sums.squares == 0
    alike = sums.relative_l2() <= ALIKE
    return Grouping(
        order=tree.order(),
        cluster_of=_numbered(_clusters(distances, equal), tree.order()),
        copies=_linked(equal),
        alike=tuple(
            group for group in _linked(alike) if not equal[np.ix_(group, group)].all()
        ),
        outliers=tuple(_outliers(distances, equal)),
        nearest=tuple(_nearest(distances)),
    )


class _Tree:
    """Average linkage: the two closest groups are joined, again and again.

    Args:
        distances: N x N.
    """

    def __init__(self, distances: Any) -> None:
        self._distances = distances
        self.n_models = len(distances)
        self.joins: list[tuple[int, int]] = []
        self._leaves: dict[int, list[int]] = {i: [i] for i in range(self.n_models)}
        self._build(distances.astype(np.float64).copy())

    def _build(self, gaps: Any) -> None:
        np.fill_diagonal(gaps, np.inf)
        names = list(range(self.n_models))
        sizes = np.ones(self.n_models)
        for step in range(self.n_models - 1):
            one, two = sorted(divmod(int(gaps.argmin()), self.n_models))
            new = self.n_models + step
            self.joins.append((names[one], names[two]))
            self._leaves[new] = self._joined(names[one], names[two])
            mean = (sizes[one] * gaps[one] + sizes[two] * gaps[two]) / (
                sizes[one] + sizes[two]
            )
            gaps[one] = gaps[:, one] = mean
            gaps[one, one] = np.inf
            gaps[two] = gaps[:, two] = np.inf
            sizes[one] += sizes[two]
            names[one] = new

    def _joined(self, one: int, two: int) -> list[int]:
        """The leaves of both, turned so that the nearest ends meet."""
        left, right = self._leaves[one], self._leaves[two]
        choices = [(a, b) for a in (left, left[::-1]) for b in (right, right[::-1])]
        best = min(choices, key=lambda pair: self._distances[pair[0][-1], pair[1][0]])
        return [*best[0], *best[1]]

    def order(self) -> tuple[int, ...]:
        """The models in the order of the tree's leaves."""
        return tuple(self._leaves[2 * self.n_models - 2])

    def labels(self, n_groups: int) -> Any:
        """A label for each model, with so many groups left."""
        labels = np.arange(self.n_models)
        for step in range(self.n_models - n_groups):
            labels[self._leaves[self.n_models + step]] = self.n_models + step
        return np.unique(labels, return_inverse=True)[1]


def _clusters(distances: Any, equal: Any) -> Any:
    """A label for each model; those of one cluster have one.

    Each cluster is cut again as long as that makes good parts, so that a few models far
    away do not hide what lies between them and the others. Copies count as one model.
    """
    firsts, copy_of = np.unique(equal.argmax(axis=1), return_inverse=True)
    found: list[Any] = []
    waiting = [firsts]
    while waiting:
        members = waiting.pop()
        labels = _best_cut(distances[np.ix_(members, members)])
        parts = [members[labels == label] for label in range(labels.max() + 1)]
        (waiting if len(parts) > 1 else found).extend(parts)
    of_firsts = np.zeros(len(distances), dtype=int)
    for label, members in enumerate(found):
        of_firsts[members] = label
    return of_firsts[firsts][copy_of]


def _best_cut(distances: Any) -> Any:
    """Labels by the cut with the best mean silhouette; all 0 if none is good."""
    n_models = len(distances)
    best, labels = _LEAST_SILHOUETTE, np.zeros(n_models, dtype=int)
    if n_models < 3:
        return labels
    tree = _Tree(distances)
    for n_groups in range(2, min(n_models, _MOST_GROUPS + 1)):
        candidate = tree.labels(n_groups)
        score = _silhouette(distances, candidate)
        if score > best:
            best, labels = score, candidate
    return labels


def _silhouette(distances: Any, labels: Any) -> float:
    """Rousseeuw's mean silhouette; a model alone counts 0."""
    members = labels[:, None] == np.arange(labels.max() + 1)
    counts = members.sum(axis=0)
    sums = distances @ members
    own_count = counts[labels]
    own = sums[np.arange(len(labels)), labels] / np.maximum(own_count - 1, 1)
    means = np.where(members, np.inf, sums / counts)
    other = means.min(axis=1)
    widest = np.maximum(own, other)
    scores = np.where(widest > 0, (other - own) / np.where(widest > 0, widest, 1), 0.0)
    return float(np.where(own_count > 1, scores, 0.0).mean())


def _numbered(labels: Any, order: tuple[int, ...]) -> tuple[int, ...]:
    """Clusters of two and more, numbered as they come in the order; 0 for the rest."""
    counts = np.bincount(labels)
    numbers: dict[int, int] = {}
    for model in order:
        label = int(labels[model])
        if counts[label] > 1:
            numbers.setdefault(label, len(numbers) + 1)
    return tuple(numbers.get(int(label), 0) for label in labels)


def _linked(is_linked: Any) -> tuple[tuple[int, ...], ...]:
    """Groups of two and more that hang together."""
    groups: list[tuple[int, ...]] = []
    left = set(range(len(is_linked)))
    while left:
        group, fresh = set[int](), {min(left)}
        while fresh:
            group |= fresh
            near = {int(j) for i in fresh for j in np.flatnonzero(is_linked[i])}
            fresh = near - group
        left -= group
        if len(group) > 1:
            groups.append(tuple(sorted(group)))
    return tuple(groups)


def _nearest(distances: Any) -> Iterator[Neighbour]:
    gaps = distances.copy()
    np.fill_diagonal(gaps, np.inf)
    for row in gaps:
        model = int(row.argmin())
        yield Neighbour(model, float(row[model]))


def _outliers(distances: Any, equal: Any) -> Iterator[Outlier]:
    """Models whose nearest neighbour, copies apart, is unusually far."""
    gaps = np.where(equal, np.inf, distances).min(axis=1)
    n_distinct = len(np.unique(equal.argmax(axis=1)))
    if n_distinct < _MIN_FOR_OUTLIERS:
        return
    usual = float(np.median(gaps))
    for model in np.argsort(-gaps, kind="stable"):
        if usual > 0 and gaps[model] > OUTLIER * usual:
            yield Outlier(int(model), float(gaps[model] / usual))
