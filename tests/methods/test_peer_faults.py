"""Where sd-mecha and mergekit compute something else than they say, and we do not.

Each test shows a fault of a peer and what MergeLab gives instead. A test that fails
after an update of a peer says that the fault is gone: turn it into an agreement.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.methods.peers import (
    KEY,
    SEED,
    assert_same,
    deltas,
    kit,
    masks,
    mecha,
    ours,
    pool,
    with_masks,
)


def differs(a: Tensor, b: Tensor, *, by: float = 1e-3) -> bool:
    return bool((a - b).abs().max() > by)


def with_deltas(*rows: list[float]) -> list[Tensor]:
    """A base of zeros and models."""
    models = [torch.tensor(row, dtype=torch.float64) for row in rows]
    return [torch.zeros_like(models[0]), *models]


# sd-mecha, as of release 1.1.8: ties.py is that of commit b8d4d88


def test_sd_mecha_votes_by_sign_where_it_says_by_magnitude():
    # sd_mecha/extensions/builtin/merge_methods/ties.py line 120 at b8d4d88 sums the
    # deltas if vote_sgn, else the signs; wrappers.py lines 68 and 230 say that
    # vote_sgn > 0 is the special mode, TIES-SOUP, which counts signs.
    tensors = with_deltas([3.0], [-1.0], [-1.0])
    ties = mecha("ties").ties_sum.__wrapped__
    by_default = ties(*deltas(tensors), k=1.0)
    asked_for_signs = ties(*deltas(tensors), k=1.0, vote_sgn=True)
    assert by_default.tolist() == [-1.0] == ours("ties_soup", tensors).tolist()
    assert asked_for_signs.tolist() == [3.0]
    assert ours("ties", tensors, density=1.0).tolist() == [3.0]


def test_sd_mecha_applies_model_stock_where_it_is_not_asked_for():
    # ties.py line 90 at b8d4d88: t = 1.0 if apply_stock else get_model_stock_t(...).
    tensors = pool(4)
    extended = mecha("ties").ties_sum_extended.__wrapped__
    plain = ours("ties_soup", tensors) - tensors[0]
    asked_for = extended(*deltas(tensors), k=1.0, apply_stock=True)
    not_asked_for = extended(*deltas(tensors), k=1.0, apply_stock=False)
    assert_same(plain, asked_for)
    assert differs(plain, not_asked_for, by=1e-2)
    # One factor a row is between the two.
    factors = not_asked_for / plain
    spread = (factors.amax(dim=1) - factors.amin(dim=1)).nan_to_num()
    assert spread.max() < 1e-9


def test_sd_mecha_model_stock_depends_on_the_order_of_the_models():
    # ties.py lines 151-160 at b8d4d88: cosines of consecutive pairs, along the last
    # axis. Jang et al. 2024 have one angle for all pairs and the whole tensor.
    tensors = pool(4)
    tensors[1:] = [t + 0.05 * i for i, t in enumerate(tensors[1:])]
    turned = [tensors[0], tensors[1], tensors[3], tensors[2], tensors[4]]
    stock = mecha("ties").model_stock.__wrapped__
    assert differs(stock(*deltas(tensors)), stock(*deltas(turned)))
    merged = ours("model_stock", tensors)
    assert_same(merged, ours("model_stock", turned))
    assert differs(merged, tensors[0] + stock(*deltas(tensors)))


def test_sd_mecha_model_stock_goes_beyond_the_base_and_the_mean():
    # ties.py line 162 at b8d4d88: no limit. Two models at 120 degrees: t = -2.
    a, b = [1.0, 0.0], [-0.5, math.sqrt(0.75)]
    tensors = with_deltas(a, b)
    mean = ours("uniform_soup", tensors[1:])
    theirs = mecha("ties").model_stock.__wrapped__(*deltas(tensors))
    assert_same(-2.0 * mean, theirs)
    assert ours("model_stock", tensors).tolist() == [0.0, 0.0]


def test_sd_mecha_trims_its_smallest_value_where_nothing_is_to_be_trimmed():
    # ties.py lines 133-137 at b8d4d88: the threshold is rounded to float32 and then
    # compared with float64 values; rounded up, it is above the value it came from.
    value = 1.0 + 2.0**-30 + 2.0**-24
    tensors = with_deltas([value, 2.0], [value, 2.0])
    theirs = mecha("ties").ties_sum.__wrapped__(*deltas(tensors), k=1.0)
    assert theirs.tolist() == [0.0, 2.0]
    assert ours("ties_soup", tensors).tolist() == [value, 2.0]
    assert ours("ties", tensors, density=1.0).tolist() == [value, 2.0]


def test_sd_mecha_dropout_scales_a_mean_that_needs_no_scaling(
    monkeypatch: pytest.MonkeyPatch,
):
    # ties.py line 241 at b8d4d88: the sum over the kept is divided by how many were
    # kept, and then by 1 - probability too. With equal models the mean is the model.
    base, model = pool(1)
    drawn = masks(3, (12, 33), 0.5)
    generators = iter(drawn)

    class Drawn:
        def __init__(self, seed: int | None) -> None: ...

        def binomial(self, **_: object) -> np.ndarray:
            return next(generators).numpy()

    ties = mecha("ties")
    monkeypatch.setattr(ties.np.random, "default_rng", Drawn)
    tensors = [base, model, model, model]
    theirs = ties.dropout.__wrapped__(*deltas(tensors), probability=0.5)
    is_kept = torch.stack(drawn).sum(dim=0) > 0
    assert_same(2.0 * (model - base)[is_kept], theirs[is_kept])
    merged = ours("drop", tensors, drop_rate=0.5, seed=SEED)
    assert_same(merged[is_kept], model[is_kept])


def test_sd_mecha_strict_opposite_mask_loses_small_differences():
    # linear.py, add_strict_opposite_mask at b8d4d88 squares differences: below 1e-23
    # they vanish in float32, 0/0 counts as 0 and nothing is added.
    c = torch.zeros(1)
    a, b = torch.full((1,), 1e-25), torch.full((1,), -1e-25)
    mask = mecha("linear").add_strict_opposite_mask.__wrapped__(a, b, c, alpha=1.0)
    assert mask.item() == 0.0
    merged = ours("add_strict_opposite", [a, b, c], alpha=1.0)
    torch.testing.assert_close(merged, b, rtol=1e-5, atol=0.0)


def test_sd_mecha_adds_nothing_perpendicular_to_an_unchanged_model():
    # linear.py, perpendicular_component at b8d4d88: 0/0 makes all of it zero.
    c, b = pool(1)
    part = mecha("linear").perpendicular_component.__wrapped__(c - c, b - c)
    assert part.abs().max() == 0.0
    assert_same(ours("add_perpendicular", [c, b, c], alpha=1.0), b)


def test_sd_mecha_tensor_sum_writes_into_its_input():
    # slicing.py, tensor_sum at b8d4d88.
    a, b = pool(1)
    before = a.clone()
    mecha("slicing").tensor_sum.__wrapped__(a, b)
    assert differs(a, before)
    ours("tensor_sum", [before, b])
    assert differs(a, before)


def test_sd_mecha_top_k_tensor_sum_moves_a_value_for_a_share_of_nothing():
    # slicing.py, top_k_tensor_sum at b8d4d88: the lower end belongs to the window, so
    # that adjoining windows share a value.
    a, b = pool(1)
    theirs = mecha("slicing").top_k_tensor_sum.__wrapped__(a, b, width=0.0, offset=0.5)
    assert int((theirs != a).sum()) == 1
    assert torch.equal(ours("top_k_tensor_sum", [a, b], alpha=0.0, beta=0.5), a)


def test_sd_mecha_crossover_jumps_at_tilt_2():
    # crossover.py, create_filter at b8d4d88: below 2 it cuts at alpha, at 2 at
    # 1 - alpha.
    a, b = pool(1)
    crossover = mecha("crossover").crossover.__wrapped__
    near, at = (crossover(a, b, alpha=0.2, tilt=tilt) for tilt in (2.0 - 1e-6, 2.0))
    assert differs(near, at, by=0.05)
    assert_same(ours("crossover", [a, b], alpha=0.2, tilt=2.0), near, rtol=1e-3)
    assert_same(ours("crossover", [a, b], alpha=0.8, tilt=2.0), at, rtol=1e-6)


def test_sd_mecha_rotate_changes_the_length_of_wide_matrices():
    # svd.py, LowRankOrthogonalMatmul at b8d4d88: x - x V V' + x U V' keeps what lies
    # outside of V and adds what comes from U, so that U's part counts twice.
    a, b = pool(1, (4, 30))
    rotate = mecha("svd").rotate.__wrapped__
    theirs = rotate(
        {KEY: a}, {KEY: b}, alpha=torch.tensor(0.0), key=KEY, centralization=0.0
    )
    merged = ours("rotate", [a, b], centralization=0.0)
    assert abs(merged.norm() / a.norm() - 1.0) < 1e-12
    assert abs(theirs.norm() / a.norm() - 1.0) > 1e-4


# mergekit, release 0.1.5 (and commit a6e4028)


def test_mergekit_weights_take_part_in_the_election():
    # mergekit/merge_methods/generalized_task_arithmetic.py, merge_group: deltas are
    # multiplied by their weights before get_mask; issue 474.
    tensors = with_deltas([1.0], [-2.0])
    theirs = kit("ties", tensors, weight=[3.0, 1.0])
    assert theirs.tolist() == [1.0]
    merged = ours("ties", tensors, density=1.0, weight=(3.0, 1.0))
    assert merged.tolist() == [-2.0]


@pytest.mark.parametrize("method", ["ties", "sce"])
def test_mergekit_elects_plus_where_the_vote_is_even(method: str):
    # generalized_task_arithmetic.py, get_mask: `sign_weight >= 0`. So the result
    # depends on which way is called plus, and an opposite pair does not cancel.
    tensors = with_deltas([1.0, 2.0], [-1.0, -2.0])
    params = {"weight": 1.0} if method == "ties" else {}
    assert kit(method, tensors, **params).tolist() == [1.0, 2.0]
    mirrored = [-tensor for tensor in tensors]
    assert kit(method, mirrored, **params).tolist() == [1.0, 2.0]
    assert ours(method, tensors, density=1.0).tolist() == [0.0, 0.0]


def test_mergekit_dare_matches_l1_norms_instead_of_dividing(
    monkeypatch: pytest.MonkeyPatch,
):
    # mergekit/sparsify.py, rescaled_masked_tensor with RescaleNorm.l1. Yu et al. 2024
    # divide by 1 - drop_rate, which keeps every value's expectation.
    base, model = pool(1)
    delta = model - base
    (mask,) = masks(1, (12, 33), 0.5)
    with_masks(monkeypatch, [mask])
    theirs = kit("dare_linear", [base, model], weight=1.0, density=0.5)
    factor = delta.abs().sum() / (delta * mask).abs().sum()
    assert abs(factor.item() - 2.0) > 1e-3
    assert_same(base + factor * delta * mask, theirs, rtol=1e-6)
    merged = ours("dare", [base, model], drop_rate=0.5, seed=SEED)
    assert_same(merged, base + 2.0 * delta * mask)


def test_mergekit_dare_scales_a_lone_value_up_to_the_whole_norm(
    monkeypatch: pytest.MonkeyPatch,
):
    # The same: what is kept of a tensor takes over the weight of all that is not.
    tensors = with_deltas([1.0, 9.0])
    with_masks(monkeypatch, [torch.tensor([1.0, 0.0])])
    theirs = kit("dare_linear", tensors, weight=1.0, density=0.5)
    torch.testing.assert_close(
        theirs, torch.tensor([10.0, 0.0], dtype=torch.float64), rtol=1e-6, atol=0.0
    )


def test_mergekit_della_scales_all_values_alike(monkeypatch: pytest.MonkeyPatch):
    # mergekit/sparsify.py, della_magprune: one L1 factor. Deep et al. 2024 divide each
    # kept value by its own keep probability.
    base, model = pool(1, (128,))
    keep = torch.ones(128, dtype=torch.float64)
    with_masks(monkeypatch, [keep])
    theirs = kit("della", [base, model], weight=1.0, density=0.7, epsilon=0.07)
    assert_same(model, theirs, rtol=1e-6)
    merged = ours("della", [base, model], drop_rate=0.3, epsilon=0.14, seed=SEED)
    factors = ((merged - base) / (model - base))[merged != base]
    assert 1.0 / 0.77 < factors.min() < factors.max() < 1.0 / 0.63
    assert factors.max() - factors.min() > 0.2


def test_mergekit_slerp_is_a_straight_line_for_related_models():
    # mergekit/merge_methods/slerp.py: dot_threshold 0.9995. Fine-tunes of one base are
    # nearer than that, so that it is a weighted sum, which loses length.
    a = torch.eye(2, dtype=torch.float64)[0]
    b = torch.tensor([math.cos(0.03), math.sin(0.03)], dtype=torch.float64)
    theirs = kit("slerp", [a, b], t=0.5)
    assert_same((a + b) / 2, theirs)
    merged = ours("slerp", [a, b], alpha=0.5)
    assert abs(merged.norm().item() - 1.0) < 1e-12
    assert theirs.norm().item() < 1.0 - 1e-4


def test_mergekit_slerp_of_unequal_lengths_leaves_the_directions_arc():
    # slerp.py weights the raw tensors, not unit vectors: at half way the direction is
    # nearer to the longer one.
    a, b = torch.eye(2, dtype=torch.float64)
    merged, theirs = ours("slerp", [a, 3 * b]), kit("slerp", [a, 3 * b], t=0.5)
    assert abs((merged[0] / merged[1]).item() - 1.0) < 1e-12
    assert abs((theirs[0] / theirs[1]).item() - 1.0 / 3.0) < 1e-12


def test_mergekit_karcher_of_opposite_models_is_no_mean():
    # mergekit/merge_methods/karcher.py: where the directions cancel, the first model is
    # taken as the mean, and theta / sin(theta) blows up for the other.
    a = torch.tensor([3.0, 4.0], dtype=torch.float64)
    theirs = kit("karcher", [a, -a], base=None)
    assert theirs.norm().item() > 4.9
    assert ours("karcher_mean", [a, -a]).abs().max() < 1e-12


def test_mergekit_karcher_stops_before_the_mean():
    # karcher.py: 10 steps to a tangent of 1e-5.
    models = [1e3 * model for model in pool(6)[1:]]
    early = kit("karcher", models, base=None)
    late = kit("karcher", models, base=None, max_iter=200, tol=1e-13)
    assert (early - late).abs().max() > 1e-8
    assert_same(ours("karcher_mean", models), late, rtol=1e-9)


def test_mergekit_model_stock_goes_beyond_the_base():
    # mergekit/merge_methods/model_stock.py: no limit to the factor.
    tensors = with_deltas([1.0, 0.0], [-0.5, math.sqrt(0.75)])
    mean = ours("uniform_soup", tensors[1:])
    assert_same(-2.0 * mean, kit("model_stock", tensors))
    assert ours("model_stock", tensors).tolist() == [0.0, 0.0]


def test_mergekit_sce_of_equal_models_is_the_base_unless_all_is_selected():
    # mergekit/merge_methods/sce.py, sce_mask: selects among elements of nonzero
    # variance only.
    base, model = pool(1)
    tensors = [base, model, model.clone()]
    assert_same(base, kit("sce", tensors, select_topk=0.99))
    assert_same(model, kit("sce", tensors, select_topk=1.0))
    assert_same(ours("sce", tensors, density=0.99), model)
