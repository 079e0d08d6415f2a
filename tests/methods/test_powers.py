"""Powers that have the same bits wherever a run is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib_merge.core.method import MergeMethod
from lib_merge.methods._ops.powers import geometric_mean, power
from lib_merge.methods.comparative_interpolation import comparative_interpolation
from lib_merge.methods.multiply_difference import multiply_difference
from tests.methods.cuts import merge_in_cuts, models

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
SLACK = {torch.float32: 1e-5, torch.float64: 1e-13}


def values(seed: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    found = torch.rand(1000, generator=generator).to(dtype) ** 3
    found[::10] = 0.0
    found[1::10] = 1.0
    return found


@DTYPES
@pytest.mark.parametrize("exponent", [0.0, 0.1, 0.5, 1.0, 1.7, 3.75])
def test_power_agrees_with_numpy(exponent: float, dtype: torch.dtype) -> None:
    wanted = values(1, dtype).double().numpy() ** exponent
    found = power(values(1, dtype), exponent)
    np.testing.assert_allclose(found.double().numpy(), wanted, rtol=SLACK[dtype])


@DTYPES
def test_power_of_a_huge_exponent_keeps_ones_only(dtype: torch.dtype) -> None:
    for exponent in (1e9, 1e300, float("inf")):
        found = power(values(1, dtype), exponent)
        assert torch.equal(found, (values(1, dtype) == 1.0).to(dtype))


@DTYPES
@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_geometric_mean_agrees_with_numpy(alpha: float, dtype: torch.dtype) -> None:
    x, y = (values(i, dtype).double().numpy() for i in (1, 2))
    found = geometric_mean(values(1, dtype), values(2, dtype), alpha)
    wanted = x ** (1 - alpha) * y**alpha
    np.testing.assert_allclose(found.double().numpy(), wanted, rtol=SLACK[dtype])


@DTYPES
@pytest.mark.parametrize(
    "method", [multiply_difference, comparative_interpolation], ids=lambda m: m.id
)
@pytest.mark.parametrize("step", [1, 7, 13, 64])
def test_methods_with_powers_have_the_bits_of_the_whole_in_cuts(
    method: MergeMethod, step: int, dtype: torch.dtype
) -> None:
    inputs = [t.to(dtype) for t in models(method.min_models, (37, 29))]
    whole = method.call_with(inputs, {"alpha": 0.3}, key="key")
    found = merge_in_cuts(method, inputs, step, alpha=0.3)
    assert torch.equal(found, whole)
