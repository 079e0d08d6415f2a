"""The geometric median, on inner products and as a method."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib_merge.methods._ops.weiszfeld import median_weights
from lib_merge.methods.geometric_median import geometric_median
from tests.methods.cuts import merge_in_cuts, models

ORACLE = [
    [[3, 4, 1, -2], [2, 1, -4, 3], [-1, 2, 3, 4], [4, -3, 2, 1]],
    [[-1, 3, 4, 2], [4, 2, -3, 1], [3, -1, 2, 4], [2, 4, 1, -3]],
    [[-1, 3, 2, 0], [3, 0, 2, 1], [-1, 3, 1, 0], [3, 0, -4, 3]],
]


def reference(points: np.ndarray, *, n_iterations: int = 100) -> np.ndarray:
    """Weiszfeld on the points themselves, always so many steps."""
    median = points.mean(axis=0)
    shares = np.full(len(points), 1 / len(points))
    for _ in range(n_iterations):
        distances = np.linalg.norm(points - median, axis=1)
        weights = 1 / np.maximum(distances, 1e-6)
        shares = weights / weights.sum()
        median = shares @ points
    return shares


def gram(points: np.ndarray) -> Tensor:
    return torch.from_numpy(points @ points.T)


def merged(points: np.ndarray) -> np.ndarray:
    tensors = [torch.from_numpy(point) for point in points]
    result: np.ndarray = geometric_median.call_with(tensors, {}).numpy()
    return result


def spread(points: np.ndarray) -> float:
    return float(np.linalg.norm(points - points[0], axis=1).max())


def test_median_of_three_is_the_published_one() -> None:
    tensors = [torch.tensor(model, dtype=torch.float64) for model in ORACLE]
    median = geometric_median.call_with(tensors, {})
    expected = [
        [0.4791, 3.3698, 2.2343, -0.1354],
        [2.9323, 0.9739, -1.7289, 1.7395],
        [0.2082, 1.4220, 2.0416, 2.6873],
        [3.0677, 0.0989, -0.2711, 0.4481],
    ]
    # Published from float32, which stops before the last digits.
    np.testing.assert_allclose(median, expected, rtol=0, atol=1.1e-3)
    first_row = [0.4799, 3.3700, 2.2339, -0.1361]
    np.testing.assert_allclose(median[0], first_row, atol=5e-5)


def test_median_in_the_plane_is_the_fermat_point() -> None:
    corners = np.array([[0.0, 1.0], [-(3**0.5) / 2, -0.5], [3**0.5 / 2, -0.5]])
    np.testing.assert_allclose(merged(corners + 7.0), [7.0, 7.0], atol=1e-12)
    # An angle of 120 degrees or more: that corner itself.
    flat = np.array([[0.0, 0.1], [-1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(merged(flat), flat[0], atol=1e-5)


@pytest.mark.parametrize("n_points", [2, 3, 8, 50])
@pytest.mark.parametrize("n_dimensions", [2, 40, 3000])
def test_shares_are_those_of_the_reference(n_points: int, n_dimensions: int) -> None:
    rng = np.random.default_rng(n_points)
    points = rng.normal(size=(n_points, n_dimensions))
    points *= rng.uniform(0.2, 3.0, size=(n_points, 1))
    shares = median_weights(gram(points))
    np.testing.assert_allclose(shares, reference(points), atol=1e-10)
    assert sum(shares) == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("n_iterations", [0, 1, 5])
def test_a_limit_of_steps_is_kept(n_iterations: int) -> None:
    points = np.random.default_rng(0).normal(size=(6, 4))
    shares = median_weights(gram(points), n_iterations=n_iterations)
    expected = reference(points, n_iterations=n_iterations)
    np.testing.assert_allclose(shares, expected, atol=1e-13)
    assert np.abs(expected - reference(points)).max() > 1e-6


def test_ftol_stops_at_the_first_small_change() -> None:
    points = np.random.default_rng(0).normal(size=(6, 4))
    first = median_weights(gram(points), n_iterations=1)
    assert median_weights(gram(points), ftol=0.5) == first
    assert median_weights(gram(points), ftol=1e-9) != first


def test_close_models_far_from_zero_keep_their_digits() -> None:
    rng = np.random.default_rng(1)
    offsets = 1e-3 * rng.normal(size=(7, 200))
    offsets[5:] *= 50
    points = offsets + 30.0
    shares = reference(offsets)
    expected = shares @ (points - points[0]) + points[0]
    np.testing.assert_allclose(merged(points), expected, rtol=0, atol=1e-12)


def test_close_points_among_far_ones_keep_their_distances() -> None:
    rng = np.random.default_rng(2)
    points = np.concatenate(
        [1e-4 * rng.normal(size=(3, 10)), 1e3 * rng.normal(size=(2, 10))]
    )
    products = gram(points - points[0])
    shares = np.array(median_weights(products))
    np.testing.assert_allclose(shares, reference(points), atol=1e-10)


@pytest.mark.parametrize("n_models", [1, 4])
@pytest.mark.parametrize("fill", [0.0, 0.3, 1e-30, 65504.0])
def test_equal_models_give_that_model(n_models: int, fill: float) -> None:
    points = np.full((n_models, 7), fill)
    np.testing.assert_allclose(merged(points), points[0], rtol=1e-15)
    assert median_weights(gram(points)) == [1.0 / n_models] * n_models


def test_two_models_give_their_mean() -> None:
    points = np.random.default_rng(3).normal(size=(2, 9))
    np.testing.assert_allclose(merged(points), points.mean(axis=0), atol=1e-14)


def test_a_majority_of_equal_models_wins() -> None:
    rng = np.random.default_rng(4)
    points = np.concatenate([np.full((3, 20), 0.5), rng.normal(size=(2, 20))])
    np.testing.assert_allclose(merged(points), points[0], atol=1e-6)


def test_a_base_in_the_pool_is_a_point() -> None:
    rng = np.random.default_rng(5)
    points = np.concatenate([np.zeros((1, 30)), rng.normal(size=(5, 30))])
    np.testing.assert_allclose(
        median_weights(gram(points)), reference(points), atol=1e-10
    )


def test_models_closer_than_the_least_distance_give_their_mean() -> None:
    points = 1.0 + 1e-8 * np.random.default_rng(6).normal(size=(3, 5))
    np.testing.assert_allclose(merged(points), points.mean(axis=0), rtol=1e-15)


def test_the_middle_of_three_numbers_is_found() -> None:
    assert merged(np.array([[0.0], [1.0], [5.0]]))[0] == pytest.approx(1.0, abs=1e-5)


def test_an_empty_tensor_stays_empty() -> None:
    assert geometric_median.call_with([torch.zeros(0)] * 3, {}).shape == (0,)


@pytest.mark.parametrize("step", [1, 7, 64])
def test_any_cut_gives_the_same_bits(step: int) -> None:
    tensors = models(5, (9, 13))
    whole = geometric_median.call_with(tensors, {})
    assert torch.equal(merge_in_cuts(geometric_median, tensors, step), whole)


def test_float32_is_close_to_float64() -> None:
    tensors = models(6, (50, 7))
    exact = geometric_median.call_with([t.double() for t in tensors], {})
    torch.testing.assert_close(
        geometric_median.call_with(tensors, {}).double(), exact, rtol=0, atol=1e-6
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4), st.integers(1, 30), st.floats(1e2, 1e6), st.integers(0, 999))
def test_outliers_in_the_minority_do_not_pull_the_median_out(
    n_outliers: int, n_dimensions: int, distance: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    honest = rng.normal(size=(n_outliers + 1, n_dimensions))
    outliers = distance * rng.normal(size=(n_outliers, n_dimensions))
    points = np.concatenate([honest, outliers])
    centre = honest.mean(axis=0)
    radius = np.linalg.norm(honest - centre, axis=1).max()
    # Chen, Su and Xu, 2017, lemma 1: 2 m / (m - f) radii for m honest and f others.
    bound = 2 * (n_outliers + 1) * radius + 1e-5 * distance
    weights = median_weights(gram(points), n_iterations=2000)
    median = np.array(weights) @ points
    assert np.linalg.norm(median - centre) <= bound


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 9), st.integers(1, 20), st.integers(0, 999))
def test_order_of_the_models_has_no_part(n: int, n_dimensions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, n_dimensions))
    order = rng.permutation(n)
    np.testing.assert_allclose(
        merged(points[order]), merged(points), atol=1e-12 * spread(points) + 1e-11
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 9), st.floats(0.01, 100), st.integers(0, 999))
def test_median_moves_and_grows_with_the_models(
    n: int, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    points, shift = rng.normal(size=(n, 12)), rng.normal(size=12)
    expected = scale * merged(points) + shift
    np.testing.assert_allclose(
        merged(scale * points + shift), expected, atol=1e-7 * scale
    )
