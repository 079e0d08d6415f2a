"""Slerp, NuSLERP, the Karcher mean, and what is at a right angle."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib_merge.core.method import MergeMethod
from lib_merge.methods._ops.karcher import karcher_weights
from lib_merge.methods.add_difference import add_difference
from lib_merge.methods.add_perpendicular import add_perpendicular
from lib_merge.methods.karcher_mean import karcher_mean
from lib_merge.methods.nuslerp import nuslerp
from lib_merge.methods.slerp import slerp
from lib_merge.methods.weighted_mean import weighted_mean
from tests.methods.cuts import merge_in_cuts, models

ROWS = {"rows": 1.0}
SHAPES = [(), (6,), (5, 4), (4, 3, 2, 3)]
ALPHAS = [0.0, 0.25, 0.5, 0.9, 1.0]
seeds = st.integers(0, 999)


def merged(method: MergeMethod, *tensors: Tensor, **params: Any) -> Tensor:
    result: Tensor = method.call_with(list(tensors), params)
    return result


def tensor(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def wide(n_models: int, shape: tuple[int, ...], *, seed: int = 0) -> list[Tensor]:
    return [t.double() for t in models(n_models, shape, seed=seed)]


def random_points(n_points: int, n_dimensions: int, seed: int) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.normal(size=n_dimensions)) for _ in range(n_points)]


def arc_by_numpy(x: np.ndarray, y: np.ndarray, alpha: float) -> np.ndarray:
    """Along the last axis, on the vectors as they are."""
    norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    cosines = np.clip(((x * y).sum(axis=-1) / norms)[..., None], -1, 1)
    angle = np.arccos(cosines)
    with np.errstate(invalid="ignore", divide="ignore"):
        arc = np.sin((1 - alpha) * angle) * x + np.sin(alpha * angle) * y
        arc /= np.sin(angle)
    is_line = (np.abs(cosines) > 1 - 1e-12) | (cosines < -1 + 1e-6)
    return np.where(is_line, (1 - alpha) * x + alpha * y, arc)


def karcher_by_numpy(points: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Small steps along the mean tangent, on the vectors themselves."""
    norms = np.linalg.norm(points, axis=1)
    units = points / norms[:, None]
    mean = shares @ units
    mean /= np.linalg.norm(mean)
    for _ in range(3000):
        along = np.clip(units @ mean, -1, 1)
        angles = np.arccos(along)
        stretch = angles / np.maximum(np.sin(angles), 1e-12)
        tangent = (shares * stretch) @ (units - along[:, None] * mean)
        mean = mean + 0.5 * tangent
        mean /= np.linalg.norm(mean)
    return shares @ norms * mean


def test_slerp_of_two_axes_goes_around_the_quarter() -> None:
    third = merged(slerp, tensor([2.0, 0.0]), tensor([0.0, 4.0]), alpha=1 / 3)
    length = 2.0 + 2.0 / 3
    expected = [length * math.cos(math.pi / 6), length * math.sin(math.pi / 6)]
    np.testing.assert_allclose(third, expected, rtol=1e-14)


def test_nuslerp_of_two_axes_keeps_each_length() -> None:
    base = tensor([1.0, 1.0])
    half = merged(nuslerp, base, base + tensor([2.0, 0.0]), base + tensor([0.0, 4.0]))
    np.testing.assert_allclose(half, [1 + 2**0.5, 1 + 4 / 2**0.5], rtol=1e-14)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_slerp_is_the_reference(shape: tuple[int, ...], alpha: float) -> None:
    a, b = (t.numpy().ravel() for t in wide(2, shape))
    norm_a, norm_b = np.linalg.norm(a), np.linalg.norm(b)
    length = (1 - alpha) * norm_a + alpha * norm_b
    expected = length * arc_by_numpy(a / norm_a, b / norm_b, alpha)
    if shape == ():
        expected = (1 - alpha) * a + alpha * b
    result = merged(slerp, *wide(2, shape), alpha=alpha)
    np.testing.assert_allclose(result.flatten(), expected, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("rows", [0.0, 1.0])
def test_nuslerp_is_the_reference(
    shape: tuple[int, ...], alpha: float, rows: float
) -> None:
    base, a, b = wide(3, shape, seed=1)
    view = (-1, shape[-1] if rows and shape else a.numel())
    deltas = [(t - base).reshape(view).numpy() for t in (a, b)]
    expected = arc_by_numpy(*deltas, alpha).reshape(shape) + base.numpy()
    result = merged(nuslerp, base, a, b, alpha=alpha, rows=rows)
    np.testing.assert_allclose(result, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_slerp_gives_each_model_exactly_at_its_end(dtype: torch.dtype) -> None:
    a, b = (t.to(dtype) for t in models(2, (30, 7)))
    assert torch.equal(merged(slerp, a, b, alpha=0.0), a)
    assert torch.equal(merged(slerp, a, b, alpha=1.0), b)


@pytest.mark.parametrize("rows", [0.0, 1.0])
def test_nuslerp_gives_each_delta_exactly_at_its_end(rows: float) -> None:
    base, a, b = models(3, (30, 7))
    ends = [merged(nuslerp, base, a, b, alpha=x, rows=rows) for x in (0.0, 1.0)]
    assert torch.equal(ends[0], base + (a - base))
    assert torch.equal(ends[1], base + (b - base))


@settings(deadline=None, max_examples=25)
@given(seeds, st.floats(0, 1), st.integers(2, 30))
def test_slerp_has_the_length_between(seed: int, alpha: float, n: int) -> None:
    a, b = random_points(2, n, seed)
    length = merged(slerp, a, b, alpha=alpha).norm()
    expected = (1 - alpha) * a.norm() + alpha * b.norm()
    torch.testing.assert_close(length, expected, rtol=1e-10, atol=0)


@settings(deadline=None, max_examples=25)
@given(seeds, st.floats(0, 1), st.integers(2, 30))
def test_slerp_is_the_same_from_either_end(seed: int, alpha: float, n: int) -> None:
    a, b = random_points(2, n, seed)
    forth, back = merged(slerp, a, b, alpha=alpha), merged(slerp, b, a, alpha=1 - alpha)
    torch.testing.assert_close(forth, back, rtol=0, atol=1e-10)


@settings(deadline=None, max_examples=25)
@given(seeds, st.floats(0, 1))
def test_slerp_turns_by_alpha_of_the_angle(seed: int, alpha: float) -> None:
    a, b = random_points(2, 9, seed)
    point = merged(slerp, a, b, alpha=alpha)

    def angle(x: Tensor, y: Tensor) -> float:
        return math.acos(max(-1.0, min(1.0, float(x @ y / x.norm() / y.norm()))))

    assert angle(a, point) == pytest.approx(alpha * angle(a, b), abs=1e-7)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("factor", [3.0, -0.5, 0.0], ids=["parallel", "opposite", "0"])
def test_no_arc_gives_the_straight_line(factor: float, alpha: float) -> None:
    a = wide(1, (5, 4))[0]
    b = factor * a
    line = (1 - alpha) * a + alpha * b
    torch.testing.assert_close(
        merged(slerp, a, b, alpha=alpha), line, rtol=1e-14, atol=1e-14
    )
    base = torch.full((5, 4), 0.25, dtype=torch.float64)
    for rows in (0.0, 1.0):
        result = merged(nuslerp, base, base + a, base + b, alpha=alpha, rows=rows)
        torch.testing.assert_close(result, base + line, rtol=1e-13, atol=1e-13)


def test_nearly_opposite_models_take_the_line_before_factors_explode() -> None:
    a = tensor([1.0, 0.0])
    b = tensor([-1.0, 1e-4])
    torch.testing.assert_close(merged(slerp, a, b), (a + b) / 2)
    wider = merged(slerp, a, tensor([-1.0, 1e-2]))
    assert wider.norm() == pytest.approx(1.0, abs=1e-3)


def test_nearly_parallel_models_are_on_the_arc_to_the_last_digits() -> None:
    a = wide(1, (40,))[0]
    for distance in (1e-3, 1e-6, 1e-9):
        b = a + distance * wide(1, (40,), seed=3)[0]
        torch.testing.assert_close(
            merged(slerp, a, b, alpha=0.3),
            a.lerp(b, 0.3),
            rtol=0,
            atol=distance**2 + 1e-15,
        )


def test_zero_rows_of_nuslerp_leave_the_others_alone() -> None:
    base, a, b = wide(3, (4, 6))
    whole = merged(nuslerp, base, a, b, **ROWS)
    a[1] = base[1]
    result = merged(nuslerp, base, a, b, **ROWS)
    assert torch.equal(result[[0, 2, 3]], whole[[0, 2, 3]])
    torch.testing.assert_close(result[1], (base + b)[1] / 2)


def test_nuslerp_by_rows_of_one_row_is_the_whole() -> None:
    base, a, b = wide(3, (50,))
    torch.testing.assert_close(
        merged(nuslerp, base, a, b, alpha=0.3, **ROWS),
        merged(nuslerp, base, a, b, alpha=0.3),
    )


@pytest.mark.parametrize("n_points", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("n_dimensions", [3, 500])
def test_karcher_mean_is_the_reference(n_points: int, n_dimensions: int) -> None:
    rng = np.random.default_rng(n_points)
    points = rng.normal(size=(n_points, n_dimensions)) + (
        2.0 if n_dimensions < 9 else 0
    )
    points *= rng.uniform(0.5, 2.0, size=(n_points, 1))
    weight = rng.uniform(0.2, 2.0, size=n_points)
    expected = karcher_by_numpy(points, weight / weight.sum())
    rows = [torch.from_numpy(p) for p in points]
    result = merged(karcher_mean, *rows, weight=tuple(weight))
    np.testing.assert_allclose(result, expected, atol=1e-9)


def test_karcher_mean_of_three_axes_is_their_diagonal() -> None:
    axes = torch.diag(tensor([1.0, 2.0, 6.0]))
    result = merged(karcher_mean, *axes)
    np.testing.assert_allclose(result, [3.0 / 3**0.5] * 3, rtol=1e-14)


@settings(deadline=None, max_examples=25)
@given(seeds, st.floats(0.05, 0.95))
def test_karcher_mean_of_two_is_their_slerp(seed: int, alpha: float) -> None:
    a, b = random_points(2, 12, seed)
    result = merged(karcher_mean, a, b, weight=(1 - alpha, alpha))
    expected = merged(slerp, a, b, alpha=alpha)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-9)


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(2, 8))
def test_karcher_mean_has_the_mean_length_in_any_order(seed: int, n: int) -> None:
    points = [0.5 + p for p in random_points(n, 40, seed)]
    result = merged(karcher_mean, *points)
    mean_length = torch.stack([p.norm() for p in points]).mean()
    torch.testing.assert_close(result.norm(), mean_length, rtol=1e-12, atol=0)
    turned = merged(karcher_mean, *points[::-1])
    torch.testing.assert_close(result, turned, rtol=0, atol=1e-12)


def test_karcher_mean_has_no_pull_left() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(102, 400))
    coefficients = np.array(karcher_weights(torch.from_numpy(points @ points.T)))
    mean = coefficients @ points
    mean /= np.linalg.norm(mean)
    units = points / np.linalg.norm(points, axis=1)[:, None]
    along = units @ mean
    angles = np.arccos(along)
    pull = (angles / np.sin(angles)) @ (units - along[:, None] * mean)
    assert np.linalg.norm(pull) / 102 < 1e-13


@pytest.mark.parametrize("n_models", [1, 3, 7])
def test_equal_models_give_that_model(n_models: int) -> None:
    model = wide(1, (33,))[0]
    result = merged(karcher_mean, *[model] * n_models)
    torch.testing.assert_close(result, model, rtol=2e-15, atol=0)


def test_opposite_models_give_their_weighted_mean() -> None:
    a = wide(1, (6,))[0]
    assert torch.equal(merged(karcher_mean, a, -a), torch.zeros_like(a))
    pair = merged(karcher_mean, a, -3 * a)
    torch.testing.assert_close(pair, -a)


def test_the_opposite_of_the_mean_pulls_nowhere() -> None:
    a = tensor([1.0, 0.0])
    result = merged(karcher_mean, a, a, -a)
    torch.testing.assert_close(result, a)


def test_zero_models_count_in_the_length_alone() -> None:
    a, zero = tensor([3.0, 4.0]), torch.zeros(2, dtype=torch.float64)
    torch.testing.assert_close(merged(karcher_mean, zero, a), a / 2)
    assert torch.equal(merged(karcher_mean, zero, zero), zero)


def test_weight_zero_leaves_a_model_out_and_all_zero_are_equal() -> None:
    a, b, c = wide(3, (8,))
    without = merged(karcher_mean, a, b, c, weight=(1.0, 0.0, 1.0))
    torch.testing.assert_close(without, merged(karcher_mean, a, c), rtol=0, atol=1e-14)
    zeros = merged(karcher_mean, a, b, weight=(0.0, 0.0))
    assert torch.equal(zeros, merged(karcher_mean, a, b))


def test_close_models_have_nearly_their_mean() -> None:
    pool = [1.0 + 1e-4 * t for t in wide(5, (60,))]
    weight = (1.0, 2.0, 3.0, 1.0, 1.0)
    torch.testing.assert_close(
        merged(karcher_mean, *pool, weight=weight),
        merged(weighted_mean, *pool, weight=weight),
        rtol=0,
        atol=1e-8,
    )


def test_only_what_is_at_a_right_angle_is_added() -> None:
    c = tensor([1.0, 1.0, 1.0])
    a, b = c + tensor([2.0, 0.0, 0.0]), c + tensor([3.0, 5.0, -1.0])
    result = merged(add_perpendicular, a, b, c, alpha=0.5)
    torch.testing.assert_close(result, a + tensor([0.0, 2.5, -0.5]))


@settings(deadline=None, max_examples=25)
@given(seeds, st.floats(-2, 2))
def test_what_is_added_is_orthogonal(seed: int, alpha: float) -> None:
    a, b, c = random_points(3, 20, seed)
    added = merged(add_perpendicular, a, b, c, alpha=alpha) - a
    assert abs(float(added @ (a - c))) < 1e-12 * float((a - c).norm() * b.norm() + 10)
    span = torch.stack([a - c, b - c, added])
    assert float(torch.linalg.matrix_rank(span, tol=1e-10)) <= 2


def test_a_equal_to_c_adds_the_whole_difference() -> None:
    a, b = wide(2, (6, 3))
    result = merged(add_perpendicular, a, b, a, alpha=0.7)
    assert torch.equal(result, merged(add_difference, a, b, a, alpha=0.7))


def test_nothing_is_added_where_b_learned_nothing_else() -> None:
    a, c = wide(2, (6, 3))
    assert torch.equal(merged(add_perpendicular, a, c, c), a)
    for factor in (1.0, 3.0, -2.0):
        b = c + factor * (a - c)
        result = merged(add_perpendicular, a, b, c)
        torch.testing.assert_close(result, a, rtol=1e-13, atol=1e-13)


CASES = [
    (slerp, 2, {}),
    (nuslerp, 3, {}),
    (nuslerp, 3, ROWS),
    (karcher_mean, 4, {"weight": (1.0, 2.0, 0.5, 1.0)}),
    (add_perpendicular, 3, {}),
]
EACH = pytest.mark.parametrize(
    ("method", "n_models", "params"),
    CASES,
    ids=["slerp", "nuslerp", "rows", "karcher", "perpendicular"],
)


@EACH
@pytest.mark.parametrize("step", [1, 3, 64])
def test_any_cut_gives_the_same_bits(
    method: MergeMethod, n_models: int, params: dict[str, Any], step: int
) -> None:
    tensors = models(n_models, (11, 37))
    whole = method.call_with(tensors, params)
    assert torch.equal(merge_in_cuts(method, tensors, step, **params), whole)


@EACH
def test_float32_is_close_to_float64(
    method: MergeMethod, n_models: int, params: dict[str, Any]
) -> None:
    tensors = models(n_models, (40, 9))
    exact = method.call_with([t.double() for t in tensors], params)
    found = method.call_with(tensors, params).double()
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-6)


@EACH
def test_empty_tensors_stay_empty(
    method: MergeMethod, n_models: int, params: dict[str, Any]
) -> None:
    result = method.call_with([torch.zeros(3, 0)] * n_models, params)
    assert result.shape == (3, 0)
