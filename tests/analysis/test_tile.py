"""The kernel: exact signs, and distances that keep their digits however close."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_merge.analysis._tile import NotFinite, Tile, run_values, tile_values

SHAPES = [(2, 1), (2, 5), (3, 1024), (5, 3000), (17, 1025), (33, 2048), (50, 700)]


def sums_of(rows: list[torch.Tensor]):
    return Tile(len(rows)).sums(rows)


def check(rows: list[torch.Tensor], tolerance: float = 1e-12) -> None:
    """Everything against a plain float64 loop."""
    values = torch.stack([row.double() for row in rows]).numpy()
    changes = values - values[0]
    signs = np.sign(changes)
    found = sums_of(rows)
    for i in range(len(rows)):
        true = ((values - values[i]) ** 2).sum(axis=1)
        assert np.allclose(found.squares[i], true, rtol=tolerance, atol=0)
    assert (found.agree == signs @ signs.T).all()
    assert (found.both == np.abs(signs) @ np.abs(signs).T).all()
    norms = found.base_square + 2 * found.cross + found.squares[0]
    assert np.allclose(norms, (values**2).sum(axis=1), rtol=1e-11, atol=1e-300)
    assert found.n_values == values.shape[1]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str
)
def test_sums_are_those_of_a_plain_loop(shape, dtype):
    n_rows, n_values = shape
    noise = torch.Generator().manual_seed(n_values)
    base = torch.randn(n_values, generator=noise)
    steps = torch.randn((n_rows, n_values), generator=noise) * 0.01
    steps[0] = 0
    steps[-1, : n_values // 2] = 0
    check([(base + step).to(dtype) for step in steps])


def test_rows_of_several_types_are_compared_as_they_are():
    noise = torch.Generator().manual_seed(1)
    base = torch.randn(2000, generator=noise)
    types = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    check([base.to(dtype) for dtype in types] + [base.to(torch.float8_e4m3fn)])


@pytest.mark.parametrize("gap", [1e-2, 1e-5, 1e-9, 1e-12], ids=str)
def test_close_rows_keep_their_digits_when_the_base_is_far(gap):
    noise = torch.Generator().manual_seed(2)
    draw = torch.randn((6, 5000), generator=noise, dtype=torch.float64)
    far = draw[0] * 10
    rows = [draw[1], far, far + gap * draw[2], far + gap * draw[3], far.clone()]
    rows += [far + gap * draw[2] * (1 + 1e-3)]
    check(rows, tolerance=1e-10)


def test_chain_of_near_rows_keeps_its_digits():
    noise = torch.Generator().manual_seed(3)
    draw = torch.randn((40, 3000), generator=noise, dtype=torch.float64)
    rows = [draw[0]]
    for step in draw[1:]:
        rows.append((rows[-1] if len(rows) > 1 else draw[1] * 20) + step * 0.1)
    check(rows, tolerance=1e-10)


def test_equal_rows_are_exactly_zero_apart():
    noise = torch.Generator().manual_seed(4)
    one = torch.randn(4097, generator=noise)
    two = torch.randn(4097, generator=noise)
    found = sums_of([one, two, one.clone(), two.clone(), two.half(), two.clone()])
    assert found.squares[0, 2] == 0
    assert found.squares[1, 3] == found.squares[3, 5] == found.squares[1, 5] == 0
    assert found.squares[1, 4] > 0


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0], ids=str)
def test_values_that_did_not_change_abstain(share):
    noise = torch.Generator().manual_seed(5)
    base = torch.randn(6000, generator=noise)
    rows = [base]
    for _ in range(7):
        is_same = torch.rand(6000, generator=noise) < share
        step = torch.randn(6000, generator=noise)
        rows.append(torch.where(is_same, base, base + step))
    rows.append(base.clone())
    check(rows, tolerance=1e-11)


def test_change_too_small_for_float32_has_a_sign_when_it_is_stored_in_float64():
    base = torch.zeros(3, dtype=torch.float64)
    tiny = torch.tensor([1e-60, -1e-60, 0.0], dtype=torch.float64)
    found = sums_of([base, tiny, tiny.clone()])
    assert found.agree[1, 2] == found.both[1, 2] == 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("row", [0, 2])
def test_bad_value_is_noticed(bad, row):
    rows = [torch.ones(2000) for _ in range(3)]
    rows[row][1999] = bad
    with pytest.raises(NotFinite):
        sums_of(rows)


@given(
    st.integers(2, 20),
    st.integers(1, 60),
    st.integers(0, 2**31),
    st.sampled_from([1e-6, 1e-3, 1.0]),
)
@settings(deadline=None, max_examples=60)
def test_sums_are_those_of_a_plain_loop_for_any_rows(n_rows, n_values, seed, scale):
    noise = torch.Generator().manual_seed(seed)
    base = torch.randn(n_values, generator=noise, dtype=torch.float64)
    steps = torch.randint(-2, 3, (n_rows, n_values), generator=noise) * scale
    check([base + step for step in steps], tolerance=1e-9)


def test_sizes_depend_on_the_number_of_models_only():
    for n_models in (2, 16, 40, 250):
        assert tile_values(n_models) % 1024 == 0
        assert run_values(n_models) % tile_values(n_models) == 0
    assert tile_values(2) > tile_values(250)
