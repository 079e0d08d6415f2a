"""Laws of the stack's rows and of SCE, and what degenerates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib_merge.methods import methods
from lib_merge.methods._ops.stack import Combine
from lib_merge.methods.breadcrumbs import breadcrumbs
from lib_merge.methods.sce import sce
from lib_merge.methods.ties import ties
from tests.methods.stack_reference import SEED, deltas, merged

SEEDED = ["dare", "drop", "tsd", "della", "tgmd", "dgmla"]
SEEDLESS = ["task_arithmetic", "ties", "ties_soup", "breadcrumbs", "sce"]
ALL = [*SEEDED, *SEEDLESS, "stack"]


def seeded(method_id: str) -> dict[str, Any]:
    return {"seed": SEED} if method_id in [*SEEDED, "stack"] else {}


integers = st.lists(st.integers(-6, 6), min_size=6, max_size=6)
pools = st.lists(integers, min_size=1, max_size=6)


def tensors(rows: list[list[int]], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.tensor(values, dtype=dtype) for values in rows]


@pytest.mark.parametrize("method_id", SEEDLESS)
@given(rows=pools, data=st.data())
@settings(deadline=None, max_examples=25)
def test_order_of_the_models_does_not_matter(
    method_id: str, rows: list[list[int]], data: st.DataObject
) -> None:
    # Variances round, so that what is selected among equal ones may change with order.
    params = {"density": 1.0} if method_id == "sce" else {}
    turned = data.draw(st.permutations(rows))
    found = merged(method_id, tensors(rows), **params)
    other = merged(method_id, tensors(turned), **params)
    torch.testing.assert_close(found, other, rtol=1e-12, atol=1e-12)


def test_order_of_the_models_does_not_matter_to_a_selection_by_variance() -> None:
    pool = deltas(5, (400,))
    found = merged("sce", pool, density=0.3)
    torch.testing.assert_close(merged("sce", pool[::-1], density=0.3), found)


@pytest.mark.parametrize("method_id", [m for m in ALL if m not in ("tgmd", "dgmla")])
@given(rows=pools, exponent=st.integers(-20, 20))
@settings(deadline=None, max_examples=15)
def test_deltas_times_a_power_of_two_give_the_same_bits_times_it(
    method_id: str, rows: list[list[int]], exponent: int
) -> None:
    pool = tensors(rows, torch.float32)
    scaled = [delta * 2.0**exponent for delta in pool]
    params = seeded(method_id)
    found = merged(method_id, scaled, **params)
    assert torch.equal(found, merged(method_id, pool, **params) * 2.0**exponent)


@pytest.mark.parametrize("method_id", ["tgmd", "dgmla"])
@pytest.mark.parametrize("exponent", [-4, 10])
def test_medians_of_scaled_deltas_scale(method_id: str, exponent: int) -> None:
    pool = deltas(4, (50,))
    scaled = [delta * 2.0**exponent for delta in pool]
    found = merged(method_id, scaled, seed=SEED)
    wanted = merged(method_id, pool, seed=SEED) * 2.0**exponent
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("method_id", ALL)
@given(rows=pools)
@settings(deadline=None, max_examples=15)
def test_opposite_deltas_give_the_opposite(
    method_id: str, rows: list[list[int]]
) -> None:
    pool = tensors(rows)
    params = seeded(method_id)
    found = merged(method_id, [-delta for delta in pool], **params)
    assert torch.equal(found, -merged(method_id, pool, **params))


@pytest.mark.parametrize("method_id", ["ties", "ties_soup", "tsd", "della", "drop"])
@given(rows=pools)
@settings(deadline=None, max_examples=15)
def test_means_of_what_agrees_lie_among_the_deltas(
    method_id: str, rows: list[list[int]]
) -> None:
    pool = tensors(rows)
    params = {"rescale": 0.0} if method_id == "della" else {}
    found = merged(method_id, pool, **params, **seeded(method_id))
    both = torch.stack([*pool, torch.zeros_like(pool[0])])
    slack = 1e-12 * both.abs().amax(dim=0)
    assert (found <= both.amax(dim=0) + slack).all()
    assert (found >= both.amin(dim=0) - slack).all()


@pytest.mark.parametrize("method_id", ALL)
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (1, 1)], ids=str)
@pytest.mark.parametrize("n_models", [1, 2])
def test_small_tensors_keep_their_shape(
    method_id: str, shape: tuple[int, ...], n_models: int
) -> None:
    pool = [torch.full(shape, 0.5) for _ in range(n_models)]
    found = merged(method_id, pool, **seeded(method_id))
    assert found.shape == shape
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("method_id", ["ties", "ties_soup", "sce", "stack"])
@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_one_element_comes_back(method_id: str, shape: tuple[int, ...]) -> None:
    assert merged(method_id, [torch.full(shape, 0.5)] * 3).item() == 0.5


NO_DROP = {"drop_rate": 0.0}


@pytest.mark.parametrize(
    ("method_id", "params"),
    [
        ("ties", {"density": 1.0}),
        ("ties_soup", {}),
        ("dare", NO_DROP),
        ("drop", NO_DROP),
        ("tsd", NO_DROP),
        ("della", {**NO_DROP, "epsilon": 0.0}),
        ("tgmd", NO_DROP),
        ("dgmla", {**NO_DROP, "epsilon": 0.0}),
        ("sce", {}),
        ("stack", {}),
        ("stack", {"combine": Combine.MODEL_STOCK}),
        ("stack", {"combine": Combine.KARCHER}),
    ],
)
@pytest.mark.parametrize("n_models", [1, 2, 7])
def test_equal_models_give_that_model(
    method_id: str, params: dict[str, float], n_models: int
) -> None:
    (delta,) = deltas(1, (37,))
    found = merged(method_id, [delta.clone() for _ in range(n_models)], **params)
    torch.testing.assert_close(found, delta, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    "method_id", ["task_arithmetic", "ties", "ties_soup", "breadcrumbs", "sce", "stack"]
)
def test_an_opposite_pair_gives_the_base_exactly(method_id: str) -> None:
    (delta,) = deltas(1, (300,))
    found = merged(method_id, [delta, -delta])
    assert torch.equal(found, torch.zeros_like(delta))


def test_of_an_opposite_pair_the_median_halves_what_one_keeps() -> None:
    (delta,) = deltas(1, (4000,))
    params = {"drop_rate": 0.3, "seed": SEED}
    one_sided = merged("tsd", [delta, -delta], **params)
    assert 0 < (one_sided != 0).double().mean() < 0.5
    found = merged("tgmd", [delta, -delta], **params)
    torch.testing.assert_close(found, one_sided / 2, rtol=1e-12, atol=0)


@pytest.mark.parametrize("method_id", ["ties", "ties_soup", "drop", "tsd", "della"])
def test_the_base_in_the_pool_neither_votes_nor_counts(method_id: str) -> None:
    pool = deltas(3, (300,))
    with_base = [*pool, torch.zeros_like(pool[0])]
    params = seeded(method_id)
    found = merged(method_id, with_base, **params)
    assert torch.equal(found, merged(method_id, pool, **params))


@pytest.mark.parametrize("method_id", ["dare", "tgmd", "dgmla"])
def test_the_base_in_the_pool_counts_as_a_model_or_point(method_id: str) -> None:
    pool = deltas(3, (300,))
    with_base = [*pool, torch.zeros_like(pool[0])]
    params = seeded(method_id)
    found = merged(method_id, with_base, **params)
    assert found.norm() < 0.99 * merged(method_id, pool, **params).norm()


@pytest.mark.parametrize("method_id", ["dare", "drop", "tsd", "tgmd"])
def test_dropping_all_gives_the_base_and_none_needs_no_seed(method_id: str) -> None:
    pool = deltas(3, (100,))
    assert not merged(method_id, pool, drop_rate=1.0).any()
    found = [merged(method_id, pool, drop_rate=0.0, seed=s) for s in (0, 1)]
    assert torch.equal(*found)


def test_tsd_without_a_drop_is_ties_soup() -> None:
    pool = deltas(5, (300,))
    found = merged("tsd", pool, drop_rate=0.0)
    assert torch.equal(found, merged("ties_soup", pool))


def test_dgmla_without_epsilon_is_tgmd() -> None:
    pool = deltas(5, (300,))
    found = merged("dgmla", pool, epsilon=0.0, seed=SEED)
    assert torch.equal(found, merged("tgmd", pool, seed=SEED))


@pytest.mark.parametrize("method", [ties, breadcrumbs, sce], ids=lambda m: m.id)
def test_density_zero_keeps_the_largest_alone(method: Any) -> None:
    delta = torch.tensor([1.0, -5.0, 3.0, 2.0])
    pool = [delta, torch.zeros(4)] if method is sce else [delta]
    found = merged(method.id, pool, density=0.0, lam=1.0)
    assert found.tolist() == [0.0, -5.0, 0.0, 0.0]


@pytest.mark.parametrize("method_id", ALL)
def test_lam_zero_gives_the_base(method_id: str) -> None:
    assert not merged(method_id, deltas(3, (50,)), lam=0.0).any()


def test_rows_that_measure_nothing_do_not_hold_tensors_up() -> None:
    needless = ["task_arithmetic", "ties_soup", "dare", "drop", "tsd"]
    assert all(methods().get(method_id).measure is None for method_id in needless)
