"""Methods of pools agree with sd-mecha's and mergekit's, given the same masks."""

from __future__ import annotations

import pytest
import torch

from tests.methods.peers import (
    SEED,
    SHAPES,
    assert_same,
    deltas,
    kit,
    masks,
    mecha,
    ours,
    pool,
    with_masks,
)

shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
FULL = 128
"""Values of a tensor in which densities of n/128 are exact."""


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
    base, model = pool(1, (4096,))
    asked = with_masks(monkeypatch, [torch.ones(4096, dtype=torch.float64)])
    find = mecha("ties").find_della_dropout
    find(model - base, torch.tensor(0.1), -0.1, torch.Generator())
    assert_keep_probabilities(asked[0], base, model, drop_rate=0.1, epsilon=-0.1)


def assert_keep_probabilities(
    theirs: torch.Tensor, base: torch.Tensor, model: torch.Tensor, **params: float
) -> None:
    """Ours are seen where a value is kept, as what it was divided by.

    They may differ a little: here magnitudes within 1/256 share a mean rank.
    """
    merged = ours("stack", [base, model], drop=2.0, rescale=1.0, seed=SEED, **params)
    is_kept = merged != base
    assert is_kept.double().mean() > 0.5
    keep = ((model - base) / (merged - base))[is_kept]
    error = keep - theirs.reshape(-1).double()[is_kept]
    assert error.abs().max() < 0.01 * abs(params["epsilon"])
    assert theirs.max() - theirs.min() > 0.9 * abs(params["epsilon"])


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
    # Its epsilon is the distance from the middle, ours from end to end.
    epsilon = 0.14 * n / (n - 1)
    assert_keep_probabilities(asked[0], base, model, drop_rate=0.3, epsilon=epsilon)


@pytest.mark.parametrize("n_kept", [16, 64, FULL])
def test_sce_agrees_with_mergekit_of_the_same_number_of_values(n_kept: int):
    tensors = pool(4, (FULL,))
    theirs = kit("sce", tensors, select_topk=n_kept / FULL)
    density = 1.0 if n_kept == FULL else (n_kept - 1) / FULL
    assert_same(ours("sce", tensors, density=density), theirs)
