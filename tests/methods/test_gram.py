"""Inner products of whole tensors, and sums by coefficients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib_merge.core.runs import Place, Run
from lib_merge.methods._ops.gram import gram_of, gram_of_rows
from lib_merge.methods._ops.mixture import mixed


@dataclass(frozen=True)
class PoolRuns:
    """A pool of 1-D tensors, `step` values a run."""

    models: Sequence[Tensor]
    step: int

    @property
    def place(self) -> Place:
        shape = tuple(self.models[0].shape)
        return Place("key", shape, 0, tuple(range(len(self.models))))

    def __iter__(self) -> Iterator[Run]:
        for start in range(0, self.models[0].numel(), self.step):
            pool = (model[start : start + self.step] for model in self.models)
            yield Run((pool,), replace(self.place, start=start))


def pool(n_models: int, n_elements: int, *, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed + n_models)
    return [torch.randn(n_elements, generator=generator) for _ in range(n_models)]


def exact(models: Sequence[Tensor]) -> np.ndarray:
    """Products with sums that are rounded once."""
    rows = [model.double().tolist() for model in models]
    return np.array(
        [
            [math.fsum(x * y for x, y in zip(a, b, strict=True)) for b in rows]
            for a in rows
        ]
    )


@pytest.mark.parametrize("n_models", [1, 2, 5])
@pytest.mark.parametrize("n_elements", [1, 3, 4095, 4096, 4097, 9000])
def test_products_are_exact_to_float64_for_any_length(
    n_models: int, n_elements: int
) -> None:
    models = pool(n_models, n_elements)
    gram = gram_of(PoolRuns(models, 5000))
    assert gram.dtype == torch.float64
    np.testing.assert_allclose(gram, exact(models), atol=1e-14 * n_elements, rtol=1e-14)


@pytest.mark.parametrize("n_models", [63, 64, 65, 130])
def test_products_of_many_models_are_those_of_a_matrix_product(n_models: int) -> None:
    models = pool(n_models, 5000)
    rows = torch.stack(models).double().numpy()
    gram = gram_of(PoolRuns(models, 4500))
    np.testing.assert_allclose(gram, rows @ rows.T, atol=1e-10, rtol=0)
    assert torch.equal(gram, gram.T)


def test_products_need_no_values_of_an_empty_tensor() -> None:
    gram = gram_of(PoolRuns([torch.zeros(0)] * 3, 8))
    assert torch.equal(gram, torch.zeros(3, 3, dtype=torch.float64))


def test_products_do_not_remember_the_run_before() -> None:
    models = pool(3, 4100 + 4097)
    twice = gram_of(PoolRuns(models, 4100))
    parts = [gram_of(PoolRuns([m[:4100] for m in models], 4100))]
    parts.append(gram_of(PoolRuns([m[4100:] for m in models], 4100)))
    assert torch.equal(twice, parts[0] + parts[1])


def test_transform_gets_the_pool_and_where_it_lies() -> None:
    models = pool(3, 10)
    starts = []

    def flip(values: list[Tensor], place: Place) -> list[Tensor]:
        starts.append(place.start)
        return [values[0] * 0.0, *(2.0 * v for v in values[1:])]

    gram = gram_of(PoolRuns(models, 4), flip)
    assert starts == [0, 4, 8]
    expected = 4.0 * exact(models)
    expected[0] = expected[:, 0] = 0.0
    np.testing.assert_allclose(gram, expected, atol=1e-13)


def test_a_transform_that_loses_a_model_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        gram_of(PoolRuns(pool(3, 10), 4), lambda values, place: values[1:])


def test_relative_products_keep_the_digits_of_close_models() -> None:
    far = [1e4 + 1e-3 * model.double() for model in pool(4, 6000)]
    gram = gram_of(PoolRuns(far, 4000), is_relative=True)
    differences = [model - far[0] for model in far]
    np.testing.assert_allclose(gram, exact(differences), rtol=1e-13, atol=0)
    assert not gram[0].any()


def test_rows_may_be_of_any_inputs() -> None:
    models = pool(2, 6)
    gram = gram_of_rows(PoolRuns(models, 6), lambda run: [sum(run.inputs[0])], n_rows=1)
    assert gram.item() == pytest.approx(float((models[0] + models[1]).square().sum()))


def test_products_have_one_answer_however_often_asked() -> None:
    models = pool(8, 20_000)
    first = gram_of(PoolRuns(models, 8192))
    assert torch.equal(first, gram_of(PoolRuns([m.clone() for m in models], 8192)))


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=6),
    st.integers(1, 40),
)
def test_mixed_is_the_sum_for_any_cut(shares: list[float], n_elements: int) -> None:
    models = pool(len(shares), n_elements)
    whole = mixed(iter(models), shares)
    rows = torch.stack(models).double().numpy()
    np.testing.assert_allclose(whole, np.array(shares) @ rows, atol=1e-5)
    cut = n_elements // 3
    parts = [
        mixed([m[:cut] for m in models], shares),
        mixed([m[cut:] for m in models], shares),
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_mixed_gives_one_model_back_where_the_others_have_no_part() -> None:
    models = pool(3, 5)
    merged = mixed(models, [0.0, 1.0, 0.0])
    assert torch.equal(merged, models[1])
    assert merged is not models[1]


def test_mixed_is_zero_without_any_part() -> None:
    assert torch.equal(mixed(pool(2, 5), [0.0, 0.0]), torch.zeros(5))


def test_mixed_of_no_model_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one model"):
        mixed([], [])
