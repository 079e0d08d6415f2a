"""Sums of two and three models: golden values, references in float64, laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_merge.core.method import MergeMethod
from lib_merge.methods.amplify_difference import amplify_difference
from lib_merge.methods.clamp_to_range import clamp_to_range
from lib_merge.methods.scale import scale
from lib_merge.methods.sum_twice import sum_twice
from lib_merge.methods.triple_sum import triple_sum
from lib_merge.methods.weighted_subtraction import weighted_subtraction
from lib_merge.methods.weighted_sum import weighted_sum
from tests.methods.cuts import merge_in_cuts, models

numbers = st.floats(-1e3, 1e3, width=32)
wide = st.floats(-1.0, 2.0)
triples = st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=30)
SUMS = [sum_twice, triple_sum]


def tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def columns(values: list[tuple[float, ...]]) -> list[torch.Tensor]:
    return [tensor(list(column)) for column in zip(*values, strict=True)]


def by_id(method: MergeMethod) -> str:
    return method.id


def test_sum_twice_gives_hand_computed_values() -> None:
    a, b, c = tensor([1.0, 0.0]), tensor([5.0, 2.0]), tensor([11.0, -4.0])
    assert sum_twice(a, b, c, alpha=0.5, beta=0.25).tolist() == [5.0, -0.25]


def test_triple_sum_gives_hand_computed_values() -> None:
    a, b, c = tensor([1.0, 0.0]), tensor([5.0, 2.0]), tensor([11.0, -4.0])
    assert triple_sum(a, b, c, alpha=0.5, beta=0.25).tolist() == [5.5, 0.0]
    assert triple_sum(a, b, c, alpha=-1.0, beta=2.0).tolist() == [17.0, -10.0]


def twice(a, b, c, alpha, beta):  # type: ignore[no-untyped-def]
    return (1 - beta) * ((1 - alpha) * a + alpha * b) + beta * c


def triple(a, b, c, alpha, beta):  # type: ignore[no-untyped-def]
    return (1 - alpha - beta) * a + alpha * b + beta * c


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("beta", [-1.0, 0.0, 0.4, 1.0, 2.0])
@pytest.mark.parametrize(
    ("method", "reference"),
    [(sum_twice, twice), (triple_sum, triple)],
    ids=["sum_twice", "triple_sum"],
)
def test_sums_are_close_to_the_float64_reference(
    method: MergeMethod, reference: object, alpha: float, beta: float
) -> None:
    inputs = models(3, (11, 7, 3))
    exact = reference(*(t.double() for t in inputs), alpha, beta)  # type: ignore[operator]
    merged = method(*inputs, alpha=alpha, beta=beta)
    torch.testing.assert_close(merged.double(), exact, rtol=0, atol=2e-5)
    wide_merged = method(*(t.double() for t in inputs), alpha=alpha, beta=beta)
    torch.testing.assert_close(wide_merged, exact, rtol=0, atol=1e-13)


@pytest.mark.parametrize("method", SUMS, ids=by_id)
@given(values=st.lists(numbers, min_size=1, max_size=20), alpha=wide, beta=wide)
@settings(deadline=None, max_examples=40)
def test_sum_of_one_model_with_itself_is_that_model(
    method: MergeMethod, values: list[float], alpha: float, beta: float
) -> None:
    a = tensor(values)
    assert torch.equal(method(a, a.clone(), a.clone(), alpha=alpha, beta=beta), a)


@given(triples)
@settings(deadline=None, max_examples=40)
def test_sums_are_exact_where_one_model_has_everything(
    values: list[tuple[float, float, float]],
) -> None:
    a, b, c = columns(values)
    for method in SUMS:
        assert torch.equal(method(a, b, c, alpha=0.0, beta=0.0), a)
        assert torch.equal(method(a, b, c, alpha=1.0, beta=0.0), b)
        assert torch.equal(method(a, b, c, alpha=0.0, beta=1.0), c)


def test_amplify_difference_gives_hand_computed_values() -> None:
    base, b = tensor([1.0, -2.0]), tensor([3.0, -2.5])
    for alpha, wanted in [(0.0, [1.0, -2.0]), (1.0, [3.0, -2.5]), (2.0, [5.0, -3.0])]:
        assert amplify_difference.call_with([base, b], {"alpha": alpha}).tolist() == (
            wanted
        )


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=30), st.floats(0, 4))
@settings(deadline=None, max_examples=40)
def test_amplify_difference_scales_the_distance_from_the_base(
    values: list[tuple[float, float]], alpha: float
) -> None:
    base, b = (t.double() for t in columns(values))
    merged = amplify_difference.call_with([base, b], {"alpha": alpha})
    distance = torch.linalg.vector_norm(b - base) * alpha
    reached = torch.linalg.vector_norm(merged - base)
    torch.testing.assert_close(reached, distance, rtol=1e-9, atol=1e-9)


def test_amplify_difference_at_two_is_two_b_less_the_base() -> None:
    base, b = models(2, (50, 4))
    merged = amplify_difference.call_with([base, b], {})
    exact = 2 * b.double() - base.double()
    torch.testing.assert_close(merged.double(), exact, rtol=0, atol=2e-6)


def test_weighted_subtraction_gives_hand_computed_values() -> None:
    a, b = tensor([3.0, 1.0]), tensor([1.0, 1.0])
    assert weighted_subtraction(a, b, alpha=0.5, beta=0.5).tolist() == pytest.approx(
        [(3 - 0.25) / 0.75, 1.0]
    )
    assert weighted_subtraction(a, b, alpha=1.0, beta=0.5).tolist() == [5.0, 1.0]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.99])
def test_weighted_subtraction_is_close_to_the_float64_reference(
    alpha: float, beta: float
) -> None:
    a, b = (t.double() for t in models(2, (9, 5)))
    exact = (a.numpy() - alpha * beta * b.numpy()) / (1 - alpha * beta)
    merged = weighted_subtraction(a, b, alpha=alpha, beta=beta).numpy()
    np.testing.assert_allclose(merged, exact, rtol=1e-12, atol=1e-11)


@given(st.floats(0.0, 1.0), st.floats(0.0, 0.9))
@settings(deadline=None, max_examples=40)
def test_weighted_subtraction_undoes_a_weighted_sum(alpha: float, beta: float) -> None:
    x, b = (t.double() for t in models(2, (40,)))
    blended = weighted_sum(x, b, alpha=alpha * beta)
    restored = weighted_subtraction(blended, b, alpha=alpha, beta=beta)
    torch.testing.assert_close(restored, x, rtol=0, atol=1e-13)


def test_weighted_subtraction_is_a_where_either_share_is_zero() -> None:
    a, b = models(2, (40,))
    assert torch.equal(weighted_subtraction(a, b, alpha=0.0, beta=0.99), a)
    assert torch.equal(weighted_subtraction(a, b, alpha=1.0, beta=0.0), a)


def test_scale_multiplies_every_value() -> None:
    a = tensor([2.0, -4.0, 0.0])
    assert scale(a, alpha=0.5).tolist() == [1.0, -2.0, 0.0]
    assert scale(a, alpha=0.0).tolist() == [0.0, 0.0, 0.0]
    assert torch.equal(scale(a, alpha=1.0), a)
    assert torch.equal(scale(a, alpha=-1.0), -a)


def test_clamp_to_range_gives_hand_computed_values() -> None:
    a = tensor([-9.0, 0.5, 9.0])
    pool = [tensor([1.0, 0.0, 2.0]), tensor([-1.0, 1.0, 3.0]), tensor([0.0, 0.0, 2.5])]
    assert clamp_to_range(a, iter(pool)).tolist() == [-1.0, 0.5, 3.0]


@given(triples)
@settings(deadline=None, max_examples=40)
def test_clamp_to_range_agrees_with_numpy_and_is_idempotent(
    values: list[tuple[float, float, float]],
) -> None:
    a, m1, m2 = columns(values)
    limited = clamp_to_range(a, [m1, m2])
    low = np.minimum(m1.numpy(), m2.numpy())
    wanted = np.clip(a.numpy(), low, np.maximum(m1.numpy(), m2.numpy()))
    np.testing.assert_array_equal(limited.numpy(), wanted)
    assert torch.equal(clamp_to_range(limited, [m2, m1]), limited)
    assert torch.equal(clamp_to_range(a, [m1, m2, a]), a)
    assert torch.equal(clamp_to_range(a, [m1]), m1)


def test_clamp_to_range_reads_a_lazy_pool_once_and_leaves_it_untouched() -> None:
    a, *pool = models(4, (30,))
    before = [t.clone() for t in (a, *pool)]
    clamp_to_range(a, (t for t in pool))
    assert all(torch.equal(x, y) for x, y in zip((a, *pool), before, strict=True))


def test_clamp_to_range_refuses_an_empty_pool() -> None:
    with pytest.raises(ValueError, match="at least one model"):
        clamp_to_range(tensor([1.0]), [])


@pytest.mark.parametrize(
    "method",
    [sum_twice, triple_sum, amplify_difference, weighted_subtraction, scale],
    ids=by_id,
)
@pytest.mark.parametrize("step", [1, 13, 1000])
def test_cuts_give_the_bits_of_the_whole(method: MergeMethod, step: int) -> None:
    inputs = models(method.min_models, (37, 29))
    whole = method.call_with(inputs, {}, key="key")
    assert torch.equal(merge_in_cuts(method, inputs, step), whole)
