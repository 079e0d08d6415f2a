"""The stack, its rows and SCE against references in plain numpy; elections; parts."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lib_merge.core.runs import Place
from lib_merge.methods._ops.consensus import Consensus, Elect, elected
from lib_merge.methods._ops.stack import Combine, Drop, Trim
from lib_merge.methods.stack import stack
from lib_merge.methods.tsd import tsd
from tests.methods.cases import Whole
from tests.methods.stack_reference import KEY, SEED, Array, deltas, merged, reference

DISJOINT = "disjoint_mean"
ROWS: dict[str, dict[str, Any]] = {
    "task_arithmetic": {"combine": "sum"},
    "ties": {
        "trim": "top",
        "density": 0.2,
        "elect": "magnitude",
        "combine": DISJOINT,
    },
    "ties_soup": {"elect": "count", "combine": DISJOINT},
    "dare": {"drop": "random", "drop_rate": 0.9, "rescale": 1.0, "combine": "mean"},
    "drop": {"drop": "random", "drop_rate": 0.1, "combine": DISJOINT},
    "tsd": {"drop": "random", "drop_rate": 0.1, "elect": "count", "combine": DISJOINT},
    "della": {
        "drop": "magnitude",
        "drop_rate": 0.3,
        "epsilon": 0.14,
        "rescale": 1.0,
        "elect": "magnitude",
        "combine": DISJOINT,
    },
    "breadcrumbs": {
        "trim": "breadcrumbs",
        "density": 0.15,
        "outliers": 0.006,
        "combine": "sum",
        "lam": 0.2,
    },
    "tgmd": {
        "drop": "random",
        "drop_rate": 0.1,
        "elect": "count",
        "combine": "geometric_median",
    },
    "dgmla": {
        "drop": "magnitude",
        "drop_rate": 0.1,
        "epsilon": -0.1,
        "elect": "count",
        "combine": "geometric_median",
    },
}
"""What each row is at its defaults; TGMD's and DGMLA's drop rates and epsilons too."""

SEEDED = ["dare", "drop", "tsd", "della", "tgmd", "dgmla"]


def seeded(method_id: str) -> dict[str, Any]:
    return {"seed": SEED} if method_id in SEEDED else {}


def choices(**names: str) -> dict[str, float]:
    """Names of choices as the numbers that methods get."""
    found = {}
    for name, text in names.items():
        spec = stack.param(name)
        assert spec is not None
        value = spec.value_of(text)
        assert value is not None
        found[name] = value
    return found


def close(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    tolerance = 1e-11 if dtype is torch.float64 else 2e-5
    size = max(float(wanted.abs().max()), 1e-30) if wanted.numel() else 1.0
    torch.testing.assert_close(
        found.double(), wanted, rtol=tolerance, atol=tolerance * size
    )


@pytest.mark.parametrize("method_id", ROWS)
@pytest.mark.parametrize("n_models", [1, 2, 7])
@pytest.mark.parametrize("shape", [(7,), (5, 3, 3, 4)], ids=str)
def test_rows_are_the_reference_at_their_defaults(
    method_id: str, n_models: int, shape: tuple[int, ...]
) -> None:
    pool = deltas(n_models, shape)
    wanted = reference(pool, **ROWS[method_id])
    found = merged(method_id, pool, **seeded(method_id))
    close(found, wanted, torch.float64)
    assert (
        n_models == 1 or method_id in ("dare", "breadcrumbs") or found.abs().max() > 0
    )


@pytest.mark.parametrize("method_id", ROWS)
def test_rows_in_float32_are_close_to_the_reference(method_id: str) -> None:
    pool = deltas(5, (40, 30))
    wanted = reference(pool, **ROWS[method_id])
    narrow = [delta.float() for delta in pool]
    close(merged(method_id, narrow, **seeded(method_id)), wanted, torch.float32)


@pytest.mark.parametrize("method_id", ["tsd", "ties", "della", "breadcrumbs", "tgmd"])
def test_rows_are_the_reference_on_tensors_of_several_runs(method_id: str) -> None:
    # Runs are of 2^17 values; above 2^15, magnitudes are counted instead of sorted.
    pool = deltas(3, (140_000,))
    wanted = reference(pool, **ROWS[method_id])
    close(merged(method_id, pool, **seeded(method_id)), wanted, torch.float64)


@pytest.mark.parametrize("drop", ["none", "random", "magnitude"])
@pytest.mark.parametrize("trim", ["none", "top", "breadcrumbs"])
@pytest.mark.parametrize("elect", ["none", "count", "magnitude"])
@pytest.mark.parametrize(
    "combine", ["sum", "mean", DISJOINT, "geometric_median", "model_stock"]
)
def test_stack_joins_any_parts_as_the_reference_does(
    drop: str, trim: str, elect: str, combine: str
) -> None:
    numbers = {
        "drop_rate": 0.3,
        "epsilon": 0.2,
        "rescale": 0.7,
        "density": 0.6,
        "outliers": 0.05,
        "lam": 0.8,
    }
    pool = deltas(4, (13, 11))
    parts = {"drop": drop, "trim": trim, "elect": elect, "combine": combine}
    is_mean = combine in ("sum", "mean", DISJOINT)
    weight = {"weight": (1.0, 0.5, 2.0, 0.0)} if is_mean else {}
    wanted = reference(pool, **parts, **numbers, **weight)
    found = merged("stack", pool, **choices(**parts), **numbers, **weight, seed=SEED)
    close(found, wanted, torch.float64)


@pytest.mark.parametrize("drop_rate", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("epsilon", [-1.0, -0.3, 0.0, 1.0])
@pytest.mark.parametrize("rescale", [0.0, 1.0])
def test_della_is_the_reference_where_keep_rates_reach_their_ends(
    drop_rate: float, epsilon: float, rescale: float
) -> None:
    pool = deltas(3, (31, 9))
    numbers = {"drop_rate": drop_rate, "epsilon": epsilon, "rescale": rescale}
    wanted = reference(pool, **ROWS["della"] | numbers)
    close(merged("della", pool, **numbers, seed=SEED), wanted, torch.float64)


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weight", [(1.0,) * 4, (2.0,) * 4, (0.5, 3.0, 0.0, 1e-3)])
def test_ties_is_the_reference_for_any_weights(
    density: float, weight: tuple[float, ...]
) -> None:
    pool = deltas(4, (17, 6))
    wanted = reference(pool, **ROWS["ties"] | {"density": density, "weight": weight})
    found = merged("ties", pool, density=density, weight=weight)
    close(found, wanted, torch.float64)


@pytest.mark.parametrize("drop", ["random", "magnitude"])
@pytest.mark.parametrize("eps", [1e-3, 0.05, 10.0])
def test_least_distance_of_the_median_is_one_of_rescaled_points(
    drop: str, eps: float
) -> None:
    numbers = {"drop_rate": 0.8, "epsilon": 0.2, "rescale": 1.0, "eps": eps}
    parts = {"drop": drop, "combine": "geometric_median"}
    pool = deltas(5, (150,))
    wanted = reference(pool, **parts, **numbers)
    found = merged("stack", pool, **choices(**parts), **numbers, seed=SEED)
    close(found, wanted, torch.float64)


def sce_reference(pool: list[Tensor], density: float) -> Tensor:
    points = np.array([delta.numpy().reshape(-1) for delta in pool])
    spread = points.var(axis=0) * len(points)
    n_dropped = int(points.shape[1] * (1 - density) + 1e-9)
    least = np.sort(spread)[max(n_dropped, 1) - 1]
    points = np.where(spread >= least * (1 - 1e-9), points, 0.0)
    energies: Array = (points**2).sum(axis=1)[:, None]
    agrees = np.sign(points) == np.sign(points.sum(axis=0))
    weights = energies * agrees * (points != 0.0)
    total = weights.sum(axis=0)
    values = (weights * points).sum(axis=0) / np.where(total > 0.0, total, 1.0)
    return torch.from_numpy(values).reshape(pool[0].shape)


@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("n_models", [2, 5])
@pytest.mark.parametrize("shape", [(12, 7), (40_000,)], ids=str)
def test_sce_is_the_reference(
    density: float, n_models: int, shape: tuple[int, ...]
) -> None:
    pool = deltas(n_models, shape)
    found = merged("sce", pool, density=density)
    close(found, sce_reference(pool, density), torch.float64)


CUT_PARAMS: list[dict[str, Any]] = [
    {"drop": Drop.RANDOM, "elect": Elect.COUNT, "combine": Combine.DISJOINT_MEAN},
    {"drop": Drop.MAGNITUDE, "rescale": 0.7, "trim": Trim.TOP, "combine": Combine.MEAN},
    {"trim": Trim.BREADCRUMBS, "elect": Elect.MAGNITUDE, "combine": Combine.MEDIAN},
    {"drop": Drop.RANDOM, "elect": Elect.COUNT, "combine": Combine.MODEL_STOCK},
    {"drop": Drop.MAGNITUDE, "elect": Elect.COUNT, "combine": Combine.KARCHER},
]


@pytest.mark.parametrize("params", CUT_PARAMS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_stack_in_parts_gives_the_bits_of_the_whole(
    params: dict[str, Any], dtype: torch.dtype
) -> None:
    weight = tuple(0.3 + 0.1 * i for i in range(4))
    pool = [delta.to(dtype) for delta in deltas(4, (36_011,))]
    given_ = {spec.name: spec.default for spec in stack.params}
    base = torch.zeros_like(pool[0])
    whole = Whole(stack, [base, *pool], given_ | params | {"weight": weight})
    wanted = whole.merged(36_011)
    assert wanted.abs().max() > 0
    for n_values in (997, 4096, 32_640):
        assert torch.equal(whole.merged(n_values), wanted)


def test_pools_are_walked_once_and_let_go() -> None:
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = 0

    def pool() -> Iterator[Tensor]:
        nonlocal most
        for i in range(20):
            delta = torch.full((100,), float(i))
            alive.add(delta)
            most = max(most, len(alive))
            yield delta
            del delta

    place = Place(KEY, (100,), 0, tuple(range(20)))
    found = tsd(pool(), drop_rate=0.0, place=place)
    assert found.tolist() == [10.0] * 100  # The mean of 1 to 19: 0 abstains.
    assert most <= 3


@pytest.mark.parametrize("elect", list(Elect))
def test_both_ways_to_elect_agree(elect: Elect) -> None:
    pool = deltas(6, (500,))
    kept = elected(pool, elect)
    for is_disjoint in (False, True):
        sums = Consensus(elect, is_disjoint=is_disjoint)
        plain = Consensus(Elect.NONE, is_disjoint=is_disjoint)
        for values, elected_values in zip(pool, kept, strict=True):
            sums.add(values)
            plain.add(elected_values)
        torch.testing.assert_close(sums.merged(), plain.merged(), rtol=1e-14, atol=0)


def test_an_election_without_models_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one model"):
        Consensus(Elect.COUNT, is_disjoint=True).merged()
