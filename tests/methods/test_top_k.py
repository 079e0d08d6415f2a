"""Top-k tensor sum against a plain sort in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib_merge.methods.top_k_tensor_sum import top_k_tensor_sum

BY_DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def pair(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(31)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(2)]


def reference(a: Tensor, b: Tensor, alpha: float, beta: float) -> np.ndarray:
    flat, n = a.numpy().ravel(), a.numel()
    ordered = np.sort(flat)
    magnitudes = np.sort(np.abs(flat))
    windows = [(round(n * beta), round(n * min(1.0, alpha + beta)))]
    if alpha + beta > 1.0:
        windows.append((0, round(n * (alpha + beta - 1.0))))
    is_moved = np.zeros(n, dtype=bool)
    for low, high in windows:
        if low < high:
            floor = magnitudes[low - 1] if low else -1.0
            size = np.abs(ordered)
            is_moved |= (size > floor) & (size <= magnitudes[high - 1])
    merged = flat.copy()
    for rank, place in enumerate(np.argsort(b.numpy().ravel(), kind="stable")):
        if is_moved[rank]:
            merged[place] = ordered[rank]
    return merged.reshape(a.shape)


@BY_DTYPE
@pytest.mark.parametrize("shape", [(1,), (2,), (37,), (9, 8), (5, 4, 3, 3)], ids=str)
@pytest.mark.parametrize(
    ("alpha", "beta"),
    [(0.0, 0.3), (0.3, 0.0), (0.2, 0.8), (0.5, 0.25), (0.6, 0.7), (1.0, 0.0), (1, 1)],
    ids=str,
)
def test_top_k_tensor_sum_is_the_formula(
    shape: tuple[int, ...], dtype: torch.dtype, alpha: float, beta: float
) -> None:
    a, b = pair(shape, dtype)
    merged = top_k_tensor_sum.call_with([a, b], {"alpha": alpha, "beta": beta})
    np.testing.assert_array_equal(merged.numpy(), reference(a, b, alpha, beta))


@pytest.mark.parametrize(
    ("alpha", "beta", "wanted"),
    [
        (1.0, 0.0, [-2.0, 4.0, 1.0, -3.0]),
        (0.5, 0.0, [-2.0, -3.0, 1.0, -2.0]),
        (0.5, 0.5, [1.0, 4.0, 4.0, -3.0]),
        (0.5, 0.75, [1.0, 4.0, 1.0, -2.0]),
    ],
    ids=str,
)
def test_four_values_when_done_by_hand(
    alpha: float, beta: float, wanted: list[float]
) -> None:
    # A sorted is -3 -2 1 4; B's ascending order of places is 3 0 2 1.
    a = torch.tensor([1.0, -3.0, 4.0, -2.0])
    b = torch.tensor([20.0, 40.0, 30.0, 10.0])
    merged = top_k_tensor_sum.call_with([a, b], {"alpha": alpha, "beta": beta})
    assert merged.tolist() == wanted


values = st.lists(st.integers(-3, 3), min_size=1, max_size=30)
shares = st.floats(0.0, 1.0)


@settings(deadline=None, max_examples=80)
@given(first=values, seed=st.integers(0, 99), alpha=shares, beta=shares)
def test_ties_are_as_in_the_formula(
    first: list[int], seed: int, alpha: float, beta: float
) -> None:
    a = torch.tensor(first, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    b = torch.randint(-2, 3, a.shape, generator=generator).double()
    merged = top_k_tensor_sum.call_with([a, b], {"alpha": alpha, "beta": beta})
    np.testing.assert_array_equal(merged.numpy(), reference(a, b, alpha, beta))


@settings(deadline=None, max_examples=40)
@given(first=values, alpha=shares, beta=shares)
def test_equal_models_come_back_exactly(
    first: list[int], alpha: float, beta: float
) -> None:
    a = torch.tensor(first, dtype=torch.float32)
    merged = top_k_tensor_sum.call_with([a, a], {"alpha": alpha, "beta": beta})
    assert torch.equal(merged, a)


def test_all_values_are_a_in_the_order_of_b_at_1() -> None:
    a, b = pair((12, 7))
    merged = top_k_tensor_sum.call_with([a, b], {"alpha": 1.0, "beta": 0.4})
    assert torch.equal(merged.flatten().sort().values, a.flatten().sort().values)
    assert torch.equal(merged.flatten().argsort(), b.flatten().argsort())


def test_opposite_models_give_a_in_reverse_order_at_1() -> None:
    a = pair((20,))[0]
    merged = top_k_tensor_sum.call_with([a, -a], {"alpha": 1.0})
    assert torch.equal(merged[a.argsort()], a.sort(descending=True).values)


@pytest.mark.parametrize("share", [0.25, 0.5], ids=str)
@pytest.mark.parametrize("beta", [0.0, 0.25, 0.5, 0.9], ids=str)
def test_number_of_values_that_move_is_exact(share: float, beta: float) -> None:
    a = torch.arange(1, 41, dtype=torch.float64)
    merged = top_k_tensor_sum.call_with([a, -a], {"alpha": share, "beta": beta})
    assert int((merged == a).sum()) == 40 - round(40 * share)
