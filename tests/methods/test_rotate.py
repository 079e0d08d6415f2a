"""Rotate against scipy's Procrustes solution and matrix logarithm."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib_merge.methods._ops import rotation as kernel
from lib_merge.methods._ops.rotation import nearest_rotation, rotation_power
from lib_merge.methods.rotate import rotate

TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-11}
BY_DTYPE = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


@pytest.fixture(params=[1 << 20, 30], ids=["one block", "many blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(kernel, "_BLOCK", request.param)
    return int(request.param)


def pair(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """A model and one that was trained from it."""
    generator = torch.Generator().manual_seed(41)
    a = torch.randn(shape, generator=generator)
    return [a.to(dtype), (a + 0.4 * torch.randn(shape, generator=generator)).to(dtype)]


def turn(side: int, angles: list[float], seed: int = 0) -> np.ndarray:
    """A rotation with these angles in random planes."""
    planes = np.eye(side)
    for i, angle in enumerate(angles):
        c, s = math.cos(angle), math.sin(angle)
        planes[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[c, -s], [s, c]]
    frame = np.linalg.qr(np.random.default_rng(seed).normal(size=(side, side)))[0]
    return frame @ planes @ frame.T


def reference(
    a: Tensor, b: Tensor, *, alignment: float, alpha: float, centralization: float
) -> np.ndarray:
    """For as many rows as columns or more, and a best map that is no reflection."""
    first, second = (t.double().numpy() for t in (a, b))
    mean_a, mean_b = (centralization * m.mean(axis=0) for m in (first, second))
    first, second = first - mean_a, second - mean_b
    rotation = scipy.linalg.orthogonal_procrustes(first, second)[0]
    assert np.linalg.det(rotation) > 0
    part = scipy.linalg.expm(alignment * scipy.linalg.logm(rotation)).real
    shape = (1 - alpha) * first + alpha * second @ rotation.T
    return shape @ part + mean_a + alignment * (mean_b - mean_a)


@BY_DTYPE
@pytest.mark.parametrize("shape", [(30, 6), (12, 5), (9, 8)], ids=str)
@pytest.mark.parametrize(
    ("alignment", "alpha", "centralization"),
    [(1, 0, 1), (0.5, 0, 1), (0.3, 0.6, 0.5), (-0.7, 0, 0), (1.6, -0.5, 1), (2, 1, 1)],
    ids=str,
)
def test_rotate_is_the_formula(
    shape: tuple[int, int],
    dtype: torch.dtype,
    alignment: float,
    alpha: float,
    centralization: float,
    blocks: int,
) -> None:
    a, b = pair(shape, dtype)
    how = {
        "alignment": float(alignment),
        "alpha": float(alpha),
        "centralization": float(centralization),
    }
    merged = rotate.call_with([a, b], how)
    tolerance = TOLERANCE[dtype]
    wanted = reference(a, b, **how)
    np.testing.assert_allclose(merged.double().numpy(), wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("alignment", "wanted"),
    [
        (0.0, [[1.0, 0.0], [0.0, 2.0]]),
        (1.0, [[0.0, 1.0], [-2.0, 0.0]]),
        (0.5, [[0.5**0.5, 0.5**0.5], [-(2**0.5), 2**0.5]]),
        (-1.0, [[0.0, -1.0], [2.0, 0.0]]),
        (2.0, [[-1.0, 0.0], [0.0, -2.0]]),
    ],
    ids=str,
)
def test_quarter_turn_when_done_by_hand(
    alignment: float, wanted: list[list[float]]
) -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    b = torch.tensor([[0.0, 3.0], [-1.0, 0.0]], dtype=torch.float64)
    merged = rotate.call_with([a, b], {"alignment": alignment, "centralization": 0.0})
    expected = torch.tensor(wanted, dtype=torch.float64)
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-14)


@BY_DTYPE
@pytest.mark.parametrize("shape", [(40, 10), (10, 40), (12, 12), (8, 5, 3, 3)], ids=str)
def test_ends_are_exact(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    a, b = pair(shape, dtype)
    assert torch.equal(rotate(a, b, alignment=0.0, alpha=0.0), a)
    assert torch.equal(rotate(a, b, alignment=1.0, alpha=1.0), b)


ANGLES = [0.1, 1.0, 2.5]


@pytest.mark.parametrize("shape", [(30, 8), (5, 40), (9, 17)], ids=str)
def test_turned_model_is_found_again(shape: tuple[int, int], blocks: int) -> None:
    a = pair(shape)[0]
    b = a @ torch.from_numpy(turn(shape[1], ANGLES))
    merged = rotate.call_with([a, b], {"centralization": 0.0})
    torch.testing.assert_close(merged, b, rtol=0, atol=1e-12)


def test_model_is_turned_by_half_the_angles_at_half_the_alignment() -> None:
    a = pair((30, 8))[0]
    b = a @ torch.from_numpy(turn(8, ANGLES))
    half = a @ torch.from_numpy(turn(8, [0.5 * x for x in ANGLES]))
    merged = rotate.call_with([a, b], {"alignment": 0.5, "centralization": 0.0})
    torch.testing.assert_close(merged, half, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 30), (6, 13), (6, 12), (6, 8)], ids=str)
@pytest.mark.parametrize("alignment", [0.4, 1.0])
def test_rotation_that_rows_leave_open_is_the_one_of_the_whole_space(
    shape: tuple[int, int], alignment: float
) -> None:
    a, b = pair(shape)
    merged = rotate.call_with([a, b], {"alignment": alignment})
    first, second = a - a.mean(0), b - b.mean(0)
    part = rotation_power(nearest_rotation(first.T @ second), alignment)
    wanted = first @ part + a.mean(0).lerp(b.mean(0), alignment)
    torch.testing.assert_close(merged, wanted, rtol=0, atol=1e-8)


def test_reflection_is_not_taken() -> None:
    a = pair((20, 3))[0]
    a[:, 2] *= 0.1
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    rotation = nearest_rotation(a.T @ (a @ mirror))
    assert torch.linalg.det(rotation).item() == pytest.approx(1.0)
    merged = rotate.call_with([a, a @ mirror], {"centralization": 0.0})
    distance = float((merged - a @ mirror).norm())
    assert distance <= float((a - a @ mirror).norm()) + 1e-12


@pytest.mark.parametrize(
    ("side", "angles"),
    [
        (2, [math.pi]),
        (5, [math.pi, math.pi]),
        (6, [math.pi, math.pi - 1e-9, 1.0]),
        (8, [3.1, 3.1, 3.1, 0.2]),
        (9, [0.0, 1e-9, 1e-4, 2.0]),
        (6, [1.5, 1.5, 1.5]),
    ],
    ids=str,
)
@pytest.mark.parametrize("power", [0.25, 0.5, 1.5])
def test_power_of_a_rotation_is_a_part_of_its_turn(
    side: int, angles: list[float], power: float
) -> None:
    rotation = torch.from_numpy(turn(side, angles))
    part = rotation_power(rotation, power)
    eye = torch.eye(side, dtype=torch.float64)
    torch.testing.assert_close(part @ part.T, eye, rtol=0, atol=1e-12)
    found = np.sort(np.abs(np.angle(np.linalg.eigvals(part.numpy()))))
    turned = [abs((power * x + math.pi) % (2 * math.pi) - math.pi) for x in angles]
    wanted = np.sort(np.repeat(turned, 2).tolist() + [0.0] * (side - 2 * len(angles)))
    np.testing.assert_allclose(found, wanted, atol=1e-7)
    if power in (0.25, 0.5):
        whole = torch.linalg.matrix_power(part, round(1 / power))
        torch.testing.assert_close(whole, rotation, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 6, 3, 3), (4, 6, 1, 1), (4, 6, 5)], ids=str)
def test_kernels_are_rows_of_their_own(shape: tuple[int, ...]) -> None:
    a, b = pair(shape)
    n_kernel = math.prod(shape[2:])
    flat = (24, n_kernel) if n_kernel > 1 else (4, 6)
    wanted = rotate.call_with([a.reshape(flat), b.reshape(flat)], {"alignment": 0.5})
    merged = rotate.call_with([a, b], {"alignment": 0.5})
    assert torch.equal(merged, wanted.reshape(shape))


@pytest.mark.parametrize("shape", [(), (7,), (0,), (0, 3), (3, 0)], ids=str)
def test_tensor_without_rows_is_a_weighted_sum(shape: tuple[int, ...]) -> None:
    a, b = pair(shape)
    assert torch.equal(rotate.call_with([a, b], {"alpha": 0.3}), a.lerp(b, 0.3))


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1)], ids=str)
@pytest.mark.parametrize("kind", ["random", "zero", "constant", "opposite"])
def test_degenerate_matrix_gives_what_is_said(
    shape: tuple[int, int], kind: str
) -> None:
    a, b = pair(shape)
    if kind == "zero":
        a = a * 0
    if kind == "constant":
        a, b = torch.full_like(a, 2.0), torch.full_like(b, 5.0)
    if kind == "opposite":
        b = -a
    merged = rotate.call_with([a, b], {"alignment": 0.25})
    assert torch.isfinite(merged).all()
    mean = a.mean(0).lerp(b.mean(0), 0.25)
    torch.testing.assert_close(merged.mean(0), mean, rtol=0, atol=1e-14)
    spread = (merged - mean).norm(), (a - a.mean(0)).norm()
    torch.testing.assert_close(*spread, rtol=0, atol=1e-13)


def test_values_that_are_not_finite_are_a_weighted_sum() -> None:
    a, b = pair((6, 4))
    b[1, 2] = float("nan")
    merged = rotate.call_with([a, b], {"alpha": 0.5})
    torch.testing.assert_close(merged, a.lerp(b, 0.5), rtol=0, atol=0, equal_nan=True)


sides = st.integers(1, 7)
parts = st.floats(-1.0, 2.0)


def random_pair(n_rows: int, n_columns: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (n_rows, n_columns)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)
    ]


@settings(deadline=None, max_examples=60)
@given(n_rows=sides, n_columns=sides, seed=st.integers(0, 2**31), alignment=parts)
def test_lengths_and_angles_stay_a_s(
    n_rows: int, n_columns: int, seed: int, alignment: float
) -> None:
    a, b = random_pair(n_rows, n_columns, seed)
    merged = rotate.call_with([a, b], {"alignment": alignment})
    first, turned = a - a.mean(0), merged - a.mean(0).lerp(b.mean(0), alignment)
    torch.testing.assert_close(turned @ turned.T, first @ first.T, rtol=0, atol=1e-10)


@settings(deadline=None, max_examples=60)
@given(n_rows=sides, n_columns=sides, seed=st.integers(0, 2**31))
def test_no_other_rotation_brings_a_nearer(
    n_rows: int, n_columns: int, seed: int
) -> None:
    a, b = random_pair(n_rows, n_columns, seed)
    merged = rotate.call_with([a, b], {"centralization": 0.0})
    best = float((merged - b).norm())
    generator = np.random.default_rng(seed)
    for size in (0.01, 0.3, 3.0):
        skew = generator.normal(size=(n_columns, n_columns)) * size
        other = torch.from_numpy(scipy.linalg.expm(skew - skew.T))
        assert best <= float((a @ other - b).norm()) + 1e-9
        assert best <= float((merged @ other - b).norm()) + 1e-9


@settings(deadline=None, max_examples=40)
@given(side=sides, seed=st.integers(0, 2**31), power=st.floats(0.0, 1.0))
def test_two_parts_of_a_turn_make_the_whole(side: int, seed: int, power: float) -> None:
    rotation = nearest_rotation(random_pair(side, side, seed)[0])
    first, rest = rotation_power(rotation, power), rotation_power(rotation, 1 - power)
    torch.testing.assert_close(first @ rest, rotation, rtol=0, atol=1e-10)
