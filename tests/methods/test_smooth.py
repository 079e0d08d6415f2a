"""Smooth add against scipy's filters over whole tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from lib_merge.methods.smooth_add import smooth_add
from tests.methods.cases import Whole

SHAPES = [(3,), (40,), (1, 6), (2, 2), (23, 17), (14, 6, 1, 1), (13, 4, 3, 3)]
BY_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=str)
BY_DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def three(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(21)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(3)]


def reference(a: Tensor, b: Tensor, c: Tensor, alpha: float) -> np.ndarray:
    difference = (b.double() - c.double()).numpy()
    median = ndimage.median_filter(difference, size=3)
    return a.double().numpy() + alpha * ndimage.gaussian_filter(median, sigma=1)


@BY_DTYPE
@BY_SHAPE
@pytest.mark.parametrize("alpha", [-2.0, 0.0, 0.3, 1.0])
def test_smooth_add_is_the_formula(
    shape: tuple[int, ...], dtype: torch.dtype, alpha: float
) -> None:
    models = three(shape, dtype)
    merged = smooth_add.call_with(models, {"alpha": alpha})
    tolerance = 1e-6 if dtype is torch.float32 else 1e-14
    wanted = reference(*models, alpha)
    np.testing.assert_allclose(merged.double().numpy(), wanted, rtol=0, atol=tolerance)


@BY_DTYPE
@BY_SHAPE
@pytest.mark.parametrize("n_entries", [1, 2, 5, 6, 100])
def test_slabs_with_neighbours_give_the_bits_of_scipy_on_the_whole(
    shape: tuple[int, ...], dtype: torch.dtype, n_entries: int
) -> None:
    a, b, c = three(shape, dtype)
    short = (b - c).squeeze().numpy()
    median = ndimage.median_filter(short, size=3)
    bell = torch.from_numpy(ndimage.gaussian_filter(median, sigma=1)).reshape(shape)
    merged = Whole(smooth_add, [a, b, c], {"alpha": 0.5}).merged(n_entries)
    assert torch.equal(merged, a.add(bell, alpha=0.5))


def test_spike_is_gone_and_step_is_rounded_when_done_by_hand() -> None:
    zero = torch.zeros(5, dtype=torch.float64)
    spike = torch.tensor([0.0, 0.0, 9.0, 0.0, 0.0], dtype=torch.float64)
    assert torch.equal(smooth_add.call_with([zero, spike, zero], {}), zero)
    step = torch.zeros(20, dtype=torch.float64)
    step[10:] = 1.0
    smooth = smooth_add.call_with([torch.zeros_like(step), step, step * 0], {})
    bell = np.exp(-0.5 * np.arange(-4, 5) ** 2)
    wanted = np.cumsum(bell / bell.sum())
    np.testing.assert_allclose(smooth[6:15].numpy(), wanted, atol=1e-15)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (1,), (1, 1)], ids=str)
def test_tensor_without_neighbours_is_as_add_difference(shape: tuple[int, ...]) -> None:
    a, b, c = three(shape)
    merged = smooth_add.call_with([a, b, c], {"alpha": 0.5})
    assert torch.equal(merged, a.add(b - c, alpha=0.5))


shapes = st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple)


@settings(deadline=None, max_examples=40)
@given(shape=shapes, size=st.floats(-3.0, 3.0), alpha=st.floats(-2.0, 2.0))
def test_constant_difference_is_added_as_it_is(
    shape: tuple[int, ...], size: float, alpha: float
) -> None:
    a = three(shape)[0]
    merged = smooth_add.call_with([a, a * 0 + size, a * 0], {"alpha": alpha})
    torch.testing.assert_close(merged, a + alpha * size, rtol=0, atol=1e-13)


@settings(deadline=None, max_examples=40)
@given(shape=shapes, alpha=st.floats(-2.0, 2.0))
def test_equal_b_and_c_give_a(shape: tuple[int, ...], alpha: float) -> None:
    a, b, _ = three(shape)
    assert torch.equal(smooth_add.call_with([a, b, b], {"alpha": alpha}), a)


@settings(deadline=None, max_examples=40)
@given(shape=shapes)
def test_smoothed_difference_stays_within_the_difference(
    shape: tuple[int, ...],
) -> None:
    _, b, c = three(shape)
    smooth = smooth_add.call_with([torch.zeros_like(b), b, c], {})
    low, high = torch.aminmax(b - c)
    assert float(smooth.min()) >= float(low) - 1e-13
    assert float(smooth.max()) <= float(high) + 1e-13
