"""Iso-C, Iso-Z and rank truncation against numpy's singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib_merge.methods._ops import rank as kernel
from lib_merge.methods.iso_c import iso_c
from lib_merge.methods.iso_z import iso_z
from lib_merge.methods.truncate_rank import truncate_rank

SHAPES = [(1, 1), (1, 9), (9, 1), (12, 12), (40, 12), (12, 40), (8, 5, 3, 3)]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
BY_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=str)


@pytest.fixture(params=[1 << 20, 24], ids=["one block", "many blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(kernel, "_BLOCK", request.param)
    return int(request.param)


def delta_of(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 1) -> Tensor:
    draw = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return draw.to(dtype)


def low_rank_delta(n_rows: int, n_columns: int, rank: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.normal(size=(n_rows, rank)) @ rng.normal(size=(rank, n_columns))


def reference_iso(delta: Tensor, z: float, floor: float = 1e-6) -> np.ndarray:
    matrix = delta.double().numpy().reshape(delta.shape[0], -1)
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    moved = (s.mean() + z * (s - s.mean())) * (s > floor * s[0])
    return ((u * moved) @ vt).reshape(delta.shape)


def reference_truncated(delta: Tensor, rank: int) -> np.ndarray:
    matrix = delta.double().numpy().reshape(delta.shape[0], -1)
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return ((u[:, :rank] * s[:rank]) @ vt[:rank]).reshape(delta.shape)


def assert_near(result: Tensor, wanted: np.ndarray) -> None:
    tolerance = TOLERANCE[result.dtype] * max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(result.double().numpy(), wanted, rtol=0, atol=tolerance)


@DTYPES
@BY_SHAPE
@pytest.mark.parametrize("z", [0.0, 0.3, 0.8, 2.0])
def test_iso_z_is_the_formula(
    shape: tuple[int, ...], dtype: torch.dtype, z: float, blocks: int
) -> None:
    delta = delta_of(shape, dtype)
    assert_near(iso_z(delta, z=z), reference_iso(delta, z))


@DTYPES
@BY_SHAPE
@pytest.mark.parametrize("rank", [0, 1, 2, 5, 7, 11, 12, 4096])
def test_truncated_rank_is_the_nearest(
    shape: tuple[int, ...], dtype: torch.dtype, rank: int, blocks: int
) -> None:
    delta = delta_of(shape, dtype)
    assert_near(truncate_rank(delta, rank=rank), reference_truncated(delta, rank))


@pytest.mark.parametrize(
    ("z", "moved"),
    [
        (0.0, [[2.0, 0.0], [0.0, -2.0]]),
        (0.5, [[2.5, 0.0], [0.0, -1.5]]),
        (2.0, [[4.0, 0.0], [0.0, 0.0]]),
    ],
    ids=str,
)
def test_diagonal_when_moved_by_hand(z: float, moved: list[list[float]]) -> None:
    base = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    model = base + torch.tensor([[3.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    merged = iso_z.call_with([base, model], {"z": z})
    wanted = base + torch.tensor(moved, dtype=torch.float64)
    torch.testing.assert_close(merged, wanted, rtol=0, atol=1e-14)


def test_diagonal_when_truncated_by_hand() -> None:
    base = torch.zeros(3, 2, dtype=torch.float64)
    model = torch.tensor([[0.0, 2.0], [-5.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    merged = truncate_rank.call_with([base, model], {"rank": 1, "lam": 0.5})
    wanted = torch.tensor([[0.0, 0.0], [-2.5, 0.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(merged, wanted, rtol=0, atol=1e-15)


@DTYPES
@BY_SHAPE
def test_iso_c_is_iso_z_at_0(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    delta = delta_of(shape, dtype)
    assert torch.equal(iso_c(delta, lam=0.7), iso_z(delta, z=0.0, lam=0.7))


@DTYPES
@pytest.mark.parametrize("shape", [(), (7,), (0,), (0, 4), (4, 0), *SHAPES], ids=str)
def test_delta_is_exact_when_nothing_changes(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    delta = delta_of(shape, dtype)
    assert torch.equal(iso_z(delta, z=1.0), delta)
    assert torch.equal(truncate_rank(delta, rank=12), delta)


@pytest.mark.parametrize("method", [iso_c, iso_z, truncate_rank], ids=lambda m: m.id)
@pytest.mark.parametrize("shape", [(), (7,), (0,), (0, 4), (4, 0)], ids=str)
def test_small_tensor_keeps_its_delta(method, shape: tuple[int, ...]) -> None:
    delta = delta_of(shape, torch.float32)
    assert torch.equal(method(delta, lam=0.5), delta * 0.5)


@pytest.mark.parametrize("method", [iso_c, iso_z], ids=lambda m: m.id)
def test_convolution_keeps_its_delta_when_conv_is_off(method) -> None:
    delta = delta_of((8, 5, 3, 3), torch.float64)
    matrix = delta_of((8, 5), torch.float64)
    assert torch.equal(method(delta, lam=0.5, conv=0.0), delta * 0.5)
    assert torch.equal(method(matrix, conv=0.0), method(matrix, conv=1.0))


@DTYPES
@pytest.mark.parametrize("shape", [(60, 20), (20, 60), (30, 30)], ids=str)
@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("z", [0.0, 0.8])
def test_low_rank_delta_stays_of_low_rank(
    shape: tuple[int, int], dtype: torch.dtype, rank: int, z: float, blocks: int
) -> None:
    delta = torch.from_numpy(low_rank_delta(*shape, rank)).to(dtype)
    result = iso_z(delta, z=z)
    assert_near(result, reference_iso(delta, z))
    assert np.linalg.matrix_rank(result.double().numpy(), rtol=1e-5) == rank


@pytest.mark.parametrize("decay", [1e-4, 1e-8])
def test_float64_keeps_directions_that_are_very_weak(decay: float) -> None:
    rng = np.random.default_rng(3)
    u = np.linalg.qr(rng.normal(size=(30, 6)))[0]
    v = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    delta = torch.from_numpy((u * decay ** np.linspace(0, 1, 6)) @ v)
    # U V^T is known here; what rounding made of it goes with 1 / decay, not its square.
    s = decay ** np.linspace(0, 1, 6)
    error = iso_c(delta).numpy() - s.mean() * (u @ v)
    assert np.abs(error).max() < 20 * np.finfo(float).eps / decay


def test_float32_delta_of_many_sizes_is_as_exact_as_its_entries() -> None:
    rng = np.random.default_rng(4)
    u = np.linalg.qr(rng.normal(size=(50, 16)))[0]
    v = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    matrix = ((u * 10.0 ** -np.linspace(0, 3, 16)) @ v).astype(np.float32)
    delta = torch.from_numpy(matrix)
    assert_near(iso_c(delta), reference_iso(delta, 0.0))


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
@DTYPES
def test_delta_that_is_not_finite_is_kept(value: float, dtype: torch.dtype) -> None:
    delta = delta_of((6, 4), dtype)
    delta[2, 1] = value
    torch.testing.assert_close(iso_z(delta), delta, rtol=0, atol=0, equal_nan=True)
    kept = truncate_rank(delta, rank=2)
    torch.testing.assert_close(kept, delta, rtol=0, atol=0, equal_nan=True)


@DTYPES
@pytest.mark.parametrize("size", [1e-30, 1e30], ids=str)
def test_result_scales_with_the_delta(size: float, dtype: torch.dtype) -> None:
    delta = delta_of((9, 6), dtype)
    scaled = iso_z(delta * size, z=0.4) / size
    tolerance = 10 * TOLERANCE[dtype]
    torch.testing.assert_close(
        scaled, iso_z(delta, z=0.4), rtol=tolerance, atol=tolerance
    )


matrices = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31)).map(
    lambda v: delta_of(v[:2], torch.float64, v[2])
)


@settings(deadline=None, max_examples=40)
@given(delta=matrices, z=st.floats(0.0, 1.0))
def test_iso_keeps_the_sum_of_singular_values(delta: Tensor, z: float) -> None:
    before = np.linalg.svd(delta.numpy(), compute_uv=False)
    after = np.linalg.svd(iso_z(delta, z=z).numpy(), compute_uv=False)
    np.testing.assert_allclose(after.sum(), before.sum(), rtol=1e-9)


@settings(deadline=None, max_examples=40)
@given(delta=matrices, seed=st.integers(0, 2**31), z=st.floats(0.0, 2.0))
def test_iso_turns_with_the_delta(delta: Tensor, seed: int, z: float) -> None:
    n = delta.shape[0]
    turn = torch.linalg.qr(delta_of((n, n), torch.float64, seed))[0]
    turned = iso_z(turn @ delta, z=z)
    torch.testing.assert_close(turned, turn @ iso_z(delta, z=z), rtol=0, atol=1e-8)


@settings(deadline=None, max_examples=40)
@given(delta=matrices, z=st.floats(0.0, 2.0))
def test_opposite_models_give_opposite_deltas(delta: Tensor, z: float) -> None:
    assert torch.equal(iso_z(-delta, z=z), -iso_z(delta, z=z))
    assert torch.equal(truncate_rank(-delta, rank=2), -truncate_rank(delta, rank=2))


@settings(deadline=None, max_examples=40)
@given(delta=matrices, rank=st.integers(0, 10))
def test_what_truncation_leaves_out_is_the_tail(delta: Tensor, rank: int) -> None:
    s = np.linalg.svd(delta.numpy(), compute_uv=False)
    kept = truncate_rank(delta, rank=rank)
    left_out = float((delta - kept).norm())
    np.testing.assert_allclose(left_out, np.linalg.norm(s[rank:]), atol=1e-12)
    again = truncate_rank(kept, rank=rank)
    torch.testing.assert_close(again, kept, rtol=0, atol=1e-12)
