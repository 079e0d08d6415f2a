"""Structures allow what leaves normalisations alone, and assignments find the best."""

from __future__ import annotations

from itertools import pairwise, permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_merge.analysis.rebasin._assign import Scores, best_permutation, is_best
from lib_merge.analysis.rebasin.structure import (
    Branch,
    Leaf,
    Partition,
    Structure,
    allows,
    free,
    grouped,
    heads,
    random_member,
)


def members(structure: Structure, width: int) -> list[np.ndarray]:
    """Every allowed permutation, by asking about each."""
    found = (np.array(order) for order in permutations(range(width)))
    return [order for order in found if allows(structure, order)]


def groups(partition: Partition) -> list[frozenset[int]]:
    cuts = partition.cuts
    return [frozenset(range(start, stop)) for start, stop in pairwise(cuts)]


def keeps(partition: Partition, order: np.ndarray) -> bool:
    """The definition: every group becomes a group, and a pinned one stays."""
    known = groups(partition)
    for group in known:
        image = frozenset(order[sorted(group)].tolist())
        if image not in known or (min(group) in partition.pinned and image != group):
            return False
    return True


def scores_of(*matrices: np.ndarray) -> Scores:
    width = sum(len(m) for m in matrices)
    return Scores(matrices, np.ones(width), np.ones(width))


@pytest.mark.parametrize(
    ("partitions", "width", "count"),
    [
        ([], 4, 24),
        ([Partition((0, 2, 4, 6))], 6, 8 * 6),
        ([Partition((0, 2, 4, 6), frozenset({4}))], 6, 8 * 2),
        ([Partition((0, 2, 4, 6, 8)), Partition((0, 4, 8))], 8, 16 * 4 * 2),
        # Overlapping: 2 | 1 1 | 2 keeps the order of its pieces.
        ([Partition((0, 3, 6)), Partition((0, 2, 4, 6))], 6, 2 * 2),
        ([Partition((0, 1, 2, 3))], 3, 6),
    ],
    ids=["free", "groups", "pinned", "nested", "overlapping", "single_channels"],
)
def test_structure_allows_the_expected_number_of_permutations(
    partitions: list[Partition], width: int, count: int
) -> None:
    structure = grouped(width, partitions)
    found = members(structure, width)
    assert len(found) == count
    assert all(keeps(p, order) for p in partitions for order in found)


def test_nested_and_pinned_groups_allow_everything_that_keeps_them() -> None:
    partitions = [Partition((0, 2, 4, 6)), Partition((0, 4, 6), frozenset({4}))]
    structure = grouped(6, partitions)
    for order in permutations(range(6)):
        array = np.array(order)
        wanted = all(keeps(p, array) for p in partitions)
        assert allows(structure, array) == wanted


def test_sd1_first_stream_has_the_chain_of_thirties_and_twenties() -> None:
    # 320 channels: groups of 10 alone, of 20 and (shifted by 20) of 30 beside others.
    tens = Partition(tuple(range(0, 321, 10)))
    twenties = Partition(tuple(range(0, 321, 20)))
    thirties = Partition((0, *range(20, 321, 30)), frozenset({0}))
    structure = grouped(320, [tens, twenties, thirties])
    assert isinstance(structure, Branch)
    assert [len(nodes) for nodes in structure.classes] == [1, 5]


@given(
    cuts=st.lists(st.sets(st.integers(1, 23), max_size=6), min_size=1, max_size=3),
    pinned=st.sets(st.integers(0, 4)),
    seed=st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=300)
def test_random_members_keep_every_partition(
    cuts: list[set[int]], pinned: set[int], seed: int
) -> None:
    partitions = [
        Partition(
            (0, *sorted(c), 24),
            frozenset(sorted(c)[i] for i in pinned & set(range(len(c)))),
        )
        for c in cuts
    ]
    structure = grouped(24, partitions)
    order = random_member(structure, 24, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(24))
    assert all(keeps(p, order) for p in partitions)
    assert allows(structure, order)


@pytest.mark.parametrize(
    "structure",
    [
        free(6),
        grouped(6, [Partition((0, 2, 4, 6))]),
        grouped(6, [Partition((0, 3, 6)), Partition((0, 2, 4, 6))]),
        grouped(6, [Partition((0, 2, 4, 6), frozenset({0}))]),
    ],
    ids=["free", "groups", "overlapping", "pinned"],
)
def test_assignment_is_the_best_of_all_allowed(structure: Structure) -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        matrix = rng.standard_normal((6, 6))
        best = best_permutation(structure, scores_of(matrix))
        rows = np.arange(6)
        every = [matrix[rows, order].sum() for order in members(structure, 6)]
        assert allows(structure, best)
        assert matrix[rows, best].sum() == pytest.approx(max(every), abs=1e-12)


def test_heads_are_assigned_with_both_of_their_halves() -> None:
    # Two heads of two features: 2 orders of heads, 2 orders in each of four halves.
    structure = heads(2, 2)
    rng = np.random.default_rng(5)
    for _ in range(10):
        query, value = rng.standard_normal((2, 4, 4))
        best = best_permutation(structure, scores_of(query, value))
        every = []
        for order in ([0, 1], [1, 0]):
            for flips in product([0, 1], repeat=4):
                found = 0.0
                for half, matrix in enumerate((query, value)):
                    for head, source in enumerate(order):
                        flip = flips[2 * half + head]
                        for i in (0, 1):
                            found += matrix[2 * head + i, 2 * source + (i ^ flip)]
                every.append(found)
        chosen = scores_of(query, value).chosen(best).sum()
        assert allows(structure, best)
        assert chosen == pytest.approx(max(every), abs=1e-12)


def test_one_head_is_two_free_halves() -> None:
    assert heads(1, 3) == Branch(((Leaf(0, 3),), (Leaf(3, 3),)))


@pytest.mark.parametrize(
    "order",
    [[1, 0, 3, 2, 5, 4, 7, 6], [2, 3, 0, 1, 6, 7, 4, 5]],
    ids=["within_heads", "of_heads"],
)
def test_heads_allow_moves_within_and_of_heads(order: list[int]) -> None:
    assert allows(heads(2, 2), np.array(order))


@pytest.mark.parametrize(
    "order",
    [[2, 3, 0, 1, 4, 5, 6, 7], [0, 2, 1, 3, 4, 5, 6, 7], [4, 5, 2, 3, 0, 1, 6, 7]],
    ids=["halves_apart", "across_heads", "across_halves"],
)
def test_heads_refuse_what_tears_a_head_apart(order: list[int]) -> None:
    assert not allows(heads(2, 2), np.array(order))


def test_largest_of_every_row_is_best_and_less_is_not_known_to_be() -> None:
    matrix = np.array([[3.0, 1.0], [0.0, 2.0]])
    assert is_best(scores_of(matrix), np.array([0, 1]))
    assert not is_best(scores_of(matrix), np.array([1, 0]))
