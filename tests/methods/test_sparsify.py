"""Order statistics, trimming and rank tables: what the stack's first parts stand on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from torch import Tensor

from lib_merge.core.runs import Place
from lib_merge.methods._ops.draws import Draws, drop_limits
from lib_merge.methods._ops.order import histograms, order_statistics
from lib_merge.methods._ops.sparsify import (
    Limits,
    find_limits,
    keep_rates,
    mid_ranks,
    rank_tables,
    trim_ranks,
    trimmed,
)

Passes = Callable[[], Iterator[list[Tensor]]]

# Of one run, of several, and long enough to be counted instead of sorted.
LENGTHS = [1, 2, 320, 5000, 33_000, 70_001]


def random(seed: int, n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Values over many octaves, with zeros and equal ones among them."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(n, generator=draw) * torch.randn(n, generator=draw).exp2()
    values[torch.rand(n, generator=draw) < 0.05] = 0.0
    values[: n // 10] = 0.125
    return values[torch.randperm(n, generator=draw)].to(dtype)


def passes(models: list[Tensor], step: int) -> Passes:
    n = len(models[0])
    return lambda: ([m[i : i + step] for m in models] for i in range(0, n, step))


def distinct(n: int) -> Tensor:
    """The magnitudes 1 to n, in any order and of any sign."""
    draw = torch.Generator().manual_seed(n)
    signs = torch.randint(0, 2, (n,), generator=draw) * 2 - 1
    return ((torch.randperm(n, generator=draw) + 1) * signs).float()


def trim(values: Tensor, *, density: float, outliers: float = 0.0) -> Tensor:
    n = len(values)
    limits = find_limits(passes([values], 1000), n, density=density, outliers=outliers)
    return trimmed(values, limits[0]) if limits else values


def magnitudes(values: Tensor) -> np.ndarray:
    return np.abs(values.numpy()).astype(np.float32)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_order_statistics_are_those_of_sorted_values(
    n: int, dtype: torch.dtype
) -> None:
    models = [random(seed, n, dtype) * (1 + 1e-9 * seed) for seed in range(3)]
    ranks = sorted({1, max(n // 7, 1), (n + 1) // 2, max(n - 1, 1), n})
    found = order_statistics(passes(models, 4096), n, ranks)
    for model, values in zip(models, found, strict=True):
        ascending = np.sort(magnitudes(model))
        assert list(values) == [float(ascending[rank - 1]) for rank in ranks]


@pytest.mark.parametrize("n", [320, 33_000])
def test_order_statistics_and_histograms_do_not_depend_on_the_cut(n: int) -> None:
    models = [random(seed, n) for seed in range(2)]
    ranks = [1, n // 3, n - 5]
    found = [order_statistics(passes(models, step), n, ranks) for step in (64, 999, n)]
    assert found[0] == found[1] == found[2]
    counts = [histograms(passes(models, step)(), n) for step in (64, 999, n)]
    for other in counts[1:]:
        for a, b in zip(counts[0], other, strict=True):
            assert a.bins.tolist() == b.bins.tolist()
            assert a.counts.tolist() == b.counts.tolist()


@pytest.mark.parametrize("n", [100, 40_000])
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, -1.5e-39, 1.0, -3.4e38], ids=str)
def test_order_statistics_of_equal_values_are_that_value(n: int, value: float) -> None:
    found = order_statistics(passes([torch.full((n,), value)], 9999), n, [1, n])
    wanted = abs(float(np.float32(value)))
    assert found == [(wanted, wanted)]


def test_order_statistics_are_exact_where_magnitudes_differ_in_the_last_bit() -> None:
    n = 40_000
    bits = 0x3F80_0000 + torch.randperm(n, generator=torch.Generator().manual_seed(0))
    values = bits.to(torch.int32).view(torch.float32)
    found = order_statistics(passes([values], 4096), n, [1, 12_345, n])
    wanted = np.array([0, 12_344, n - 1], dtype=np.int32) + 0x3F80_0000
    assert found == [tuple(float(v) for v in wanted.view(np.float32))]


@pytest.mark.parametrize(
    ("n", "density", "outliers", "wanted"),
    [
        (16, 0.5, 0.0, (8, 16)),
        (10, 0.2, 0.0, (8, 10)),
        (10, 1.0, 0.0, (1, 10)),
        (10, 0.0, 0.0, (10, 10)),
        (1, 0.2, 0.0, (1, 1)),
        (1, 0.2, 0.5, (1, 1)),
        (100, 0.07, 0.0, (93, 100)),
        (100, 0.9, 0.0, (10, 100)),
        (100, 0.15, 0.006, (85, 100)),
        (1000, 0.15, 0.006, (844, 994)),
        (10, 0.0, 0.5, (5, 5)),
        (10, 1.0, 0.5, (1, 5)),
        (10, 0.7, 0.5, (1, 5)),
        (64, 0.5, 0.01, (32, 64)),
    ],
)
def test_trim_ranks_are_hand_computed(
    n: int, density: float, outliers: float, wanted: tuple[int, int]
) -> None:
    assert trim_ranks(n, density, outliers) == wanted


@given(st.integers(1, 10_000), st.integers(0, 1000), st.integers(0, 500), st.booleans())
@settings(deadline=None)
def test_trim_ranks_are_ordered_and_count_exactly(
    n: int, per_mille: int, large_per_mille: int, has_outliers: bool
) -> None:
    n_large = n * large_per_mille // 1000 if has_outliers else 0
    density, outliers = per_mille / 1000, large_per_mille / 1000 * has_outliers
    low, high = trim_ranks(n, density, outliers)
    assert 1 <= low <= high <= n
    assert high == n - n_large
    n_small = n * (1000 - per_mille) // 1000
    assert high - low + 1 == min(n - n_small + 1 if n_small > n_large else n, high)


@given(st.integers(1, 300), st.integers(0, 100), st.integers(0, 50))
@settings(deadline=None, max_examples=60)
def test_trim_keeps_exactly_the_declared_number_of_distinct_values(
    n: int, percent: int, large_percent: int
) -> None:
    density, outliers = percent / 100, large_percent / 100
    low, high = trim_ranks(n, density, outliers)
    kept = trim(distinct(n), density=density, outliers=outliers)
    assert sorted(kept[kept != 0].abs().tolist()) == list(range(low, high + 1))


@pytest.mark.parametrize("n", [100, 33_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("density", [0.0, 0.2, 0.97, 1.0])
@pytest.mark.parametrize("outliers", [0.0, 0.01, 0.3])
def test_trim_agrees_with_a_sort(
    n: int, dtype: torch.dtype, density: float, outliers: float
) -> None:
    # In float64 some differ from each other by less than float32 can tell.
    values = random(3, n, dtype) * (1 + 1e-9)
    before = values.clone()
    kept = trim(values, density=density, outliers=outliers)
    low, high = trim_ranks(n, density, outliers)
    sizes = magnitudes(values)
    ascending = np.sort(sizes)
    is_kept = (sizes >= ascending[low - 1]) & (sizes <= ascending[high - 1])
    assert kept.dtype == dtype
    np.testing.assert_array_equal(kept.numpy(), np.where(is_kept, values.numpy(), 0.0))
    assert torch.equal(values, before)


def test_all_values_that_equal_a_limit_stay() -> None:
    values = torch.tensor([1.0, -2.0, 2.0, 2.0, -3.0, 3.0])
    assert trim(values, density=0.5).tolist() == [0.0, -2.0, 2.0, 2.0, -3.0, 3.0]
    # One outlier goes by rank, but the other 3 is as large.
    kept = trim(values, density=0.6, outliers=0.2)
    assert kept.tolist() == [1.0, -2.0, 2.0, 2.0, -3.0, 3.0]


@pytest.mark.parametrize("outliers", [0.0, 0.01, 0.5])
def test_a_constant_delta_is_never_emptied(outliers: float) -> None:
    values = torch.full((64,), -0.5)
    assert torch.equal(trim(values, density=0.3, outliers=outliers), values)


def test_a_short_tensor_without_outliers_keeps_its_share() -> None:
    # floor(0.01 * 64) is 0: nothing is too large, half stays.
    kept = trim(distinct(64), density=0.5, outliers=0.01)
    assert sorted(kept[kept != 0].abs().tolist()) == list(range(32, 65))


def test_nothing_is_read_where_all_is_kept() -> None:
    def never() -> Iterator[list[Tensor]]:
        raise AssertionError("a pass was started")

    assert find_limits(never, 1000, density=1.0) == []
    assert find_limits(never, 0, density=0.2) == []
    assert find_limits(never, 90, density=1.0, outliers=0.01) == []


def test_limits_at_the_ends_leave_the_values_as_they_are() -> None:
    values = torch.tensor([0.0, 1e-45, -3e38])
    assert trimmed(values, Limits()) is values
    kept = trimmed(values, Limits(low=1e-45))
    assert kept.tolist() == values.tolist()


@pytest.mark.parametrize("n", [1, 50, 5000, 40_000])
def test_ranks_are_those_of_scipy_on_the_upper_bits(n: int) -> None:
    values = random(5, n)
    (found,) = histograms(passes([values], 4096)(), n)
    bins = magnitudes(values).view(np.int32) >> 15
    wanted = rankdata(bins, method="average")
    ranks = mid_ranks(found.counts)[np.searchsorted(found.bins, bins)]
    np.testing.assert_array_equal(ranks, wanted)


@pytest.mark.parametrize("n", [1, 2, 100, 40_000])
@pytest.mark.parametrize(
    ("drop_rate", "epsilon"), [(0.1, -0.1), (0.3, 0.14), (0.5, 1.0), (0.5, 0.0)]
)
def test_the_mean_keep_rate_is_exactly_one_less_the_drop_rate(
    n: int, drop_rate: float, epsilon: float
) -> None:
    (found,) = histograms(passes([random(1, n)], 4096)(), n)
    rates = keep_rates(found, drop_rate=drop_rate, epsilon=epsilon)
    assert (rates * found.counts).sum() / n == pytest.approx(1 - drop_rate, abs=1e-13)
    # They rise with magnitude for epsilon > 0, and fall for epsilon < 0.
    assert (np.diff(rates) * epsilon >= 0).all()


def test_keep_rates_are_hand_computed() -> None:
    values = torch.tensor([4.0, -1.0, 2.0, 2.0])
    (found,) = histograms(passes([values], 4)(), 4)
    rates = keep_rates(found, drop_rate=0.1, epsilon=-0.1)
    # Ranks 1, 2.5, 2.5, 4 of 4 less the mean rank 2.5: -3/8, 0, 3/8.
    assert rates.tolist() == pytest.approx([0.9375, 0.9, 0.8625])
    clamped = keep_rates(found, drop_rate=0.1, epsilon=1.0)
    assert clamped.tolist() == pytest.approx([0.525, 0.9, 1.0])


def draws(n: int) -> Draws:
    place = Place("key", (n,), 0, (0,))
    return Draws(place, n, seed=3, device=torch.device("cpu"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rescale", [0.0, 0.5, 1.0])
def test_rank_tables_drop_and_rescale_each_value_by_its_own_rate(
    dtype: torch.dtype, rescale: float
) -> None:
    n = 5000
    values = random(2, n, dtype)
    (table,) = rank_tables(
        passes([values], 999)(), n, drop_rate=0.4, epsilon=0.6, rescale=rescale
    )
    kept = table.dropped(values, draws(n), 0).numpy()
    ranks = rankdata(magnitudes(values).view(np.int32) >> 15, method="average")
    rates = 0.6 + 0.6 * (ranks / n - (n + 1) / (2 * n))
    is_kept = draws(n).uniform(0).numpy() >= np.round((1 - rates) * 2**31) / 2**31
    wanted = np.where(is_kept, values.double().numpy() * rates**-rescale, 0.0)
    np.testing.assert_allclose(kept, wanted, rtol=3 * torch.finfo(dtype).eps)


def test_large_values_are_kept_more_where_epsilon_is_positive() -> None:
    n = 40_000
    values = random(4, n)
    is_large = magnitudes(values) > np.median(magnitudes(values))

    def rates(epsilon: float) -> tuple[float, float]:
        (table,) = rank_tables(
            passes([values], 4096)(), n, drop_rate=0.5, epsilon=epsilon, rescale=0.0
        )
        ones = table.dropped(values, draws(n), 0).numpy() != 0
        is_there = values.numpy() != 0
        return ones[is_large].mean(), ones[~is_large & is_there].mean()

    # Half of the ranks average a quarter of epsilon from the middle.
    assert rates(0.4) == pytest.approx((0.6, 0.4), abs=0.02)
    assert rates(-0.4) == pytest.approx((0.4, 0.6), abs=0.02)


def test_tables_of_250_models_take_less_than_100_megabytes() -> None:
    n = 60_000
    wide = random(1, n) * 1e-4
    (table,) = rank_tables(
        passes([wide], n)(), n, drop_rate=0.1, epsilon=-0.1, rescale=1.0
    )
    assert table.factors is not None
    assert 250 * (table.limits.nbytes + table.factors.nbytes) < 100e6


def test_tables_survive_zeros_and_single_values() -> None:
    for values in (torch.zeros(5), torch.tensor([2.0]), torch.tensor([0.0, 1e-45])):
        n = len(values)
        (table,) = rank_tables(
            passes([values], n)(), n, drop_rate=0.0, epsilon=0.0, rescale=1.0
        )
        assert torch.equal(table.dropped(values, draws(n), 0), values)


def test_prepared_drop_rates_drop_what_plain_ones_do() -> None:
    rates = torch.rand(4096, generator=torch.Generator().manual_seed(0)).double()
    rates[:2] = torch.tensor([0.0, 1.0])
    kept = draws(4096).keep(5, rates)
    assert torch.equal(draws(4096).keep_at(5, drop_limits(rates)), kept)
    below = draws(4096).uniform(5) < (rates * 2**31).round() / 2**31
    assert torch.equal(kept == 0, below)
    assert kept[0] == -1
    assert kept[1] == 0
    assert math.isclose((kept == 0).double().mean(), 0.5, abs_tol=0.03)
