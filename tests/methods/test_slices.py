"""Tensor sum and the columns that it and the cosine methods count in."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_merge.methods._ops.columns import (
    add_to_columns,
    copy_columns,
    spread_columns,
    width_of,
)
from lib_merge.methods.tensor_sum import tensor_sum
from tests.methods.cuts import merge_in_cuts, models

shares = st.floats(0.0, 1.0)
sides = st.lists(st.integers(1, 9), min_size=0, max_size=4)
starts = st.integers(0, 40)
widths = st.integers(1, 17)


def merged(shape: tuple[int, ...], **params: float) -> torch.Tensor:
    """1 where the result is B's, else 0."""
    inputs = [torch.zeros(shape), torch.ones(shape)]
    return tensor_sum.call_with(inputs, params)


@pytest.mark.parametrize(
    ("alpha", "beta", "wanted"),
    [
        (0.0, 0.4, [0, 0, 0, 0, 0]),
        (0.4, 0.0, [1, 1, 0, 0, 0]),
        (0.4, 0.4, [0, 0, 1, 1, 0]),
        (0.4, 0.6, [0, 0, 0, 1, 1]),
        (0.4, 0.8, [1, 0, 0, 0, 1]),
        (0.4, 1.0, [1, 1, 0, 0, 0]),
        (0.5, 0.0, [1, 1, 0, 0, 0]),
        (1.0, 0.3, [1, 1, 1, 1, 1]),
    ],
)
def test_tensor_sum_takes_these_rows(
    alpha: float, beta: float, wanted: list[int]
) -> None:
    assert merged((5,), alpha=alpha, beta=beta).tolist() == wanted
    rows = merged((5, 3), alpha=alpha, beta=beta)
    assert rows.tolist() == [[w] * 3 for w in wanted]
    columns = merged((3, 5), alpha=alpha, beta=beta, axis=1.0)
    assert columns.tolist() == [wanted] * 3
    inner = merged((2, 5, 2, 3), alpha=alpha, beta=beta, axis=1.0)
    assert inner[:, :, 0, 0].tolist() == [wanted] * 2
    assert torch.equal(inner, inner[:, :, :1, :1].expand_as(inner))


def by_supermerger(a, b, alpha, beta):  # type: ignore[no-untyped-def]
    n = a.shape[0]
    if alpha + beta <= 1:
        out = a.copy()
        out[int(n * beta) : int(n * (alpha + beta))] = b[
            int(n * beta) : int(n * (alpha + beta))
        ]
    else:
        out = b.copy()
        out[int(n * (alpha + beta - 1)) : int(n * beta)] = a[
            int(n * (alpha + beta - 1)) : int(n * beta)
        ]
    return out


@given(st.integers(1, 400), st.integers(0, 64), st.integers(0, 64))
@settings(deadline=None, max_examples=60)
def test_tensor_sum_takes_the_rows_that_supermerger_takes(
    n: int, alpha: int, beta: int
) -> None:
    # Shares in binary fractions, where no product is a rounding off a whole number.
    a, b = np.zeros(n), np.ones(n)
    wanted = by_supermerger(a, b, alpha / 64, beta / 64)
    found = merged((n,), alpha=alpha / 64, beta=beta / 64)
    np.testing.assert_array_equal(found.numpy(), wanted)


def test_tensor_sum_is_not_a_row_short_where_a_product_rounds_down() -> None:
    assert 0.3 + 0.6 < 0.9
    found = merged((320,), alpha=0.6, beta=0.3)
    assert found.nonzero().flatten().tolist() == list(range(96, 288))


@given(sides, shares, shares, st.sampled_from([0.0, 1.0]))
@settings(deadline=None, max_examples=60)
def test_tensor_sum_takes_about_alpha_of_the_slices(
    shape: list[int], alpha: float, beta: float, axis: float
) -> None:
    found = merged(tuple(shape), alpha=alpha, beta=beta, axis=axis)
    cut = 1 if axis and len(shape) > 1 else 0
    n_slices = shape[cut] if shape else 1
    taken = float(found.mean()) * n_slices
    assert math.isclose(taken, round(taken), abs_tol=1e-4)
    assert abs(taken - alpha * n_slices) <= 1.0 + 1e-4


@given(sides, shares, st.sampled_from([0.0, 1.0]))
@settings(deadline=None, max_examples=60)
def test_tensor_sum_is_exact_at_both_ends(
    shape: list[int], beta: float, axis: float
) -> None:
    assert not merged(tuple(shape), alpha=0.0, beta=beta, axis=axis).any()
    assert merged(tuple(shape), alpha=1.0, beta=beta, axis=axis).all()


@given(shares, shares)
@settings(deadline=None, max_examples=60)
def test_slice_and_its_complement_make_the_whole(alpha: float, beta: float) -> None:
    first = merged((320,), alpha=alpha, beta=beta)
    end = alpha + beta if alpha + beta <= 1 else alpha + beta - 1
    rest = merged((320,), alpha=1 - alpha, beta=end)
    if 0.0 < alpha < 1.0:
        assert float((first + rest - 1).abs().sum()) <= 1.0


@pytest.mark.parametrize("axis", [0.0, 1.0], ids=["rows", "columns"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 7), (0,), (0, 5), (5, 0)], ids=str)
def test_tensor_sum_of_one_row_or_none(shape: tuple[int, ...], axis: float) -> None:
    below = merged(shape, alpha=0.9, beta=0.0, axis=axis)
    assert below.shape == shape
    if axis == 0.0 or len(shape) < 2:
        assert not below.any()
        assert merged(shape, alpha=0.5, beta=0.5, axis=axis).all()
        assert not merged(shape, alpha=0.5, beta=1.0, axis=axis).any()


@pytest.mark.parametrize("axis", [0.0, 1.0], ids=["rows", "columns"])
@pytest.mark.parametrize(
    "shape", [(37, 29), (1400,), (7, 5, 3, 3), (1, 90), ()], ids=str
)
@pytest.mark.parametrize("step", [1, 13, 1000])
def test_cuts_give_the_bits_of_the_whole(
    shape: tuple[int, ...], step: int, axis: float
) -> None:
    inputs = models(2, shape)
    given = {"alpha": 0.55, "beta": 0.7, "axis": axis}
    whole = tensor_sum.call_with(inputs, given, key="key")
    assert torch.equal(merge_in_cuts(tensor_sum, inputs, step, **given), whole)


@pytest.mark.parametrize(
    ("shape", "width"),
    [((), 1), ((9,), 1), ((9, 4), 4), ((1, 9, 4), 4), ((5, 2, 3), 6), ((4, 0), 1)],
    ids=str,
)
def test_width_is_that_of_an_entry_of_the_first_long_axis(
    shape: tuple[int, ...], width: int
) -> None:
    assert width_of(shape) == width


@given(starts, st.integers(0, 60), widths)
@settings(deadline=None, max_examples=60)
def test_columns_of_a_run_are_counted_by_the_index(
    start: int, n_elements: int, width: int
) -> None:
    index = (start + np.arange(n_elements)) % width
    values = torch.arange(1.0, n_elements + 1, dtype=torch.float64)
    table = torch.zeros(width, dtype=torch.float64)
    add_to_columns(table, values, start)
    wanted = np.bincount(index, weights=values.numpy(), minlength=width)
    np.testing.assert_array_equal(table.numpy(), wanted)
    names = torch.arange(width)
    np.testing.assert_array_equal(
        spread_columns(names, start, n_elements).numpy(), index
    )


@given(starts, st.integers(0, 60), widths, st.data())
@settings(deadline=None, max_examples=60)
def test_copied_columns_are_counted_by_the_index(
    start: int, n_elements: int, width: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, width))
    last = data.draw(st.integers(first, width))
    index = (start + np.arange(n_elements)) % width
    target, source = torch.zeros(n_elements), torch.ones(n_elements)
    copy_columns(target, source, start, width=width, first=first, last=last)
    np.testing.assert_array_equal(target.numpy(), (index >= first) & (index < last))
