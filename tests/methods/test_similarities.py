"""Methods that go by how alike rows or columns are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_merge.core.method import MergeMethod
from lib_merge.core.runs import Place
from lib_merge.methods._ops.cosine import limits_of
from lib_merge.methods._ops.rows import row_distances
from lib_merge.methods.add_dissimilarity import (
    add_dissimilarity,
)
from lib_merge.methods.cosine_a import cosine_a
from lib_merge.methods.cosine_b import cosine_b
from lib_merge.methods.extract import extract
from lib_merge.methods.weighted_sum import weighted_sum
from tests.methods.cuts import CutRuns, merge_in_cuts, models

COSINES = [cosine_a, cosine_b]
ALL = [extract, add_dissimilarity, *COSINES]
SHAPES = [(), (1,), (40,), (9, 7), (5, 4, 3, 3), (1, 6, 5)]
numbers = st.floats(-1e3, 1e3, width=32)


def tensor(values: list[float] | list[list[float]]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def by_id(method: MergeMethod) -> str:
    return method.id


def row_cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.atleast_1d(x), np.atleast_1d(y)
    norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    return ((x * y).sum(axis=-1) / norms)[..., None]


def extract_by_numpy(base, b, c, alpha, beta, gamma, lam):  # type: ignore[no-untyped-def]
    b, c = b - base, c - base
    alike = ((1 + row_cosines(b, c)) / 2) ** gamma
    factor = (1 - beta) * alike + beta * (1 - alike)
    return base + lam * ((1 - alpha) * b + alpha * c) * factor


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.0, 0.3), (0.5, 1.0), (1.0, 30.0)])
def test_extract_is_close_to_the_float64_reference(
    shape: tuple[int, ...], alpha: float, beta: float, gamma: float
) -> None:
    inputs = models(3, shape)
    exact = extract_by_numpy(
        *(t.double().numpy() for t in inputs), alpha, beta, gamma, 1.5
    ).reshape(shape)
    given = {"alpha": alpha, "beta": beta, "gamma": gamma, "lam": 1.5}
    wide = extract.call_with([t.double() for t in inputs], given)
    np.testing.assert_allclose(wide.numpy(), exact, rtol=0, atol=1e-13)
    merged = extract.call_with(inputs, given)
    np.testing.assert_allclose(merged.double().numpy(), exact, rtol=0, atol=1e-5)


def test_extract_gives_hand_computed_values() -> None:
    base = torch.zeros(3, 2, dtype=torch.float64)
    b = tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 2.0]])
    c = tensor([[6.0, 8.0], [0.0, 5.0], [-1.0, -1.0]])
    common = {"alpha": 0.0, "beta": 0.0, "gamma": 1.0}
    wanted = [[3.0, 4.0], [0.5, 0.0], [0.0, 0.0]]
    merged = extract.call_with([base, b, c], common)
    torch.testing.assert_close(merged, tensor(wanted), rtol=1e-15, atol=1e-15)
    rest = extract.call_with([base, b, c], common | {"beta": 1.0, "lam": 2.0})
    wanted = [[0.0, 0.0], [1.0, 0.0], [4.0, 4.0]]
    torch.testing.assert_close(rest, tensor(wanted), rtol=1e-15, atol=1e-15)


def test_extracted_parts_add_up_to_the_weighted_difference() -> None:
    inputs = [t.double() for t in models(3, (6, 5))]
    base, b, c = inputs
    given = {"alpha": 0.3, "gamma": 2.0}
    common = extract.call_with(inputs, given | {"beta": 0.0}) - base
    rest = extract.call_with(inputs, given | {"beta": 1.0}) - base
    torch.testing.assert_close(common + rest, 0.7 * (b - base) + 0.3 * (c - base))


def test_extract_of_equal_models_has_everything_in_common() -> None:
    base, b = models(2, (6, 50))
    common = {"beta": 0.0, "gamma": 30.0}
    merged = extract.call_with([base, b, b.clone()], common)
    torch.testing.assert_close(merged, b, rtol=0, atol=1e-6)
    rest = extract.call_with([base, b, b.clone()], common | {"beta": 1.0})
    assert torch.equal(rest, base)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_extract_gives_the_base_where_nothing_is_added(beta: float) -> None:
    base, b, c = models(3, (6, 5))
    same = extract.call_with([base, base.clone(), base.clone()], {"beta": beta})
    assert torch.equal(same, base)
    none = extract.call_with([base, b, c], {"beta": beta, "lam": 0.0})
    assert torch.equal(none, base)


def test_extract_counts_a_row_of_zeros_as_a_right_angle() -> None:
    base, b = torch.zeros(1, 4), torch.full((1, 4), 2.0)
    given = {"alpha": 0.0, "beta": 0.0, "gamma": 1.0}
    assert extract.call_with([base, b, base.clone()], given).tolist() == [[1.0] * 4]


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12))
@settings(deadline=None, max_examples=40)
def test_row_distance_agrees_with_the_cosine(pairs: list[tuple[float, float]]) -> None:
    x, y = (tensor([list(side)]) for side in zip(*pairs, strict=True))
    found = row_distances(x, y).item()
    assert 0.0 <= found <= 1.0
    if not (x.norm() > 1e-100 and y.norm() > 1e-100):
        return
    cosine = float(row_cosines(x.numpy(), y.numpy()).item())
    assert found == pytest.approx((1 - cosine) / 2, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e15])
def test_row_distance_of_special_rows(dtype: torch.dtype, size: float) -> None:
    x = torch.tensor([[1.0, 2.0, -3.0]], dtype=dtype) * size
    assert row_distances(x, x.clone()).item() == (0.0 if size else 0.5)
    assert row_distances(x, 2 * x).item() == pytest.approx(0.0 if size else 0.5)
    assert row_distances(x, -x).item() == pytest.approx(1.0 if size else 0.5)
    assert row_distances(x, torch.zeros_like(x)).item() == 0.5


def test_row_distance_keeps_its_digits_for_nearly_equal_rows() -> None:
    x = torch.randn(4, 320, generator=torch.Generator().manual_seed(0))
    y = x + 1e-4 * torch.randn(4, 320, generator=torch.Generator().manual_seed(1))
    exact = row_distances(x.double(), y.double())
    assert bool((exact < 1e-8).all())
    torch.testing.assert_close(row_distances(x, y), exact, rtol=1e-2, atol=0)


def dissimilarity_by_numpy(a, b, c, alpha, lam, gamma):  # type: ignore[no-untyped-def]
    alike = ((1 + row_cosines(b, c)) / 2) ** gamma
    return a + lam * ((1 - alpha) * b + alpha * c) * (1 - alike)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("alpha", "gamma"), [(0.0, 0.3), (0.5, 3.75), (1.0, 30.0)])
def test_add_dissimilarity_is_close_to_the_float64_reference(
    shape: tuple[int, ...], alpha: float, gamma: float
) -> None:
    inputs = models(3, shape)
    exact = dissimilarity_by_numpy(
        *(t.double().numpy() for t in inputs), alpha, -0.5, gamma
    ).reshape(shape)
    given = {"alpha": alpha, "lam": -0.5, "gamma": gamma}
    wide = add_dissimilarity.call_with([t.double() for t in inputs], given)
    np.testing.assert_allclose(wide.numpy(), exact, rtol=0, atol=1e-13)
    merged = add_dissimilarity.call_with(inputs, given)
    np.testing.assert_allclose(merged.double().numpy(), exact, rtol=0, atol=1e-5)


def test_add_dissimilarity_gives_hand_computed_values() -> None:
    a = torch.ones(2, 2, dtype=torch.float64)
    b, c = tensor([[1.0, 0.0], [1.0, 1.0]]), tensor([[0.0, 2.0], [3.0, 3.0]])
    given = {"alpha": 0.5, "lam": 2.0, "gamma": 1.0}
    merged = add_dissimilarity.call_with([a, b, c], given)
    wanted = tensor([[1.5, 2.0], [1.0, 1.0]])
    torch.testing.assert_close(merged, wanted, rtol=0, atol=1e-15)


def test_add_dissimilarity_gives_a_where_b_is_c_or_nothing_is_added() -> None:
    a, b, c = models(3, (6, 5))
    merge = add_dissimilarity.call_with
    assert torch.equal(merge([a, b, b.clone()], {"gamma": 30.0, "lam": 4.0}), a)
    assert torch.equal(merge([a, b, c], {"gamma": 0.0}), a)
    assert torch.equal(merge([a, b, c], {"lam": 0.0}), a)


# The cosine methods, against the formula written out for 2-D tensors.


def cosine_by_numpy(a, b, alpha, stretch, is_a):  # type: ignore[no-untyped-def]
    dots, norms = (a * b).sum(axis=0), np.linalg.norm(a, axis=0)
    columns = dots / norms / np.linalg.norm(b, axis=0)
    whole = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
    alike = (columns + (columns.mean() if is_a else whole)) / 2
    if stretch:
        kept = columns if is_a else alike
        kept = kept[kept >= np.percentile(kept, 1, method="midpoint")]
        kept = kept[kept <= np.percentile(kept, 99, method="midpoint")]
        alike = (alike - kept.min()) / (kept.max() - kept.min())
    share = np.clip(np.clip(alike, 0, 1) - alpha, 0, 1)
    return share * a + (1 - share) * b


@pytest.mark.parametrize("shape", [(9, 7), (6, 250), (3, 1201)], ids=str)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("stretch", [0.0, 1.0], ids=["off", "on"])
@pytest.mark.parametrize("method", COSINES, ids=by_id)
def test_cosine_methods_are_close_to_the_float64_reference(
    method: MergeMethod, stretch: float, alpha: float, shape: tuple[int, ...]
) -> None:
    inputs = models(2, shape)
    a, b = (t.double().numpy() for t in inputs)
    exact = cosine_by_numpy(a, b, alpha, stretch, method is cosine_a)
    given = {"alpha": alpha, "stretch": stretch}
    wide = method.call_with([t.double() for t in inputs], given)
    np.testing.assert_allclose(wide.numpy(), exact, rtol=0, atol=1e-12)
    merged = method.call_with(inputs, given)
    np.testing.assert_allclose(merged.double().numpy(), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", COSINES, ids=by_id)
def test_cosine_methods_see_convolutions_as_rows_of_filters(
    method: MergeMethod,
) -> None:
    a, b = models(2, (5, 4, 3, 3))
    flat = method.call_with([a.reshape(5, 36), b.reshape(5, 36)], {})
    assert torch.equal(method.call_with([a, b], {}), flat.reshape(a.shape))
    first = method.call_with([a[None], b[None]], {})
    assert torch.equal(first[0], method.call_with([a, b], {}))


def test_cosine_methods_give_hand_computed_values() -> None:
    # Columns: the same direction, a right angle, opposite; the outer two twice, as one
    # column at each end does not count for the limits.
    a = tensor([[1.0, 1.0, 3.0, 1.0, 3.0], [1.0, 0.0, 4.0, 1.0, 4.0]])
    b = tensor([[2.0, 0.0, -3.0, 2.0, -3.0], [2.0, 1.0, -4.0, 2.0, -4.0]])
    off, on = ({"alpha": 0.0, "stretch": s} for s in (0.0, 1.0))
    # Cosines 1, 0, -1 with the mean 0: shares of A 1/2, 0, 0.
    merged = cosine_a.call_with([a, b], off)[:, :3]
    torch.testing.assert_close(merged, tensor([[1.5, 0.0, -3.0], [1.5, 1.0, -4.0]]))
    # The tensors' cosine, -42 / sqrt(55 * 67), makes that (1 + whole) / 2, 0, 0.
    first = 2 - (1 - 42 / (55 * 67) ** 0.5) / 2
    merged = cosine_b.call_with([a, b], off)[:, :3]
    torch.testing.assert_close(merged, tensor([[first, 0.0, -3.0], [first, 1.0, -4.0]]))
    # Stretched between -1 and 1: 1, 1/2, 0; with cosine A half of it the mean's 1/2.
    merged = cosine_b.call_with([a, b], on)[:, :3]
    torch.testing.assert_close(merged, tensor([[1.0, 0.5, -3.0], [1.0, 0.5, -4.0]]))
    merged = cosine_a.call_with([a, b], on)[:, :3]
    torch.testing.assert_close(merged, tensor([[1.25, 0.5, -1.5], [1.25, 0.5, -2.0]]))
    merged = cosine_b.call_with([a, b], on | {"alpha": 0.5})[:, :3]
    torch.testing.assert_close(merged, tensor([[1.5, 0.0, -3.0], [1.5, 1.0, -4.0]]))


@pytest.mark.parametrize("method", COSINES, ids=by_id)
@pytest.mark.parametrize("shape", [(), (1,), (40,), (40, 3)], ids=str)
def test_cosine_methods_with_few_columns_are_the_weighted_sum(
    method: MergeMethod, shape: tuple[int, ...]
) -> None:
    a, b = (t.double() for t in models(2, shape))
    merged = method.call_with([a, b], {"alpha": 0.3})
    wanted = weighted_sum(a, b, alpha=0.3)
    torch.testing.assert_close(merged, wanted, rtol=0, atol=1e-15)


@pytest.mark.parametrize("method", COSINES, ids=by_id)
@pytest.mark.parametrize("stretch", [0.0, 1.0], ids=["off", "on"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_cosine_methods_end_at_b_and_keep_equal_models(
    method: MergeMethod, stretch: float, alpha: float
) -> None:
    a, b = models(2, (6, 250))
    given = {"alpha": alpha, "stretch": stretch}
    assert torch.equal(method.call_with([a, a.clone()], given), a)
    assert torch.equal(method.call_with([a, b], given | {"alpha": 1.0}), b)


@pytest.mark.parametrize("stretch", [0.0, 1.0], ids=["off", "on"])
def test_cosine_methods_define_columns_of_zeros(stretch: float) -> None:
    # Both zero, equal, A zero, B zero, equal: cosines 1, 1, 0, 0, 1.
    a = tensor([[0.0, 1.0, 0.0, 3.0, 2.0], [0.0, 1.0, 0.0, 1.0, 1.0]])
    b = tensor([[0.0, 1.0, 3.0, 0.0, 2.0], [0.0, 1.0, 1.0, 0.0, 1.0]])
    merged = cosine_b.call_with([a, b], {"alpha": 0.25, "stretch": stretch})
    whole = 7 / 17
    share = 0.0 if stretch else max(0.0, whole / 2 - 0.25)
    torch.testing.assert_close(merged, share * a + (1 - share) * b)
    merged = cosine_a.call_with([a, b], {"alpha": 0.25, "stretch": stretch})
    share = 0.6 / 2 - 0.25
    torch.testing.assert_close(merged, share * a + (1 - share) * b)


@pytest.mark.parametrize("n", [1, 2, 3, 50, 100, 101, 102, 250, 1000])
def test_limits_leave_out_what_numpy_percentiles_leave_out(n: int) -> None:
    values = torch.randn(n, generator=torch.Generator().manual_seed(n)).double()
    kept = values.numpy()
    kept = kept[kept >= np.percentile(kept, 1, method="midpoint")]
    kept = kept[kept <= np.percentile(kept, 99, method="midpoint")]
    assert limits_of(values) == (kept.min(), kept.max())


@pytest.mark.parametrize("method", ALL, ids=by_id)
@pytest.mark.parametrize("shape", [(37, 29), (1400,), (7, 5, 3, 3), (1, 900)], ids=str)
@pytest.mark.parametrize("step", [1, 13, 1000])
def test_cuts_give_the_bits_of_the_whole(
    method: MergeMethod, shape: tuple[int, ...], step: int
) -> None:
    inputs = models(method.min_models, shape)
    whole = method.call_with(inputs, {}, key="key")
    assert torch.equal(merge_in_cuts(method, inputs, step), whole)


@pytest.mark.parametrize("method", COSINES, ids=by_id)
@pytest.mark.parametrize("step", [1, 13, 64, 1000])
@pytest.mark.parametrize("shape", [(37, 29), (1, 7, 5, 3, 3), (500,)], ids=str)
def test_what_is_measured_does_not_depend_on_the_runs(
    method: MergeMethod, step: int, shape: tuple[int, ...]
) -> None:
    inputs = models(2, shape)
    given = {spec.name: spec.default for spec in method.params}
    assert method.measure is not None
    found, whole = (
        torch.as_tensor(
            method.measure(CutRuns(method, inputs, Place("key", shape), size), **given)
        )
        for size in (step, 10**6)
    )
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-11)
