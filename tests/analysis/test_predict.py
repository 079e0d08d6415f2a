"""Where merges would lie is where they lie when they are made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_merge.analysis import _tile
from lib_merge.analysis._scan import Spot
from lib_merge.analysis.distances import CompareOptions, compare_files
from lib_merge.analysis.models import CommonKey
from lib_merge.analysis.predict import _is_chosen, mixture_distances
from lib_merge.core.blocks import BlockId, Component
from lib_merge.methods import methods
from tests.analysis.reference import is_weight, moved, write_models
from tests.support.checkpoints import tiny_part

BIG = "model.diffusion_model.input_blocks.4.0.in_layers.2.weight"
METHODS = ("uniform_soup", "geometric_median", "ties_soup", "tsd")


def unet_keys(state) -> list[str]:
    return [k for k in state if k.startswith("model.diff") and is_weight(state[k], k)]


def merged_distances(method_id, states, pool, base) -> np.ndarray:
    """Merge for real, in float64, and measure from every model."""
    method = methods().get(method_id)
    squares = np.zeros(len(states))
    for key in unet_keys(states[0]):
        tensors = [states[i][key].double() for i in pool]
        if method.has_base:
            tensors = [states[base][key].double(), *tensors]
        merged = method.call_with(tensors, {}, key)
        for i, state in enumerate(states):
            squares[i] += float((merged - state[key].double()).square().sum())
    return np.sqrt(squares)


@pytest.fixture(scope="module")
def states():
    base = tiny_part(1)
    return {"base": base, **{f"m{i}": moved(base, i, 0.1 + i / 20) for i in range(5)}}


@pytest.mark.parametrize("method_id", METHODS)
@pytest.mark.parametrize("is_apart", [True, False], ids=["apart", "in the pool"])
def test_prediction_is_the_distance_of_the_merge(tmp_path, states, method_id, is_apart):
    first, *paths = write_models(tmp_path, states)
    options = CompareOptions(predict_share=1.0)
    if is_apart:
        found = compare_files(paths, base=first, options=options)
        pool = range(1, len(states))
    else:
        found = compare_files([first, *paths], options=options)
        pool = range(len(states))
    assert list(found.pool) == list(pool)
    true = merged_distances(method_id, list(states.values()), pool, 0)
    guess = next(
        p for p in found.predictions if (p.method, p.part) == (method_id, "unet")
    )
    assert guess.share == 1.0
    assert set(guess.errors) == {0.0}
    assert np.allclose(guess.distances, true, rtol=1e-7)


def test_base_in_the_middle_of_the_pool_keeps_its_place(tmp_path, states):
    paths = write_models(tmp_path, states)
    options = CompareOptions(predict_share=1.0)
    found = compare_files(paths, base=paths[3], options=options)
    for guess in found.predictions:
        if guess.part == "unet":
            pool = range(len(states))
            true = merged_distances(guess.method, list(states.values()), pool, 3)
            assert np.allclose(guess.distances, true, rtol=1e-7), guess.method


@pytest.fixture(scope="module")
def long_pool(tmp_path_factory):
    """Models with a tensor of many tiles whose size of change varies along it."""
    base = tiny_part(1)
    noise = torch.Generator().manual_seed(9)
    base[BIG] = torch.randn(3_000_000, generator=noise)
    states = {"base": base}
    for i in range(3):
        state = moved(base, i, 0.05)
        step = torch.randn(3_000_000, generator=noise) * torch.linspace(
            0.01, 0.3, 3_000_000
        )
        state[BIG] = base[BIG] + step
        states[f"m{i}"] = state
    return write_models(tmp_path_factory.mktemp("long"), states)


def test_sample_is_right_within_its_error(long_pool, monkeypatch):
    monkeypatch.setattr(_tile, "_TILE_VALUES", 1 << 12)  # Hundreds of tiles.

    def guesses(share: float):
        options = CompareOptions(predict_share=share)
        found = compare_files(long_pool[1:], base=long_pool[0], options=options)
        return {p.method: p for p in found.predictions if p.part == "unet"}

    exact, sampled = guesses(1.0), guesses(0.125)
    for method in ("ties_soup", "tsd"):
        one, two = exact[method], sampled[method]
        assert 0.12 < two.share < 0.13
        for true, guess, error in zip(
            one.distances, two.distances, two.errors, strict=True
        ):
            assert 0 < error < 0.003 * true
            assert abs(guess - true) < 4 * error
    for method in ("uniform_soup", "geometric_median"):
        assert sampled[method] == exact[method]


def test_predictions_do_not_depend_on_threads(long_pool):
    found = [
        compare_files(
            long_pool, options=CompareOptions(n_threads=n, predict_share=0.125)
        ).predictions
        for n in (1, 3)
    ]
    assert found[0] == found[1]


def test_nothing_is_predicted_unless_asked_for(long_pool):
    assert compare_files(long_pool).predictions == ()


@given(st.integers(1, 12), st.integers(0, 2**31))
@settings(deadline=None)
def test_mixture_lies_where_its_shares_say(n_models, seed):
    draw = np.random.default_rng(seed)
    points = draw.normal(size=(n_models, 7))
    shares = draw.random(n_models)
    shares /= shares.sum()
    squares = ((points[:, None] - points[None, :]) ** 2).sum(axis=2)
    true = ((shares @ points - points) ** 2).sum(axis=1)
    assert np.allclose(mixture_distances(squares, shares), true, atol=1e-10)


def test_mixtures_of_the_specification_lie_where_it_says():
    """A midpoint halves a distance, 2B - A doubles it."""
    squares = np.array([[0.0, 9.0], [9.0, 0.0]])
    half = mixture_distances(squares, np.array([0.5, 0.5]))
    assert np.allclose(np.sqrt(half), [1.5, 1.5])
    twice = mixture_distances(squares, np.array([-1.0, 2.0]))
    assert np.allclose(np.sqrt(twice), [6.0, 3.0])


@given(st.integers(1, 400), st.floats(0.01, 1.0))
@settings(deadline=None)
def test_chosen_tiles_are_as_many_as_asked_for(n_tiles, share):
    key = CommonKey("k", ("k",), n_tiles, BlockId("M00"), Component.UNET)
    chosen = [i for i in range(n_tiles) if _is_chosen(Spot(key, i, i, n_tiles), share)]
    assert len(chosen) == min(n_tiles, max(2, int(np.ceil(n_tiles * share))))
