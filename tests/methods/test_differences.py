"""Differences joined value by value: golden values, float64 references, laws."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_merge.core.method import MergeMethod
from lib_merge.core.runs import Place
from lib_merge.methods.add_difference import add_difference
from lib_merge.methods.add_opposite import add_opposite
from lib_merge.methods.add_strict_opposite import add_strict_opposite
from lib_merge.methods.euclidean_add_difference import euclidean_add_difference
from lib_merge.methods.multiply_difference import multiply_difference
from lib_merge.methods.similarity_add_difference import similarity_add_difference
from lib_merge.methods.train_difference import train_difference
from lib_merge.methods.weighted_sum import weighted_sum
from tests.methods.cuts import CutRuns, merge_in_cuts, models

ADDING = [
    train_difference,
    add_opposite,
    add_strict_opposite,
    similarity_add_difference,
]
JOINING = [multiply_difference, euclidean_add_difference]
SHAPES = [(1,), (40,), (9, 7), (5, 4, 3, 3)]
numbers = st.floats(-1e3, 1e3, width=32)
triples = st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=30)


def tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def columns(values: list[tuple[float, ...]]) -> list[torch.Tensor]:
    return [tensor(list(column)) for column in zip(*values, strict=True)]


def by_id(method: MergeMethod) -> str:
    return method.id


# References: the published formulas, 0/0 as the docstrings say.


def _divided(x: np.ndarray, y: np.ndarray, empty: float) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.nan_to_num(x / y, nan=empty)


def train(a, b, c, alpha):  # type: ignore[no-untyped-def]
    share = _divided(np.abs(b - a), np.abs(b - a) + np.abs(b - c), 0.0)
    return a + 1.8 * alpha * share * (b - c)


def opposite(a, b, c, alpha):  # type: ignore[no-untyped-def]
    apart = np.abs(a - b)
    share = _divided(apart, apart + np.abs(a + b - 2 * c), 0.0)
    return a + 2 * alpha * share * (b - c)


def strict_opposite(a, b, c, alpha):  # type: ignore[no-untyped-def]
    largest = np.maximum(np.abs(a - c), np.abs(b - c))
    opposed = _divided((c - a) * (b - c), largest**2, 0.0)
    return a + 2 * alpha * np.maximum(opposed, 0.0) * (b - c)


def similarity(a, b, c, alpha, beta):  # type: ignore[no-untyped-def]
    alike = _divided(a * b, np.maximum(np.abs(a), np.abs(b)) ** 2, 1.0)
    share = beta * (1 + alike) / 2
    added = a + alpha * (b - c)
    return (1 - share) * added + share * ((1 - alpha / 2) * a + alpha / 2 * b)


def multiply(a, b, c, alpha, beta):  # type: ignore[no-untyped-def]
    size = np.abs(a - c) ** (1 - alpha) * np.abs(b - c) ** alpha
    return c + np.sign((1 - beta) * (a - c) + beta * (b - c)) * size


def euclidean(a, b, c, alpha):  # type: ignore[no-untyped-def]
    unit_a = (a - c) / np.linalg.norm(a - c)
    unit_b = (b - c) / np.linalg.norm(b - c)
    total = (1 - alpha) * a + alpha * b - c
    joined = np.sqrt((1 - alpha) * unit_a**2 + alpha * unit_b**2) * np.sign(total)
    return c + joined / np.linalg.norm(joined) * np.linalg.norm(total)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("alpha", [-1.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize(
    ("method", "reference"),
    [
        (train_difference, train),
        (add_opposite, opposite),
        (add_strict_opposite, strict_opposite),
    ],
    ids=["train", "opposite", "strict"],
)
def test_masked_differences_are_close_to_the_float64_reference(
    method: MergeMethod,
    reference: Callable[..., np.ndarray],
    alpha: float,
    shape: tuple[int, ...],
) -> None:
    inputs = models(3, shape)
    exact = reference(*(t.double().numpy() for t in inputs), alpha)
    merged = method.call_with(inputs, {"alpha": alpha})
    np.testing.assert_allclose(merged.double().numpy(), exact, rtol=0, atol=1e-5)
    wide = method.call_with([t.double() for t in inputs], {"alpha": alpha})
    np.testing.assert_allclose(wide.numpy(), exact, rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("beta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize(
    ("method", "reference"),
    [(similarity_add_difference, similarity), (multiply_difference, multiply)],
    ids=["similarity", "multiply"],
)
def test_methods_with_alpha_and_beta_are_close_to_the_float64_reference(
    method: MergeMethod,
    reference: Callable[..., np.ndarray],
    alpha: float,
    beta: float,
    shape: tuple[int, ...],
) -> None:
    inputs = models(3, shape)
    exact = reference(*(t.double().numpy() for t in inputs), alpha, beta)
    given = {"alpha": alpha, "beta": beta}
    wide = method.call_with([t.double() for t in inputs], given)
    np.testing.assert_allclose(wide.numpy(), exact, rtol=0, atol=1e-13)
    merged = method.call_with(inputs, given)
    np.testing.assert_allclose(merged.double().numpy(), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_euclidean_add_difference_is_close_to_the_float64_reference(
    alpha: float, shape: tuple[int, ...]
) -> None:
    inputs = models(3, shape)
    exact = euclidean(*(t.double().numpy() for t in inputs), alpha)
    wide = euclidean_add_difference.call_with(
        [t.double() for t in inputs], {"alpha": alpha}
    )
    np.testing.assert_allclose(wide.numpy(), exact, rtol=0, atol=1e-12)
    merged = euclidean_add_difference.call_with(inputs, {"alpha": alpha})
    np.testing.assert_allclose(merged.double().numpy(), exact, rtol=0, atol=1e-5)


def test_train_difference_gives_hand_computed_values() -> None:
    # |B - A| / (|B - A| + |B - C|): 3/4, 0 (A is B), 0 (B is C), 1/2.
    a, b, c = tensor([0, 5, 1, 4]), tensor([3, 5, 7, 2]), tensor([2, 1, 7, 0])
    assert train_difference(a, b, c, alpha=1.0).tolist() == pytest.approx(
        [1.8 * 0.75, 5.0, 1.0, 4.0 + 1.8 * 0.5 * 2.0]
    )


def test_opposite_masks_give_hand_computed_values() -> None:
    # A - C and B - C: opposite, equal, A is C, B is C, half as large and opposed.
    c = torch.ones(5, dtype=torch.float64)
    a = c + tensor([-2, 2, 0, 2, 1])
    b = c + tensor([2, 2, 2, 0, -2])
    assert (add_opposite(a, b, c, alpha=1.0) - a).tolist() == [4.0, 0.0, 2.0, 0.0, -3.0]
    strict = add_strict_opposite(a, b, c, alpha=1.0) - a
    assert strict.tolist() == [4.0, 0.0, 0.0, 0.0, -2.0]


def test_add_opposite_replaces_an_opposite_step_by_b() -> None:
    b, c = (t.double() for t in models(2, (30,)))
    for method in (add_opposite, add_strict_opposite):
        merged = method(2 * c - b, b, c, alpha=1.0)
        torch.testing.assert_close(merged, b, rtol=0, atol=1e-14)


def test_similarity_add_difference_gives_hand_computed_values() -> None:
    # Equal, opposite, B is 0, half as large; c is 0 but for the first.
    a, b, c = tensor([2, 2, 2, 2]), tensor([2, -2, 0, 1]), tensor([1, 0, 0, 0])
    merged = similarity_add_difference(a, b, c, alpha=1.0, beta=1.0)
    assert merged.tolist() == [2.0, 0.0, 1.5, 0.25 * 3.0 + 0.75 * 1.5]


def test_similarity_add_difference_at_beta_zero_is_add_difference() -> None:
    a, b, c = models(3, (60,))
    merged = similarity_add_difference(a, b, c, alpha=0.7, beta=0.0)
    assert torch.equal(merged, add_difference(a, b, c, alpha=0.7))


def test_similarity_add_difference_counts_two_zeros_as_equal() -> None:
    zero, c = torch.zeros(3), torch.ones(3)
    merged = similarity_add_difference(zero, zero.clone(), c, alpha=1.0, beta=1.0)
    assert merged.tolist() == [0.0, 0.0, 0.0]


def test_similarity_add_difference_tells_tiny_values_apart() -> None:
    a, b, c = (torch.full((2,), v) for v in (1e-30, -1e-30, 0.0))
    merged = similarity_add_difference(a, b, c, alpha=1.0, beta=1.0)
    assert merged.tolist() == [0.0, 0.0]  # A + B - C, not the mean with A: 1e-30 / 2


def test_multiply_difference_gives_hand_computed_values() -> None:
    c = torch.ones(5, dtype=torch.float64)
    a = c + tensor([4, -4, 4, 0, 4])
    b = c + tensor([9, -9, -1, 9, -4])
    merged = multiply_difference(a, b, c, alpha=0.5, beta=0.5) - c
    assert merged.tolist() == [6.0, -6.0, 2.0, 0.0, 0.0]
    sizes_of_a = multiply_difference(a, b, c, alpha=0.0, beta=1.0) - c
    assert sizes_of_a.tolist() == [4.0, -4.0, -4.0, 0.0, -4.0]


def test_euclidean_add_difference_gives_hand_computed_values() -> None:
    c = tensor([1.0, 1.0])
    merged = euclidean_add_difference.call_with(
        [c + tensor([3.0, 0.0]), c + tensor([0.0, 4.0]), c], {"alpha": 0.5}
    )
    # s is (1.5, 2), 2.5 long; both unit differences have a share of one half.
    length = 2.5 / math.sqrt(2.0)
    assert (merged - c).tolist() == pytest.approx([length, length])


@pytest.mark.parametrize("method", ADDING, ids=by_id)
@given(values=triples)
@settings(deadline=None, max_examples=30)
def test_alpha_zero_gives_a_exactly(
    method: MergeMethod, values: list[tuple[float, ...]]
) -> None:
    a, b, c = columns(values)
    assert torch.equal(method(a, b, c, alpha=0.0), a)


@pytest.mark.parametrize("method", ADDING, ids=by_id)
@given(values=triples, alpha=st.floats(-1.0, 2.0))
@settings(deadline=None, max_examples=30)
def test_no_difference_leaves_a_as_it_is(
    method: MergeMethod, values: list[tuple[float, ...]], alpha: float
) -> None:
    a, b, _ = columns(values)
    assert torch.equal(method(a, a.clone(), a.clone(), alpha=alpha), a)
    if method is not similarity_add_difference:
        assert torch.equal(method(a, b, b.clone(), alpha=alpha), a)
    assert torch.equal(method(a, a.clone(), b, alpha=alpha), a)


@given(values=triples)
@settings(deadline=None, max_examples=30)
def test_masks_stay_within_their_limits(values: list[tuple[float, ...]]) -> None:
    a, b, c = columns(values)
    step = (b - c).abs()
    slack = 1e-12 * (a.abs() + b.abs() + c.abs()) + 1e-300
    for method, limit in [
        (train_difference, 1.8),
        (add_opposite, 2.0),
        (add_strict_opposite, 2.0),
    ]:
        change = method(a, b, c, alpha=1.0) - a
        assert bool((change.abs() <= limit * step + slack).all())
        assert bool((change * (b - c) >= -slack * step).all())


@given(values=triples)
@settings(deadline=None, max_examples=30)
def test_similarity_add_difference_lies_between_its_two_parts(
    values: list[tuple[float, ...]],
) -> None:
    a, b, c = columns(values)
    merged = similarity_add_difference(a, b, c, alpha=1.0, beta=1.0)
    added, mean = a + b - c, (a + b) / 2
    slack = 1e-12 * (a.abs() + b.abs() + c.abs())
    assert bool((merged >= torch.minimum(added, mean) - slack).all())
    assert bool((merged <= torch.maximum(added, mean) + slack).all())


@pytest.mark.parametrize("method", JOINING, ids=by_id)
@given(values=triples, alpha=st.floats(0.0, 1.0))
@settings(deadline=None, max_examples=30)
def test_joined_differences_treat_both_directions_alike(
    method: MergeMethod, values: list[tuple[float, ...]], alpha: float
) -> None:
    a, b, _ = columns(values)
    c = torch.zeros_like(a)
    merged = method.call_with([a, b, c], {"alpha": alpha})
    mirrored = method.call_with([-a, -b, c], {"alpha": alpha})
    assert torch.equal(mirrored, -merged)


@pytest.mark.parametrize("method", JOINING, ids=by_id)
def test_joined_differences_end_at_a_and_at_b(method: MergeMethod) -> None:
    inputs = [t.double() for t in models(3, (50,))]
    for end, wanted in [(0.0, inputs[0]), (1.0, inputs[1])]:
        given = {spec.name: end for spec in method.params}
        merged = method.call_with(inputs, given)
        torch.testing.assert_close(merged, wanted, rtol=0, atol=1e-14)


@given(alpha=st.floats(0.0, 1.0), size=st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=30)
def test_euclidean_add_difference_is_as_long_as_the_weighted_sum(
    alpha: float, size: float
) -> None:
    a, b, c = (t.double() for t in models(3, (6, 5)))
    a = c + (a - c) * size
    merged = euclidean_add_difference.call_with([a, b, c], {"alpha": alpha})
    wanted = torch.linalg.vector_norm(weighted_sum(a, b, alpha=alpha) - c)
    torch.testing.assert_close(torch.linalg.vector_norm(merged - c), wanted)


def test_euclidean_add_difference_with_one_difference_keeps_its_direction() -> None:
    c, b = (t.double() for t in models(2, (30,)))
    merged = euclidean_add_difference.call_with([c, b, c.clone()], {"alpha": 0.25})
    torch.testing.assert_close(merged, c + 0.25 * (b - c))


@pytest.mark.parametrize("method", JOINING, ids=by_id)
def test_differences_that_cancel_give_c(method: MergeMethod) -> None:
    c = tensor([1.0, 2.0, -3.0])
    step = tensor([0.5, -0.25, 4.0])
    merged = method.call_with([c + step, c - step, c], {})
    assert torch.equal(merged, c)


def test_euclidean_add_difference_is_as_long_where_some_values_cancel() -> None:
    c = torch.zeros(3, dtype=torch.float64)
    a, b = tensor([3.0, 1.0, 4.0]), tensor([-3.0, 5.0, 2.0])
    merged = euclidean_add_difference.call_with([a, b, c], {"alpha": 0.5})
    assert merged[0] == 0.0
    wanted = torch.linalg.vector_norm(a + b) / 2
    torch.testing.assert_close(torch.linalg.vector_norm(merged), wanted)


def test_euclidean_add_difference_survives_differences_too_small_to_square() -> None:
    c = torch.zeros(4)
    a, b = torch.full((4,), 1e-30), torch.full((4,), 3e-30)
    merged = euclidean_add_difference.call_with([a, b, c], {"alpha": 0.5})
    torch.testing.assert_close(merged, torch.full((4,), 2e-30), rtol=1e-5, atol=0)


@pytest.mark.parametrize("method", [*ADDING, *JOINING], ids=by_id)
@pytest.mark.parametrize("step", [1, 13, 1000])
def test_cuts_give_the_bits_of_the_whole(method: MergeMethod, step: int) -> None:
    inputs = models(3, (37, 29))
    whole = method.call_with(inputs, {}, key="key")
    assert torch.equal(merge_in_cuts(method, inputs, step), whole)


@pytest.mark.parametrize("step", [1, 13, 1000])
def test_euclidean_factors_do_not_depend_on_the_runs(step: int) -> None:
    inputs, place = models(3, (37, 29)), Place("key", (37, 29))
    method = euclidean_add_difference
    assert method.measure is not None
    found = method.measure(CutRuns(method, inputs, place, step), alpha=0.3)
    whole = method.measure(CutRuns(method, inputs, place, 10**6), alpha=0.3)
    assert found == pytest.approx(whole, rel=1e-12)
