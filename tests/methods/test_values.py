"""Golden values by hand, float64 references and the laws of each method."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_merge.methods.add_difference import add_difference
from lib_merge.methods.uniform_soup import uniform_soup
from lib_merge.methods.weighted_sum import weighted_sum

numbers = st.floats(-1e3, 1e3, width=32)
alphas = st.floats(0.0, 1.0)
arrays = st.lists(numbers, min_size=1, max_size=40)


def tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def random(seed: int, n: int = 10_000) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("alpha", "wanted"),
    [(0.0, [1.0, -2.0]), (0.25, [1.5, -1.0]), (1.0, [3.0, 2.0]), (2.0, [5.0, 6.0])],
    ids=["a", "quarter", "b", "beyond"],
)
def test_weighted_sum_gives_hand_computed_values(
    alpha: float, wanted: list[float]
) -> None:
    merged = weighted_sum(tensor([1.0, -2.0]), tensor([3.0, 2.0]), alpha=alpha)
    assert merged.tolist() == wanted


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.3, 0.5, 0.77, 1.0, 2.0])
def test_weighted_sum_is_within_two_roundings_of_the_float64_reference(
    alpha: float,
) -> None:
    a, b = random(1), random(2)
    exact = a.numpy().astype(np.float64) * (1.0 - alpha)
    exact += b.numpy().astype(np.float64) * alpha
    error = np.abs(weighted_sum(a, b, alpha=alpha).numpy() - exact)
    scale = np.maximum(np.abs(a.numpy()), np.abs(b.numpy())) * max(1.0, abs(alpha))
    assert float(np.max(error / scale)) <= 4 * np.finfo(np.float32).eps


@given(arrays, alphas)
@settings(deadline=None)
def test_weighted_sum_of_a_model_with_itself_is_that_model(
    values: list[float], alpha: float
) -> None:
    a = tensor(values)
    assert torch.equal(weighted_sum(a, a.clone(), alpha=alpha), a)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40))
@settings(deadline=None)
def test_weighted_sum_is_exact_at_both_ends(pairs: list[tuple[float, float]]) -> None:
    a, b = tensor([p[0] for p in pairs]), tensor([p[1] for p in pairs])
    assert torch.equal(weighted_sum(a, b, alpha=0.0), a)
    assert torch.equal(weighted_sum(a, b, alpha=1.0), b)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40), alphas)
@settings(deadline=None)
def test_weighted_sum_lies_between_its_inputs(
    pairs: list[tuple[float, float]], alpha: float
) -> None:
    a = torch.tensor([p[0] for p in pairs], dtype=torch.float64)
    b = torch.tensor([p[1] for p in pairs], dtype=torch.float64)
    merged = weighted_sum(a, b, alpha=alpha)
    slack = 1e-12 * torch.maximum(a.abs(), b.abs())
    assert bool((merged >= torch.minimum(a, b) - slack).all())
    assert bool((merged <= torch.maximum(a, b) + slack).all())


def test_add_difference_gives_hand_computed_values() -> None:
    merged = add_difference(
        tensor([1.0, 2.0]), tensor([5.0, 1.0]), tensor([3.0, 3.0]), alpha=0.5
    )
    assert merged.tolist() == [2.0, 1.0]


@pytest.mark.parametrize("alpha", [-2.0, 0.0, 0.3, 1.0, 2.0])
def test_add_difference_is_close_to_the_float64_reference(alpha: float) -> None:
    a, b, c = random(1), random(2), random(3)
    exact = a.double() + alpha * (b.double() - c.double())
    merged = add_difference(a, b, c, alpha=alpha)
    torch.testing.assert_close(merged.double(), exact, rtol=1e-6, atol=2e-6)


def test_amplified_difference_is_two_b_minus_a() -> None:
    a, b = random(1), random(2)
    merged = add_difference(a, b, a, alpha=2.0)
    torch.testing.assert_close(merged, 2 * b - a, rtol=1e-5, atol=1e-6)


@given(arrays)
@settings(deadline=None)
def test_add_difference_of_equal_b_and_c_is_a(values: list[float]) -> None:
    a, b = tensor(values), tensor(values[::-1])
    assert torch.equal(add_difference(a, b, b.clone(), alpha=1.0), a)


def test_uniform_soup_gives_hand_computed_values() -> None:
    merged = uniform_soup([tensor([1.0, 0.0]), tensor([2.0, 0.0]), tensor([6.0, 3.0])])
    assert merged.tolist() == [3.0, 1.0]


@pytest.mark.parametrize("n", [2, 3, 7, 33, 102])
def test_uniform_soup_is_close_to_the_float64_reference(n: int) -> None:
    pool = [random(i, 2000) for i in range(n)]
    exact = torch.stack([t.double() for t in pool]).mean(dim=0)
    error = (uniform_soup(pool).double() - exact).abs().max().item()
    assert error <= n * torch.finfo(torch.float32).eps


@given(st.permutations(range(6)))
@settings(deadline=None, max_examples=30)
def test_uniform_soup_does_not_depend_on_the_order(order: list[int]) -> None:
    pool = [random(i, 50).double() for i in range(6)]
    shuffled = uniform_soup([pool[i] for i in order])
    torch.testing.assert_close(shuffled, uniform_soup(pool), rtol=1e-14, atol=1e-15)


def test_uniform_soup_reads_a_lazy_pool_once_and_in_order() -> None:
    seen: list[int] = []

    def pool() -> object:
        for i in range(5):
            seen.append(i)
            yield torch.full((3,), float(i))

    assert uniform_soup(pool()).tolist() == [2.0, 2.0, 2.0]
    assert seen == [0, 1, 2, 3, 4]


def test_uniform_soup_refuses_an_empty_pool() -> None:
    with pytest.raises(ValueError, match="at least one model"):
        uniform_soup([])


def test_uniform_soup_of_two_equals_weighted_sum_at_half() -> None:
    a, b = random(1).double(), random(2).double()
    torch.testing.assert_close(
        uniform_soup([a, b]), weighted_sum(a, b, alpha=0.5), rtol=1e-15, atol=1e-16
    )
