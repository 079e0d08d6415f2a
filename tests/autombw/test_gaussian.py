"""The Gaussian process: gradients, doubt, belief, and its acquisition far from gain."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lib_merge.autombw.samplers._gaussian import Data, GaussianProcess
from lib_merge.autombw.samplers._gp import _log_gain

STEP = 1e-5


@pytest.fixture
def data() -> Data:
    """Fifteen trials over four axes, two of which act together."""
    rng = np.random.default_rng(0)
    x = rng.random((15, 4))
    y = np.sin(3 * x).sum(1) + x[:, 0] * x[:, 1]
    return Data(x, y, np.linspace(0.5, 1.0, 15), 0.05)


def test_gradient_of_the_fit_is_its_slope(data: Data) -> None:
    process = GaussianProcess(data)
    theta = process.theta + np.random.default_rng(1).normal(0, 0.2, process.theta.size)
    _, gradient = process._loss(theta)
    for axis, unit in enumerate(np.eye(theta.size)):
        up, down = (process._loss(theta + s * STEP * unit)[0] for s in (1, -1))
        assert gradient[axis] == pytest.approx((up - down) / (2 * STEP), abs=1e-5)


def test_slopes_are_those_of_the_prediction(data: Data) -> None:
    process = GaussianProcess(data)
    x = np.array([[0.3, 0.9, 0.1, 0.5]])
    _, _, mean_slope, deviation_slope = process.slopes(x)
    for axis, unit in enumerate(np.eye(4)):
        up, down = (process.predict(x + s * STEP * unit) for s in (1, -1))
        slope = [(u - d)[0] / (2 * STEP) for u, d in zip(up, down, strict=True)]
        assert mean_slope[0, axis] == pytest.approx(slope[0], abs=1e-5)
        assert deviation_slope[0, axis] == pytest.approx(slope[1], abs=1e-5)


def test_prediction_follows_what_is_known_well(data: Data) -> None:
    """Near a trial the mean is its score; far away the doubt grows."""
    process = GaussianProcess(data)
    mean, deviation = process.predict(data.x)
    assert np.abs(mean - data.y).max() < 0.3
    _, far = process.predict(np.array([[3.0, -2.0, 3.0, -2.0]]))
    assert far[0] > 2 * deviation.max()


def test_badly_known_trial_moves_the_mean_less(data: Data) -> None:
    """The same surprise, once as a whole trial and once as an estimate."""
    place = np.full((1, 4), 0.5)
    moved = []
    for weight in (1.0, 0.05):
        more = Data(
            np.vstack([data.x, place]),
            np.append(data.y, 9.0),
            np.append(data.weight, weight),
            0.5,
        )
        moved.append(GaussianProcess(more).predict(place)[0][0])
    assert moved[0] > moved[1] + 0.1


def test_belief_takes_the_doubt_and_leaves_the_mean(data: Data) -> None:
    process = GaussianProcess(data)
    place = np.array([[0.95, 0.05, 0.95, 0.05]])
    told = process.believing(place)
    before, after = process.predict(place), told.predict(place)
    assert after[0] == pytest.approx(before[0], abs=1e-2)
    assert after[1][0] < before[1][0]


def test_hyperparameters_of_another_process_can_be_used(data: Data) -> None:
    part = Data(data.x[:12], data.y[:12], data.weight[:12], data.luck)
    first = GaussianProcess(part)
    again = GaussianProcess(data, first.theta)
    assert (again.theta == first.theta).all()
    assert again.luck == pytest.approx(GaussianProcess(data).luck, rel=0.5)


@pytest.mark.parametrize("z", [-3000.0, -40.0, -5.0, -1.0001, -0.9999, 0.0, 3.0])
def test_log_gain_is_exact_where_there_is_hardly_any(z: float) -> None:
    """Its slope is Phi / h everywhere; far below 0, h is phi / z ** 2."""
    value, by_mean, _ = (part[0] for part in _log_gain(np.array([z])))
    up, down = (_log_gain(np.array([z + s * STEP]))[0][0] for s in (1, -1))
    assert by_mean == pytest.approx((up - down) / (2 * STEP), rel=1e-4)
    if z < -30:
        wanted = -z * z / 2 - math.log(math.sqrt(2 * math.pi)) - 2 * math.log(-z)
        assert value == pytest.approx(wanted, rel=1e-4)
