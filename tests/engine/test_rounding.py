"""Rounding happens once, shown against exact arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_merge.engine.rounding import round_into

NARROW = [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
FINITE = st.floats(-60_000, 60_000, allow_nan=False)


def nearest_even(value: float, dtype: torch.dtype) -> float:
    """The closest value of a narrow type, by looking at all of its 256 or 65536."""
    if dtype.itemsize == 1:
        bits = torch.arange(256, dtype=torch.int32).to(torch.uint8)
    else:
        bits = torch.arange(65536, dtype=torch.int32).to(torch.int16)
    table = bits.view(dtype).to(torch.float64)
    finite = torch.isfinite(table)
    table, codes = table[finite], torch.arange(len(bits))[finite]
    distance = (table - value).abs()
    best = distance == distance.min()
    ties = codes[best]
    even = ties[ties % 2 == 0]
    chosen = even[0] if len(ties) > 1 and len(even) else ties[0]
    return float(bits[chosen].view(dtype).to(torch.float64))


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@settings(max_examples=60, deadline=None)
@given(value=st.floats(-400, 400, allow_nan=False))
def test_round_into_is_the_nearest_when_from_float64(dtype, value):
    out = torch.empty(1, dtype=dtype)
    round_into(out, torch.tensor([value], dtype=torch.float64))
    assert float(out.to(torch.float64)) == nearest_even(value, dtype)


@settings(max_examples=200, deadline=None)
@given(values=st.lists(FINITE, min_size=1, max_size=40))
def test_round_into_equals_numpy_when_float64_goes_to_float16(values):
    out = torch.empty(len(values), dtype=torch.float16)
    round_into(out, torch.tensor(values, dtype=torch.float64))
    expected = np.array(values, dtype=np.float64).astype(np.float16)
    assert np.array_equal(out.numpy(), expected)


def test_round_into_is_right_where_torch_rounds_twice():
    # Just above the middle of two float16 values; float32 would round it to the middle
    # and the tie would then go down to the even one.
    value = 1.0 + 2.0**-11 + 2.0**-40
    out = torch.empty(1, dtype=torch.float16)
    values = torch.tensor([value], dtype=torch.float64)
    round_into(out, values)
    assert float(out) == 1.0 + 2.0**-10
    assert float(values.to(torch.float16)) == 1.0, "torch is right now: drop the detour"


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_round_into_keeps_specials_when_from_float64(dtype):
    values = torch.tensor([0.0, -0.0, float("nan")], dtype=torch.float64)
    out = torch.empty(3, dtype=dtype)
    round_into(out, values)
    assert out[:2].to(torch.float32).tolist() == [0.0, -0.0]
    assert bool(torch.signbit(out[1].to(torch.float32)))
    assert bool(torch.isnan(out[2].to(torch.float32)))
