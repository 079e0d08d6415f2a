"""Model Stock: the paper's, and the variant in circulation."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib_merge.core.method import MergeMethod
from lib_merge.methods._ops.stock import factor_of_cosine, stock_factor
from lib_merge.methods.model_stock import model_stock
from lib_merge.methods.model_stock_consecutive import model_stock_consecutive
from tests.methods.cuts import merge_in_cuts, models

BOTH = [model_stock, model_stock_consecutive]
OFF, ON = 0.0, 1.0
ORACLE = [
    [[3, 4, 1, -2], [2, 1, -4, 3], [-1, 2, 3, 4], [4, -3, 2, 1]],
    [[-1, 3, 4, 2], [4, 2, -3, 1], [3, -1, 2, 4], [2, 4, 1, -3]],
    [[-1, 2, 3, 4], [4, -3, 2, 1], [3, 4, 1, -2], [2, 1, -4, 3]],
]


def by_id(method: MergeMethod) -> str:
    return method.id


def tensor(values: list[float] | list[list[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def merged(method: MergeMethod, base: Tensor, *others: Tensor, clamp: float) -> Tensor:
    result: Tensor = method.call_with([base, *others], {"clamp": clamp})
    return result


def factor_by_numpy(cosine: float, n: int) -> float:
    denominator = 1 + (n - 1) * cosine
    return 0.0 if abs(denominator) < 1e-12 else n * cosine / denominator


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def test_consecutive_pairs_give_the_published_rows() -> None:
    base, *others = torch.zeros(4, 4), *(torch.tensor(m).float() for m in ORACLE)
    result = merged(model_stock_consecutive, base, *others, clamp=OFF)
    expected = [
        [0.2727, 2.4545, 2.1818, 1.0909],
        [2.5000, 0.0000, -1.2500, 1.2500],
        [0.8696, 0.8696, 1.0435, 1.0435],
        [-2.0000, -0.5000, 0.2500, -0.2500],
    ]
    np.testing.assert_allclose(result, expected, atol=5e-5)


def test_consecutive_factors_are_the_published_ones() -> None:
    deltas = [tensor(m) for m in ORACLE]
    result = merged(model_stock_consecutive, torch.zeros(4, 4), *deltas, clamp=OFF)
    mean = torch.stack(deltas).mean(dim=0)
    factors = (result * mean).sum(dim=1) / mean.square().sum(dim=1)
    np.testing.assert_allclose(factors, [0.818, 0.75, 0.522, -0.75], atol=5e-4)


@pytest.mark.parametrize(
    ("row", "factor"), [(0, 0.667), (1, 0.6), (2, 0.393), (3, -0.429)]
)
def test_factors_of_all_pairs_are_the_published_ones(row: int, factor: float) -> None:
    rows = torch.stack([tensor(m)[row] for m in ORACLE])
    found = stock_factor(rows @ rows.T, is_clamped=False)
    assert found == pytest.approx(factor, abs=5e-4)
    assert stock_factor(rows @ rows.T) == max(0.0, found)


def test_two_deltas_at_sixty_degrees_go_two_thirds_of_the_way() -> None:
    base = tensor([1.0, 1.0])
    a, b = tensor([3.0, 1.0]), base + tensor([0.5, 3**0.5 / 2])
    result = merged(model_stock, base, a, b, clamp=ON)
    torch.testing.assert_close(result, base + 2 / 3 * ((a + b) / 2 - base))


def test_minus_a_half_goes_the_other_way_where_not_clamped() -> None:
    # cos = -1/2 of two models: 3 W0 - 2 W12.
    base = tensor([0.2, 0.1])
    a, b = base + tensor([1.0, 0.0]), base + tensor([-0.5, 3**0.5 / 2])
    for method in BOTH:
        open_end = merged(method, base, a, b, clamp=OFF)
        torch.testing.assert_close(open_end, 3 * base - (a + b))
        assert torch.equal(merged(method, base, a, b, clamp=ON), base)


@pytest.mark.parametrize("n_models", [2, 3, 9])
@pytest.mark.parametrize("clamp", [OFF, ON])
def test_model_stock_is_the_reference(n_models: int, clamp: float) -> None:
    base, *others = (t.double() for t in models(n_models + 1, (7, 5, 3)))
    deltas = [(t - base).flatten().numpy() for t in others]
    pairs = [cosine(x, y) for i, x in enumerate(deltas) for y in deltas[i + 1 :]]
    factor = factor_by_numpy(np.mean(pairs), n_models)
    factor = np.clip(factor, 0, 1) if clamp else factor
    expected = base.numpy().flatten() + factor * np.mean(deltas, axis=0)
    result = merged(model_stock, base, *others, clamp=clamp)
    np.testing.assert_allclose(result.flatten(), expected, atol=1e-13)


@pytest.mark.parametrize("shape", [(), (6,), (5, 4), (4, 3, 2, 3)], ids=str)
@pytest.mark.parametrize("clamp", [OFF, ON])
def test_consecutive_model_stock_is_the_reference(
    shape: tuple[int, ...], clamp: float
) -> None:
    base, *others = (t.double() for t in models(5, shape))
    width = shape[-1] if shape else 1
    deltas = np.stack([(t - base).reshape(-1, width).numpy() for t in others])
    rows = []
    for row in deltas.transpose(1, 0, 2):
        cosines = [cosine(x, y) for x, y in pairwise(row)]
        factor = factor_by_numpy(np.mean(cosines), 4)
        rows.append((np.clip(factor, 0, 1) if clamp else factor) * row.mean(axis=0))
    expected = base.numpy() + np.array(rows).reshape(shape)
    result = merged(model_stock_consecutive, base, *others, clamp=clamp)
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", BOTH, ids=by_id)
@pytest.mark.parametrize("clamp", [OFF, ON])
def test_one_model_comes_back(method: MergeMethod, clamp: float) -> None:
    base, model = torch.zeros(3, 2), models(1, (3, 2))[0]
    assert torch.equal(merged(method, base, model, clamp=clamp), model)


@pytest.mark.parametrize("method", BOTH, ids=by_id)
@pytest.mark.parametrize("clamp", [OFF, ON])
def test_deltas_that_cancel_out_give_the_base(
    method: MergeMethod, clamp: float
) -> None:
    base, delta = models(2, (3, 4))
    delta = delta - base
    opposite = [base.double() + delta, base.double() - delta]
    result = merged(method, base.double(), *opposite, clamp=clamp)
    assert torch.equal(result, base.double())


def test_three_unit_deltas_that_sum_to_zero_give_the_base() -> None:
    angles = torch.arange(3).double() * (2 * torch.pi / 3)
    deltas = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert stock_factor(deltas @ deltas.T, is_clamped=False) == 0.0


@pytest.mark.parametrize("method", BOTH, ids=by_id)
def test_only_base_models_give_the_base(method: MergeMethod) -> None:
    base = models(1, (3, 4))[0]
    assert torch.equal(merged(method, base, base, base, clamp=OFF), base)


def test_a_zero_delta_counts_as_a_right_angle() -> None:
    deltas = torch.stack([torch.zeros(5), torch.ones(5), torch.ones(5)]).double()
    found = stock_factor(deltas @ deltas.T)
    assert found == pytest.approx(factor_by_numpy(1 / 3, 3))


def test_a_zero_row_gives_the_base_and_leaves_the_others() -> None:
    base, *others = (t.double() for t in models(4, (2, 4)))
    whole = merged(model_stock_consecutive, base, *others, clamp=OFF)
    for model in others:
        model[1] = base[1]
    result = merged(model_stock_consecutive, base, *others, clamp=OFF)
    assert torch.equal(result[1], base[1])
    assert torch.equal(result[0], whole[0])


def test_order_matters_for_consecutive_pairs_only() -> None:
    base, *others = (t.double() for t in models(4, (6, 4)))
    turned = [others[i] for i in (1, 0, 2)]
    first, second = (
        merged(model_stock, base, *pool, clamp=OFF) for pool in (others, turned)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=1e-12)
    first, second = (
        merged(model_stock_consecutive, base, *pool, clamp=OFF)
        for pool in (others, turned)
    )
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize("method", BOTH, ids=by_id)
@pytest.mark.parametrize("step", [1, 3, 8])
def test_any_cut_gives_the_same_bits(method: MergeMethod, step: int) -> None:
    tensors = models(5, (11, 37))
    whole = method.call_with(tensors, {})
    assert torch.equal(merge_in_cuts(method, tensors, step), whole)


@pytest.mark.parametrize("method", BOTH, ids=by_id)
def test_float32_is_close_to_float64(method: MergeMethod) -> None:
    tensors = models(4, (20, 30))
    exact = method.call_with([t.double() for t in tensors], {"clamp": ON})
    found = method.call_with(tensors, {"clamp": ON}).double()
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-6)


@settings(deadline=None)
@given(st.floats(-1, 1), st.integers(2, 100))
def test_factor_is_between_base_and_mean_where_clamped(cos: float, n: int) -> None:
    clamped = factor_of_cosine(cos, n, is_clamped=True)
    assert 0.0 <= clamped <= 1.0
    if cos > 0:
        expected = factor_by_numpy(cos, n)
        assert clamped == pytest.approx(min(1.0, expected), rel=1e-12)
        assert clamped == factor_of_cosine(cos, n, is_clamped=False)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 6), st.floats(0.01, 100), st.integers(0, 999))
def test_factor_goes_by_directions_alone(n: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    deltas = rng.normal(size=(n, 15))
    lengths = rng.uniform(0.1, 10, size=(n, 1)) * scale
    first, second = (
        stock_factor(torch.from_numpy(d @ d.T)) for d in (deltas, deltas * lengths)
    )
    assert first == pytest.approx(second, abs=1e-12)
