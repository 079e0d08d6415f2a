"""Crossover against numpy's full Fourier transform of both models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib_merge.methods._ops import frequency as kernel
from lib_merge.methods.crossover import crossover

SHAPES = [
    (2,),
    (7,),
    (16,),
    (6, 9),
    (9, 6),
    (5, 1),
    (1, 8),
    (4, 3, 3),
    (6, 5, 1, 1),
    (5, 4, 3, 3),
    (1, 1, 4, 2),
]
TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-13}
BY_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=str)
BY_DTYPE = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


@pytest.fixture(params=[1 << 20, 20], ids=["one block", "many blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(kernel, "_BLOCK", request.param)
    return int(request.param)


def pair(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(11)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(2)]


def reference(a: Tensor, b: Tensor, alpha: float, tilt: float) -> np.ndarray:
    axes = [
        np.abs(np.fft.fftfreq(n)) * n / (n // 2) if n > 1 else np.zeros(1)
        for n in a.shape
    ]
    grids = np.meshgrid(*axes, indexing="ij")
    n_axes = max(1, sum(n > 1 for n in a.shape))
    radius = np.sqrt(sum(g**2 for g in grids) / n_axes)
    if tilt == 0.0:
        share = (radius > 1 - alpha + 1e-9) * 1.0
    elif tilt == 2.0:
        share = (radius < alpha - 1e-9) * 1.0
    else:
        slope = np.cos(np.pi * tilt / 2) / np.sin(np.pi * tilt / 2)
        edge = 1 - alpha if tilt < 1 else alpha
        share = np.clip(slope * (radius - edge) + alpha, 0, 1)
    first, second = (np.fft.fftn(t.double().numpy()) for t in (a, b))
    merged = np.fft.ifftn((1 - share) * first + share * second)
    assert np.abs(merged.imag).max() < 1e-12
    return merged.real


@BY_DTYPE
@BY_SHAPE
@pytest.mark.parametrize(
    ("alpha", "tilt"),
    [(0.25, 0.0), (0.9, 0.0), (0.5, 0.3), (0.7, 1.0), (0.3, 1.6), (0.4, 2.0)],
    ids=str,
)
def test_crossover_is_the_formula(
    shape: tuple[int, ...], dtype: torch.dtype, alpha: float, tilt: float, blocks: int
) -> None:
    a, b = pair(shape, dtype)
    merged = crossover.call_with([a, b], {"alpha": alpha, "tilt": tilt})
    wanted = reference(a, b, alpha, tilt)
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(merged.double().numpy(), wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("alpha", "tilt", "wanted"),
    [
        (0.4, 0.0, [1.0, -1.0, 1.0, -1.0]),
        (0.6, 0.0, [2.0, -1.0, 0.0, -1.0]),
        (0.4, 2.0, [3.0, 3.0, 3.0, 3.0]),
        (0.6, 2.0, [4.0, 3.0, 2.0, 3.0]),
        (0.5, 1.0, [2.5, 1.0, 1.5, 1.0]),
    ],
    ids=str,
)
def test_waves_of_four_values_when_done_by_hand(
    alpha: float, tilt: float, wanted: list[float]
) -> None:
    # B has the mean 3, the slow wave (1, 0, -1, 0) and the fast one (1, -1, 1, -1),
    # at radii 0, 1/2 and 1; A is zero.
    b = torch.tensor([5.0, 2.0, 3.0, 2.0], dtype=torch.float64)
    merged = crossover.call_with(
        [torch.zeros_like(b), b], {"alpha": alpha, "tilt": tilt}
    )
    expected = torch.tensor(wanted, dtype=torch.float64)
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-15)


@BY_DTYPE
@BY_SHAPE
@pytest.mark.parametrize("tilt", [0.0, 0.3, 1.0, 1.6, 2.0])
def test_ends_are_exact(
    shape: tuple[int, ...], dtype: torch.dtype, tilt: float
) -> None:
    delta = pair(shape, dtype)[0]
    assert torch.equal(crossover(delta, alpha=0.0, tilt=tilt), torch.zeros(shape))
    assert torch.equal(crossover(delta, alpha=1.0, tilt=tilt), delta)


def test_mean_and_single_values_stay_with_a_when_the_cut_is_upright() -> None:
    a, b = pair((12, 10))
    merged = crossover.call_with([a, b], {"alpha": 0.99})
    assert merged.mean().item() == pytest.approx(a.mean().item(), abs=1e-14)
    single = crossover.call_with([torch.tensor(2.0), torch.tensor(5.0)], {})
    assert single.item() == 2.0


def test_length_1_axes_do_not_move_the_cut() -> None:
    delta = pair((9, 8))[0]
    convolution = crossover(delta.reshape(9, 8, 1, 1), alpha=0.4)
    assert torch.equal(convolution.reshape(9, 8), crossover(delta, alpha=0.4))


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (1, 1)], ids=str)
def test_nothing_to_transform_is_no_error(shape: tuple[int, ...]) -> None:
    delta = torch.ones(shape)
    assert torch.equal(crossover(delta, alpha=0.5, tilt=2.0), delta)
    assert torch.equal(crossover(delta, alpha=0.5), torch.zeros(shape))


shapes = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)
shares = st.floats(0.0, 1.0)
tilts = st.sampled_from([0.0, 2.0]) | st.floats(0.01, 1.99)


@settings(deadline=None, max_examples=60)
@given(shape=shapes, alpha=shares, tilt=tilts)
def test_models_in_the_other_order_give_the_same_when_the_cut_is_turned(
    shape: tuple[int, ...], alpha: float, tilt: float
) -> None:
    # Not on a radius, where an upright cut gives the frequency to the first model.
    alpha = 0.013 + 0.97 * alpha
    a, b = pair(shape)
    one = crossover.call_with([a, b], {"alpha": alpha, "tilt": tilt})
    other = crossover.call_with([b, a], {"alpha": 1 - alpha, "tilt": 2 - tilt})
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(shape=shapes, alpha=shares, tilt=tilts, size=st.floats(-4.0, 4.0))
def test_filter_is_linear_and_never_adds_power(
    shape: tuple[int, ...], alpha: float, tilt: float, size: float
) -> None:
    first, second = pair(shape)

    def filtered(delta: Tensor) -> Tensor:
        return crossover(delta, alpha=alpha, tilt=tilt)

    together = filtered(first + size * second)
    apart = filtered(first) + size * filtered(second)
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-12)
    assert float(filtered(first).norm()) <= float(first.norm()) * (1 + 1e-12)


@settings(deadline=None, max_examples=40)
@given(shape=shapes, alpha=shares, tilt=st.sampled_from([0.0, 2.0]))
def test_upright_cut_done_twice_is_the_cut_done_once(
    shape: tuple[int, ...], alpha: float, tilt: float
) -> None:
    once = crossover(pair(shape)[0], alpha=alpha, tilt=tilt)
    twice = crossover(once, alpha=alpha, tilt=tilt)
    torch.testing.assert_close(twice, once, rtol=0, atol=1e-13)
