"""Merge methods agree with sd-mecha's and mergekit's where those are right."""

from __future__ import annotations

import pytest
import torch

from lib_merge.methods._ops.draws import drop_limits
from lib_merge.methods._ops.sparsify import rank_tables
from tests.methods.peers import (
    SEED,
    SHAPES,
    assert_same,
    deltas,
    kit,
    masks,
    mecha,
    mecha_linear,
    ours,
    pool,
    with_masks,
)

ALPHAS = [0.0, 0.3, 0.5, 1.0]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
alphas = pytest.mark.parametrize("alpha", ALPHAS, ids=str)
FULL = 128
"""Values of a tensor in which densities of n/128 are exact."""


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


# Two or three models, element by element


@shapes
@alphas
def test_weighted_sum_agrees_with_sd_mecha(shape: tuple[int, ...], alpha: float):
    a, b = pool(1, shape)
    theirs = mecha_linear("weighted_sum", a, b, alpha=number(alpha))
    assert_same(ours("weighted_sum", [a, b], alpha=alpha), theirs)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_uniform_soup_agrees_with_both(n: int):
    models = pool(n)[1:]
    merged = ours("uniform_soup", models)
    assert_same(merged, mecha_linear("n_average", *models))
    assert_same(merged, kit("linear", models, base=None, weight=1.0))


def test_weighted_mean_agrees_with_mergekit():
    models, weight = pool(4)[1:], (0.5, 0.0, 2.0, 1.25)
    theirs = kit("linear", models, base=None, weight=list(weight))
    assert_same(ours("weighted_mean", models, weight=weight), theirs)


@alphas
def test_add_difference_agrees_with_sd_mecha(alpha: float):
    c, a, b = pool(2)
    theirs = mecha_linear("add_difference", a, b - c, alpha=number(alpha))
    assert_same(ours("add_difference", [a, b, c], alpha=alpha), theirs)


@alphas
def test_amplify_difference_agrees_with_sd_mecha(alpha: float):
    base, b = pool(1)
    theirs = base + mecha_linear("scale", b - base, alpha=number(alpha))
    assert_same(ours("amplify_difference", [base, b], alpha=alpha), theirs)


@shapes
@pytest.mark.parametrize(
    "name", ["train_difference", "add_opposite", "add_strict_opposite"]
)
def test_masked_add_difference_agrees_with_sd_mecha(name: str, shape: tuple[int, ...]):
    c, a, b = pool(2, shape)
    mask = getattr(mecha("linear"), f"{name}_mask").__wrapped__
    theirs = a + mask(a, b, c, alpha=number(0.7)) * (b - c)
    assert_same(ours(name, [a, b, c], alpha=0.7), theirs)


def test_clamp_to_range_agrees_with_sd_mecha():
    a, *bounds = pool(3)
    theirs = mecha("limiting").clamp.__wrapped__(a, *bounds)
    assert_same(ours("clamp_to_range", [a, *bounds]), theirs)


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.25), (0.25, 0.0), (0.5, 0.75)])
def test_tensor_sum_agrees_with_sd_mecha_at_whole_rows(alpha: float, beta: float):
    a, b = pool(1, (8, 5))
    # The peer writes into its inputs.
    theirs = mecha("slicing").tensor_sum.__wrapped__(
        a.clone(), b.clone(), width=alpha, offset=beta
    )
    assert_same(ours("tensor_sum", [a, b], alpha=alpha, beta=beta), theirs)


@shapes
@alphas
def test_cosine_b_without_stretch_agrees_with_sd_mecha(
    shape: tuple[int, ...], alpha: float
):
    a, b = pool(1, shape)
    theirs = mecha("cosine").add_cosine_b.__wrapped__(a, b, alpha=number(alpha))
    assert_same(ours("cosine_b", [a, b], alpha=alpha, stretch=0.0), theirs)


# Geometry of whole tensors


@shapes
@alphas
def test_slerp_agrees_with_sd_mecha(shape: tuple[int, ...], alpha: float):
    a, b = pool(1, shape)
    theirs = mecha("linear").slerp.__wrapped__(a, b, alpha=number(alpha))
    assert_same(ours("slerp", [a, b], alpha=alpha), theirs, rtol=1e-10)


@alphas
def test_slerp_agrees_with_mergekit_on_equal_lengths_at_wide_angles(alpha: float):
    a, b = torch.eye(2, 40, dtype=torch.float64)
    b = (a + 2.0 * b) / 5.0**0.5
    theirs = kit("slerp", [a, b], t=alpha)
    assert_same(ours("slerp", [a, b], alpha=alpha), theirs)


@shapes
@pytest.mark.parametrize("rows", [0.0, 1.0], ids=["whole", "rows"])
def test_nuslerp_agrees_with_mergekit(shape: tuple[int, ...], rows: float):
    tensors = pool(2, shape)
    # Its "row wise" is along the first axis; without it and flatten, the last.
    theirs = kit(
        "nuslerp", tensors, weight=[0.0, 0.7, 0.3][1:], nuslerp_flatten=not rows
    )
    assert_same(ours("nuslerp", tensors, alpha=0.3, rows=rows), theirs)


def test_add_perpendicular_agrees_with_sd_mecha():
    c, a, b = pool(2)
    part = mecha("linear").perpendicular_component.__wrapped__(a - c, b - c)
    assert_same(ours("add_perpendicular", [a, b, c], alpha=0.6), a + 0.6 * part)


@shapes
@pytest.mark.parametrize("n", [2, 3, 6])
def test_karcher_mean_agrees_with_mergekit_run_to_its_end(
    shape: tuple[int, ...], n: int
):
    models = pool(n, shape)[1:]
    theirs = kit("karcher", models, base=None, max_iter=200, tol=1e-13)
    assert_same(ours("karcher_mean", models), theirs, rtol=1e-9)


@shapes
@pytest.mark.parametrize("n", [3, 6])
def test_geometric_median_agrees_with_sd_mecha(shape: tuple[int, ...], n: int):
    models = pool(n, shape)[1:]
    theirs = mecha("ties").geometric_median.__wrapped__(*models)
    assert_same(ours("geometric_median", models), theirs, rtol=1e-8)


@shapes
@pytest.mark.parametrize("n", [2, 5])
def test_model_stock_agrees_with_mergekit(shape: tuple[int, ...], n: int):
    tensors = pool(n, shape)
    common = 0.05 * torch.ones(shape, dtype=torch.float64)
    tensors[1:] = [theta + common for theta in tensors[1:]]
    theirs = kit("model_stock", tensors)
    assert_same(ours("model_stock", tensors, clamp=0.0), theirs)


@shapes
@pytest.mark.parametrize("n", [2, 5])
def test_model_stock_consecutive_agrees_with_sd_mecha(shape: tuple[int, ...], n: int):
    tensors = pool(n, shape)
    theirs = tensors[0] + mecha("ties").model_stock.__wrapped__(*deltas(tensors))
    merged = ours("model_stock_consecutive", tensors, clamp=0.0)
    assert_same(merged, theirs, rtol=1e-10)


@pytest.mark.parametrize("rank", [0, 1, 5, 12])
def test_truncate_rank_agrees_with_sd_mecha_without_its_random_basis(rank: int):
    base, model = pool(1)
    theirs = mecha("svd").truncate_rank.__wrapped__(
        model - base, rank=rank, use_approximate_basis=False
    )
    assert_same(ours("truncate_rank", [base, model], rank=rank), base + theirs)


# Pools: task arithmetic, TIES and what follows from it


def test_task_arithmetic_agrees_with_mergekit():
    tensors, weight = pool(3), (0.5, -1.0, 2.0)
    theirs = kit("task_arithmetic", tensors, weight=list(weight), lam=0.7)
    assert_same(ours("task_arithmetic", tensors, weight=weight, lam=0.7), theirs)


@shapes
@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_ties_agrees_with_sd_mecha(shape: tuple[int, ...], density: float):
    tensors = pool(5, shape)
    # vote_sgn=True elects by magnitude in the releases of 2025 and 2026.
    theirs = mecha("ties").ties_sum.__wrapped__(
        *deltas(tensors), k=density, vote_sgn=True
    )
    assert_same(ours("ties", tensors, density=density), tensors[0] + theirs)


@pytest.mark.parametrize("n_kept", [1, 32, 127])
def test_ties_agrees_with_mergekit_of_the_same_number_of_values(n_kept: int):
    tensors = pool(5, (FULL,))
    # Ours keeps what equals the threshold: one value more at the same density.
    theirs = kit("ties", tensors, weight=1.0, density=n_kept / FULL)
    merged = ours("ties", tensors, density=(n_kept - 1) / FULL)
    assert_same(merged, theirs)


@shapes
@pytest.mark.parametrize("n", [2, 3, 8])
def test_ties_soup_agrees_with_sd_mecha(shape: tuple[int, ...], n: int):
    tensors = pool(n, shape)
    theirs = mecha("ties").ties_sum.__wrapped__(*deltas(tensors), k=1.0)
    assert_same(ours("ties_soup", tensors), tensors[0] + theirs)


@shapes
@pytest.mark.parametrize("name", ["tsd", "tgmd"])
def test_tsd_and_tgmd_agree_with_sd_mecha_given_the_same_masks(
    name: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
):
    tensors = pool(7, shape)
    with_masks(monkeypatch, masks(7, shape, 0.1))
    theirs = mecha("ties").ties_sum_with_dropout.__wrapped__(
        *deltas(tensors),
        probability=0.1,
        rescale=False,
        k=1.0,
        apply_stock=True,  # inverted: this leaves Model Stock out
        apply_median=name == "tgmd",
    )
    merged = ours(name, tensors, drop_rate=0.1, seed=SEED)
    assert_same(merged, tensors[0] + theirs, rtol=1e-8)


def test_dgmla_draws_with_the_keep_probabilities_of_sd_mecha(
    monkeypatch: pytest.MonkeyPatch,
):
    delta = torch.randn(4096, dtype=torch.float64)
    asked = with_masks(monkeypatch, [torch.ones(4096, dtype=torch.float64)])
    mecha("ties").find_della_dropout(delta, number(0.1), -0.1, torch.Generator())
    (table,) = rank_tables([[delta]], drop_rate=0.1, epsilon=-0.1, rescale=0.0)
    (theirs,) = asked
    # Magnitudes within 1/256 of each other share a mean rank here.
    bins = (delta.float().view(torch.int32) & 0x7FFFFFFF) >> 15
    limits = table.limits[(bins - table.offset).clamp_min(0).long()]
    expected = drop_limits(1.0 - theirs)
    assert (limits.double() - expected.double()).abs().max() / 2**31 < 0.002
    mean_error = (limits.double() - expected.double()).mean() / 2**31
    assert abs(mean_error.item()) < 1e-7


@shapes
def test_drop_agrees_with_sd_mecha_given_the_same_masks(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
):
    tensors, drawn = pool(3, shape), masks(3, shape, 0.4)
    ties = mecha("ties")

    class Drawn:
        def __init__(self, seed: int | None) -> None:
            self.turns = iter(drawn)

        def binomial(self, **_: object) -> object:
            return next(self.turns).numpy()

    monkeypatch.setattr(ties.np.random, "default_rng", Drawn)
    theirs = ties.dropout.__wrapped__(*deltas(tensors), probability=0.4, rescale=0.0)
    merged = ours("drop", tensors, drop_rate=0.4, seed=SEED)
    assert_same(merged, tensors[0] + theirs)


@shapes
def test_dare_agrees_with_mergekit_without_rescaling_given_the_same_masks(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
):
    tensors = pool(4, shape)
    asked = with_masks(monkeypatch, masks(4, shape, 0.25))
    theirs = kit("dare_linear", tensors, weight=0.25, density=0.75, rescale=False)
    merged = ours("dare", tensors, drop_rate=0.25, rescale=0.0, seed=SEED)
    # It sparsifies in float32.
    assert_same(merged, theirs, rtol=1e-6)
    assert all(bool((p == 0.75).all()) for p in asked)


def test_drop_and_elect_agrees_with_mergekit_dare_ties_given_the_same_masks(
    monkeypatch: pytest.MonkeyPatch,
):
    tensors = pool(4)
    with_masks(monkeypatch, masks(4, (12, 33), 0.25))
    theirs = kit(
        "dare_ties", tensors, weight=1.0, density=0.75, rescale=False, normalize=True
    )
    merged = ours(
        "stack",
        tensors,
        drop=1.0,
        drop_rate=0.25,
        elect=2.0,
        combine=2.0,
        seed=SEED,
    )
    assert_same(merged, theirs, rtol=1e-6)


@pytest.mark.parametrize(("n_kept", "n_outliers"), [(32, 8), (64, 1), (16, 0)], ids=str)
def test_breadcrumbs_agrees_with_mergekit_of_the_same_number_of_values(
    n_kept: int, n_outliers: int
):
    tensors = pool(3, (FULL,))
    # At a6e4028 it zeroed everything where there is no outlier to drop (sparsify.py,
    # line 113, `indices[n_bot:-n_top]`); release 0.1.5 does not.
    theirs = kit(
        "breadcrumbs",
        tensors,
        weight=[1.0, 0.5, 2.0],
        density=n_kept / FULL,
        gamma=n_outliers / FULL,
    )
    merged = ours(
        "breadcrumbs",
        tensors,
        weight=(1.0, 0.5, 2.0),
        density=(n_kept - 1) / FULL,
        outliers=n_outliers / FULL,
        lam=1.0,
    )
    assert_same(merged, theirs)


def test_della_draws_with_the_keep_probabilities_of_mergekit(
    monkeypatch: pytest.MonkeyPatch,
):
    n = 4096
    base, model = pool(1, (n,))
    asked = with_masks(monkeypatch, [torch.ones(n, dtype=torch.float64)])
    kit("della", [base, model], weight=1.0, density=0.7, epsilon=0.07)
    (theirs,) = asked
    # Its epsilon is the distance from the middle, ours from end to end.
    delta = model - base
    (table,) = rank_tables(
        [[delta]], drop_rate=0.3, epsilon=0.14 * n / (n - 1), rescale=0.0
    )
    bins = (delta.float().view(torch.int32) & 0x7FFFFFFF) >> 15
    limits = table.limits[(bins - table.offset).clamp_min(0).long()]
    expected = drop_limits(1.0 - theirs.reshape(-1).double())
    assert (limits.double() - expected.double()).abs().max() / 2**31 < 0.002


@pytest.mark.parametrize("n_kept", [16, 64, FULL])
def test_sce_agrees_with_mergekit_of_the_same_number_of_values(n_kept: int):
    tensors = pool(4, (FULL,))
    theirs = kit("sce", tensors, select_topk=n_kept / FULL)
    density = 1.0 if n_kept == FULL else (n_kept - 1) / FULL
    assert_same(ours("sce", tensors, density=density), theirs)
