"""Comparative interpolation: golden values, a float64 reference, its draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib_merge.core.runs import Place
from lib_merge.methods.comparative_interpolation import comparative_interpolation
from tests.methods.cuts import CutRuns, merge_in_cuts, models


def test_comparative_interpolation_gives_hand_computed_values() -> None:
    a, b = torch.zeros(4), torch.tensor([0.0, 1.0, 2.0, 4.0])
    merge = comparative_interpolation.call_with
    smooth = {"smoothness": 1.0}
    assert merge([a, b], smooth).tolist() == [0.0, 0.75, 1.0, 0.0]
    far = smooth | {"favour": 1.0}
    assert merge([a, b], far).tolist() == [0.0, 0.25, 1.0, 4.0]
    # alpha 1/3 is the square, alpha 2/3 the square root.
    squared = merge([a, b], far | {"alpha": 1 / 3}).tolist()
    assert squared == pytest.approx([0.0, 1 / 16, 0.5, 4.0])
    rooted = merge([a, b], far | {"alpha": 2 / 3}).tolist()
    assert rooted == pytest.approx([0.0, 0.5, 2**0.5, 4.0])


@pytest.mark.parametrize("favour", [0.0, 1.0], ids=["likeness", "difference"])
@pytest.mark.parametrize("alpha", [0.01, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_comparative_interpolation_without_draws_is_close_to_the_reference(
    favour: float, alpha: float, dtype: torch.dtype
) -> None:
    a, b = (t.to(dtype) for t in models(2, (9, 40)))
    apart = (a.double() - b.double()).abs().numpy()
    apart /= apart.max()
    share = (apart if favour else 1 - apart) ** (1 / alpha - 1)
    exact = (1 - share) * a.double().numpy() + share * b.double().numpy()
    given = {"alpha": alpha, "favour": favour, "smoothness": 1.0}
    merged = comparative_interpolation.call_with([a, b], given)
    slack = 1e-5 if dtype is torch.float32 else 1e-13
    np.testing.assert_allclose(merged.double().numpy(), exact, rtol=0, atol=slack)


@pytest.mark.parametrize("favour", [0.0, 1.0], ids=["likeness", "difference"])
def test_comparative_interpolation_draws_whole_values_as_often_as_it_would_blend(
    favour: float,
) -> None:
    a, b = models(2, (200, 500))
    given = {"favour": favour, "alpha": 0.4}
    drawn = comparative_interpolation.call_with([a, b], given | {"smoothness": 0.0})
    is_b = drawn == b
    assert bool((is_b | (drawn == a)).all())
    blended = comparative_interpolation.call_with([a, b], given | {"smoothness": 1.0})
    share = ((blended - a) / (b - a)).double()
    assert is_b.double().mean().item() == pytest.approx(share.mean().item(), abs=0.005)
    for low in (0.0, 0.25, 0.5, 0.75):
        band = (share >= low) & (share < low + 0.25)
        if int(band.sum()) < 2000:
            continue
        wanted = share[band].mean().item()
        assert is_b[band].double().mean().item() == pytest.approx(wanted, abs=0.03)


def test_comparative_interpolation_between_draws_and_blend_is_their_blend() -> None:
    a, b = (t.double() for t in models(2, (30, 20)))
    drawn, mixed, blended = (
        comparative_interpolation.call_with([a, b], {"smoothness": s})
        for s in (0.0, 0.25, 1.0)
    )
    torch.testing.assert_close(mixed, 0.75 * drawn + 0.25 * blended)


def test_comparative_interpolation_draws_by_seed_and_key() -> None:
    a, b = models(2, (30, 20))
    merge = comparative_interpolation.call_with
    first = merge([a, b], {"seed": 1}, key="x")
    assert torch.equal(merge([a, b], {"seed": 1}, key="x"), first)
    assert not torch.equal(merge([a, b], {"seed": 2}, key="x"), first)
    assert not torch.equal(merge([a, b], {"seed": 1}, key="y"), first)


@pytest.mark.parametrize("favour", [0.0, 1.0], ids=["likeness", "difference"])
@pytest.mark.parametrize("smoothness", [0.0, 0.3, 1.0])
def test_comparative_interpolation_is_exact_at_both_ends(
    favour: float, smoothness: float
) -> None:
    a, b = models(2, (30, 20))
    given = {"favour": favour, "smoothness": smoothness}
    merge = comparative_interpolation.call_with
    assert torch.equal(merge([a, b], given | {"alpha": 0.0}), a)
    assert torch.equal(merge([a, b], given | {"alpha": 1.0}), b)
    assert torch.equal(merge([a, a.clone()], given), a)


def test_comparative_interpolation_of_one_gap_is_a_or_b() -> None:
    a, b = torch.ones(20), -torch.ones(20)
    merge = comparative_interpolation.call_with
    assert torch.equal(merge([a, b], {"favour": 0.0}), a)
    assert torch.equal(merge([a, b], {"favour": 1.0}), b)


@pytest.mark.parametrize("shape", [(37, 29), (1400,), (7, 5, 3, 3)], ids=str)
@pytest.mark.parametrize("step", [1, 13, 1000])
def test_cuts_give_the_bits_of_the_whole(shape: tuple[int, ...], step: int) -> None:
    inputs = models(2, shape)
    whole = comparative_interpolation.call_with(inputs, {}, key="key")
    assert torch.equal(merge_in_cuts(comparative_interpolation, inputs, step), whole)


@pytest.mark.parametrize("step", [1, 13, 1000])
def test_largest_gap_does_not_depend_on_the_runs(step: int) -> None:
    a, b = models(2, (37, 29))
    runs = CutRuns(comparative_interpolation, [a, b], Place("key", (37, 29)), step)
    assert comparative_interpolation.measure is not None
    assert comparative_interpolation.measure(runs) == (a - b).abs().max().item()
