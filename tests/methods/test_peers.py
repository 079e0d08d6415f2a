"""Methods of few models and whole tensors agree with sd-mecha's and mergekit's."""

from __future__ import annotations

import pytest
import torch

from tests.methods.peers import (
    KEY,
    SHAPES,
    assert_same,
    deltas,
    kit,
    mecha,
    mecha_linear,
    ours,
    pool,
)

ALPHAS = [0.0, 0.3, 0.5, 1.0]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
alphas = pytest.mark.parametrize("alpha", ALPHAS, ids=str)


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


@pytest.mark.parametrize("shape", [(40, 6), (7, 5, 3, 3)], ids=str)
@pytest.mark.parametrize("alignment", [0.4, 1.0], ids=str)
@pytest.mark.parametrize("alpha", [0.0, 0.3], ids=str)
@pytest.mark.parametrize("centralization", [0.0, 1.0], ids=str)
@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_rotate_agrees_with_sd_mecha_on_tall_matrices(
    shape: tuple[int, ...], alignment: float, alpha: float, centralization: float
):
    a, b = pool(1, shape)
    params = {"alignment": alignment, "centralization": centralization}
    rotated = mecha("svd").rotate.__wrapped__
    theirs = rotated({KEY: a}, {KEY: b}, alpha=number(alpha), key=KEY, **params)
    assert_same(ours("rotate", [a, b], alpha=alpha, **params), theirs, rtol=1e-9)


@shapes
@pytest.mark.parametrize("tilt", [0.0, 0.4, 1.0, 1.7], ids=str)
@pytest.mark.parametrize("alpha", [0.3, 0.7], ids=str)
def test_crossover_agrees_with_sd_mecha(
    shape: tuple[int, ...], tilt: float, alpha: float
):
    a, b = pool(1, shape)
    theirs = mecha("crossover").crossover.__wrapped__(a, b, alpha=alpha, tilt=tilt)
    # Its filter is float32.
    merged = ours("crossover", [a, b], alpha=alpha, tilt=tilt)
    assert_same(merged, theirs, rtol=1e-6)


@shapes
@pytest.mark.parametrize("alpha", [0.25, 0.5, 1.0], ids=str)
def test_top_k_tensor_sum_agrees_with_sd_mecha_from_the_smallest(
    shape: tuple[int, ...], alpha: float
):
    a, b = pool(1, shape)
    theirs = mecha("slicing").top_k_tensor_sum.__wrapped__(a, b, width=alpha)
    assert_same(ours("top_k_tensor_sum", [a, b], alpha=alpha), theirs)
