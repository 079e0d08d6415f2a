"""Values known by hand or published, for the methods on pools of deltas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lib_merge.core.runs import Place
from lib_merge.methods._ops.consensus import Elect
from lib_merge.methods._ops.stack import Combine, Drop, Trim
from lib_merge.methods.drop import drop
from tests.methods.stack_reference import KEY, SEED, merged, uniform

A = [[-1, 2, 3, 4], [4, -3, 2, 1], [3, 4, 1, -2], [2, 1, -4, 3]]
B = [[3, 4, 1, -2], [2, 1, -4, 3], [-1, 2, 3, 4], [4, -3, 2, 1]]
BY_MAGNITUDE = [[3, 3, 3, 4], [3, -3, -4, 3], [3, 3, 3, 4], [3, -3, -4, 3]]
BY_COUNT = [[3, 3, 3, 0], [3, -3, 0, 3], [3, 3, 3, 0], [3, -3, 0, 3]]

MEDIAN_POOL = [
    [[3, 4, 1, -2], [2, 1, -4, 3], [-1, 2, 3, 4], [4, -3, 2, 1]],
    [[-1, 3, 4, 2], [4, 2, -3, 1], [3, -1, 2, 4], [2, 4, 1, -3]],
    [[-1, 3, 2, 0], [3, 0, 2, 1], [-1, 3, 1, 0], [3, 0, -4, 3]],
]

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def row(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def values(method_id: str, *pool: Tensor, **params: Any) -> list[float]:
    found: list[float] = merged(method_id, list(pool), **params).tolist()
    return found


@DTYPES
def test_ties_gives_the_oracle_of_an_election_by_magnitude(dtype: torch.dtype) -> None:
    pool = [torch.tensor(model, dtype=dtype) for model in (A, B)]
    assert merged("ties", pool, density=0.5).tolist() == BY_MAGNITUDE


@DTYPES
def test_stack_gives_the_oracle_of_an_election_by_count(dtype: torch.dtype) -> None:
    pool = [torch.tensor(model, dtype=dtype) for model in (A, B)]
    params = {
        "trim": Trim.TOP,
        "density": 0.5,
        "elect": Elect.COUNT,
        "combine": Combine.DISJOINT_MEAN,
    }
    assert merged("stack", pool, **params).tolist() == BY_COUNT


def test_trim_of_the_oracle_keeps_twelve_of_sixteen() -> None:
    pool = [torch.tensor(A, dtype=torch.float32)]
    kept = merged("stack", pool, trim=Trim.TOP, density=0.5)
    # The 8th smallest magnitude is 2: the four ones go.
    assert int((kept != 0).sum()) == 12


def test_stack_gives_the_published_geometric_median() -> None:
    pool = [torch.tensor(model, dtype=torch.float64) for model in MEDIAN_POOL]
    found = merged("stack", pool, combine=Combine.MEDIAN)
    first_row = [0.4799, 3.3700, 2.2339, -0.1361]
    np.testing.assert_allclose(found[0], first_row, atol=5e-5)


def test_tgmd_without_a_drop_is_the_median_of_the_elected_values() -> None:
    pool = [torch.tensor(model, dtype=torch.float64) for model in MEDIAN_POOL]
    # By hand: what has the majority's sign stays, where it is even all go.
    kept = [
        [[0, 4, 1, 0], [2, 1, -4, 3], [-1, 2, 3, 4], [4, 0, 2, 1]],
        [[-1, 3, 4, 0], [4, 2, -3, 1], [0, 0, 2, 4], [2, 0, 1, 0]],
        [[-1, 3, 2, 0], [3, 0, 0, 1], [-1, 3, 1, 0], [3, 0, 0, 3]],
    ]
    points = [torch.tensor(model, dtype=torch.float64) for model in kept]
    wanted = merged("stack", points, combine=Combine.MEDIAN)
    torch.testing.assert_close(merged("tgmd", pool, drop_rate=0.0), wanted)
    # Not a mean of those that agree: zeros stay points.
    assert float(wanted[0, 0].abs()) < 0.8


def test_task_arithmetic_adds_weighted_deltas() -> None:
    pool = (row(1.0, -2.0), row(0.5, 4.0))
    assert values("task_arithmetic", *pool) == [1.5, 2.0]
    assert values("task_arithmetic", *pool, lam=-0.5) == [-0.75, -1.0]
    assert values("task_arithmetic", *pool, weight=(2.0, -1.0)) == [1.5, -8.0]


def test_ties_soup_gives_hand_computed_values() -> None:
    pool = (row(1, 9, 2, 0, 1, 0), row(3, -1, -2, 0, 0, 0), row(-9, -3, 0, 5, 0, 0))
    assert values("ties_soup", *pool) == [2.0, -2.0, 0.0, 5.0, 1.0, 0.0]
    assert values("ties_soup", *pool, lam=0.5) == [1.0, -1.0, 0.0, 2.5, 0.5, 0.0]


def test_ties_elects_by_magnitude() -> None:
    pool = (row(1, 9, 2), row(3, -1, -2), row(-9, -3, 0))
    assert values("ties", *pool, density=1.0) == [-9.0, 9.0, 0.0]


def test_weights_count_in_the_mean_but_have_no_vote() -> None:
    pool = (row(4.0), row(8.0), row(-10.0))
    assert values("ties", *pool, density=1.0, weight=(3.0, 1.0, 100.0)) == [5.0]
    assert values("ties", *pool, density=1.0, weight=(0.0, 1.0, 1.0)) == [8.0]
    # The elected models weigh nothing: the base.
    assert values("ties", *pool, density=1.0, weight=(0.0, 0.0, 1.0)) == [0.0]


@pytest.mark.parametrize("method_id", ["ties", "dare", "della", "stack", "breadcrumbs"])
def test_all_weights_zero_give_the_base(method_id: str) -> None:
    assert values(method_id, row(4.0, -1.0), row(8.0, 2.0), weight=0.0) == [0.0, 0.0]


def test_breadcrumbs_drops_both_ends() -> None:
    pool = (row(1, -2, 3, -4, 5, 6, 7, 8, 9, -10), row(*[1.0] * 10))
    found = values("breadcrumbs", *pool, density=0.3, outliers=0.2, lam=1.0)
    # Of ten: 9 and 10 are outliers, then ranks from 7 - 2 = 5 stay; the equal ones all.
    assert found == [1.0, 1.0, 1.0, 1.0, 6.0, 7.0, 8.0, 9.0, 1.0, 1.0]


def test_sce_gives_hand_computed_values() -> None:
    pool = (row(1.0, 5.0, 0.1, 2.0), row(1.0, -1.0, 0.1, 4.0))
    # Variances 0, 9, 0, 1: of four, the third smallest is 1.
    found = values("sce", *pool, density=0.25)
    energies = 25.0 + 4.0, 1.0 + 16.0
    mean = (energies[0] * 2.0 + energies[1] * 4.0) / sum(energies)
    assert found == pytest.approx([0.0, 5.0, 0.0, mean])


def test_sce_without_a_selection_weighs_by_all_squares() -> None:
    pool = (row(3.0, 0.0), row(1.0, 1.0))
    assert values("sce", *pool, density=1.0) == pytest.approx([29 / 11, 1.0])


def test_drop_averages_what_is_left() -> None:
    kept = uniform(3, 40) >= round(0.4 * 2**31) / 2**31
    pool = [torch.full((40,), float(i + 1), dtype=torch.float64) for i in range(3)]
    found = merged("drop", pool, drop_rate=0.4, seed=SEED)
    sums = (kept * np.array([[1.0], [2.0], [3.0]])).sum(axis=0)
    np.testing.assert_allclose(found, sums / np.maximum(kept.sum(axis=0), 1))


def test_dare_rescales_and_averages_over_all() -> None:
    kept = uniform(2, 40) >= round(0.75 * 2**31) / 2**31
    pool = [torch.full((40,), float(i + 1), dtype=torch.float64) for i in range(2)]
    found = merged("dare", pool, drop_rate=0.75, seed=SEED)
    np.testing.assert_allclose(found, 4.0 * (kept[0] * 1.0 + kept[1] * 2.0) / 2)
    plain = merged("dare", pool, drop_rate=0.75, rescale=0.0, seed=SEED)
    np.testing.assert_allclose(plain, (kept[0] * 1.0 + kept[1] * 2.0) / 2)


def test_tsd_is_its_first_recipe_with_the_rescaling_taken_back() -> None:
    draw = torch.Generator().manual_seed(0)
    pool = [torch.randn(500, generator=draw, dtype=torch.float64) for _ in range(5)]
    parts = {
        "drop": Drop.RANDOM,
        "elect": Elect.COUNT,
        "combine": Combine.DISJOINT_MEAN,
        "drop_rate": 0.1,
        "seed": 114514,
    }
    as_recorded = merged("stack", pool, rescale=1.0, lam=0.9, **parts)
    torch.testing.assert_close(merged("tsd", pool, seed=114514), as_recorded)


def test_tsd_drops_before_it_votes() -> None:
    kept = uniform(3, 64) >= round(0.5 * 2**31) / 2**31
    signs = np.array([[1.0], [1.0], [-1.0]])
    pool = [torch.full((64,), float(s), dtype=torch.float64) for s in signs[:, 0]]
    found = merged("tsd", pool, drop_rate=0.5, seed=SEED)
    np.testing.assert_array_equal(found, np.sign((kept * signs).sum(axis=0)))


def test_draws_belong_to_the_position_in_the_pool() -> None:
    first, third = torch.full((64,), 1.0), torch.full((64,), 4.0)
    place = Place(KEY, (64,), 0, (0, 2))
    found = drop(iter([first, third]), drop_rate=0.5, seed=SEED, place=place)
    kept = (uniform(3, 64) >= 0.5)[[0, 2]]
    sums = (kept * np.array([[1.0], [4.0]])).sum(axis=0)
    np.testing.assert_allclose(found, sums / np.maximum(kept.sum(axis=0), 1))


def test_della_drops_each_value_by_its_rank() -> None:
    pool = [torch.arange(1.0, 65.0, dtype=torch.float64)]
    found = merged("della", pool, drop_rate=0.5, epsilon=1.0, seed=SEED)
    rates = 0.5 + (np.arange(1, 65) / 64 - 65 / 128)
    kept = uniform(1, 64)[0] >= np.round((1 - rates) * 2**31) / 2**31
    np.testing.assert_allclose(found, np.where(kept, pool[0] / rates, 0.0))


def test_model_stock_in_the_stack_takes_the_cosine_of_what_is_left() -> None:
    pool = (row(3.0, 0.0), row(3.0, 4.0))
    found = values("stack", *pool, combine=Combine.MODEL_STOCK)
    factor = 2 * 0.6 / (1 + 0.6)
    assert found == pytest.approx([3.0 * factor, 2.0 * factor])
    # Trimmed to (3, 0) and (0, 4) they are at right angles: nothing is shared.
    found = values(
        "stack", *pool, trim=Trim.TOP, density=0.0, combine=Combine.MODEL_STOCK
    )
    assert found == pytest.approx([0.0, 0.0])


def test_karcher_in_the_stack_bisects_an_angle() -> None:
    found = values("stack", row(2.0, 0.0), row(0.0, 2.0), combine=Combine.KARCHER)
    assert found == pytest.approx([2**0.5, 2**0.5])
