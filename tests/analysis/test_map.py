"""Maps of models: planar points come back, and copies stand at one place."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib_merge.analysis.map import METHODS, map_models, stress
from lib_merge.analysis.pairs import PairSums
from lib_merge.errors import InputError


def sums_of(points: np.ndarray, base: int = 0) -> PairSums:
    """What comparing models at these points gives."""
    points = np.asarray(points, dtype=np.float64)
    squares = ((points[:, None] - points[None, :]) ** 2).sum(axis=2)
    return PairSums(points.shape[1], base, (points**2).sum(axis=1), squares)


def drawn(points) -> np.ndarray:
    points = np.array(points)
    return np.sqrt(((points[:, None] - points[None, :]) ** 2).sum(axis=2))


PLANAR = arrays(
    np.float64,
    st.tuples(st.integers(2, 15), st.just(2)),
    elements=st.floats(-100, 100, width=32),
)


@given(PLANAR, st.sampled_from(["mds", "smacof", "pca"]))
@settings(deadline=None)
def test_planar_points_come_back_at_their_distances(points, method):
    assume(np.ptp(points) > 1e-3)
    sums = sums_of(points)
    found = map_models(sums, method)
    assert np.allclose(drawn(found.points), sums.l2(), atol=1e-5 * np.ptp(points))
    assert found.stress < 1e-4


@given(PLANAR, st.integers(0, 2**31))
@settings(deadline=None)
def test_map_does_not_depend_on_rotation_or_origin(points, seed):
    assume(np.ptp(points) > 1e-3)
    draw = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(draw.normal(size=(6, 6)))
    lifted = np.concatenate((points, np.zeros((len(points), 4))), axis=1)
    one = map_models(sums_of(points))
    two = map_models(sums_of(lifted @ turn + draw.normal(size=6) * 10))
    assert np.allclose(drawn(one.points), drawn(two.points), atol=1e-4)
    assert one.stress == pytest.approx(two.stress, abs=1e-4)


@pytest.mark.parametrize("method", ["mds", "smacof", "pca"])
def test_copies_stand_at_one_place(method):
    draw = np.random.default_rng(1)
    points = draw.normal(size=(9, 30))
    points[[4, 7]] = points[2]
    found = map_models(sums_of(points), method)
    assert found.points[2] == found.points[4] == found.points[7]
    assert len(set(found.points)) == 7


@pytest.mark.parametrize("method", ["mds", "smacof", "pca"])
@pytest.mark.parametrize("n_models", [2, 3])
def test_equal_models_are_one_point(method, n_models):
    found = map_models(sums_of(np.ones((n_models, 4))), method)
    assert set(found.points) == {(0.0, 0.0)}
    assert found.stress == 0.0


def test_two_models_are_as_far_apart_as_they_are():
    found = map_models(sums_of(np.array([[0.0, 0, 0], [3, 4, 0]])))
    assert drawn(found.points)[0, 1] == pytest.approx(5.0)
    assert found.shares == pytest.approx((1.0, 0.0))


def test_base_is_the_origin_of_a_pca():
    draw = np.random.default_rng(2)
    found = map_models(sums_of(draw.normal(size=(8, 20)), base=3), "pca")
    assert found.points[3] == (0.0, 0.0)
    assert found.shares is not None
    assert 0 < sum(found.shares) < 1


def test_shares_are_those_of_the_singular_values():
    draw = np.random.default_rng(3)
    points = draw.normal(size=(10, 40)) * np.linspace(3, 1, 40)
    found = map_models(sums_of(points))
    values = np.linalg.svd(points - points.mean(axis=0), compute_uv=False) ** 2
    assert found.shares == pytest.approx(tuple(values[:2] / values.sum()))
    changes = points - points[0]
    values = np.linalg.svd(changes, compute_uv=False) ** 2
    shares = map_models(sums_of(points), "pca").shares
    assert shares == pytest.approx(tuple(values[:2] / values.sum()))


def test_stress_is_kruskals():
    squares = np.array([[0, 1, 4], [1, 0, 9], [4, 9, 0]], dtype=float)
    points = np.array([[0.0, 0], [1, 0], [2, 0]])
    # Gaps of 0, 0 and 2 against distances of 1, 2 and 3.
    assert stress(squares, points) == pytest.approx(np.sqrt(4 / 14))


def test_metric_scaling_has_less_stress_than_classical():
    draw = np.random.default_rng(4)
    sums = sums_of(draw.normal(size=(25, 200)))
    assert map_models(sums, "smacof").stress < 0.9 * map_models(sums, "mds").stress


def test_same_models_give_the_same_map():
    draw = np.random.default_rng(5)
    sums = sums_of(draw.normal(size=(12, 50)))
    assert map_models(sums) == map_models(sums)


def test_model_at_the_edge_does_not_move_the_others():
    draw = np.random.default_rng(6)
    points = draw.normal(size=(10, 30))
    far = np.concatenate((points, draw.normal(size=(1, 30)) * 100))
    plain = map_models(sums_of(points))
    found = map_models(sums_of(far), at_edge=(10,))
    assert np.allclose(found.points[:10], plain.points)
    assert found.at_edge == (10,)
    assert found.stress == pytest.approx(plain.stress)
    lengths = np.linalg.norm(np.array(found.points), axis=1)
    assert lengths[10] > 1.2 * lengths[:10].max()
    assert lengths[10] < 1.6 * lengths[:10].max()


def test_model_at_the_edge_stands_in_its_direction():
    square = np.array([[1.0, 1], [-1, 1], [-1, -1], [1, -1], [50, 0]])
    found = map_models(sums_of(square), at_edge=(4,))
    gaps = drawn(found.points)[4]
    assert gaps[0] == pytest.approx(gaps[3])
    assert gaps[0] < gaps[1]


def test_base_is_never_put_at_the_edge():
    assert map_models(sums_of(np.eye(4)), at_edge=(0, 1)).at_edge == (1,)


def test_unknown_method_is_refused():
    with pytest.raises(InputError, match="no map method 'isomap'; known: mds, smacof"):
        map_models(sums_of(np.eye(3)), "isomap")


@pytest.mark.parametrize(
    ("method", "module", "package"),
    [("tsne", "sklearn", "scikit-learn"), ("umap", "umap", "umap-learn")],
)
def test_missing_library_is_named(monkeypatch, method, module, package):
    for name in [m for m in sys.modules if m.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"pip install {package}' or use mds"):
        map_models(sums_of(np.eye(6)), method)


class Learner:
    """Stands for t-SNE and UMAP: gives back where it was told to begin."""

    given: dict = {}  # noqa: RUF012 - a note for the test

    def __init__(self, **given) -> None:
        Learner.given = given

    def fit_transform(self, distances):
        assert Learner.given["metric"] == "precomputed"
        assert distances.shape == (5, 5)
        return Learner.given["init"]


@pytest.mark.parametrize("method", ["tsne", "umap"])
def test_learned_map_begins_at_classical_scaling_and_keeps_copies(monkeypatch, method):
    fake = types.ModuleType("fake")
    fake.TSNE = fake.UMAP = Learner
    for name in ("sklearn", "sklearn.manifold", "umap"):
        monkeypatch.setitem(sys.modules, name, fake)
    draw = np.random.default_rng(7)
    points = draw.normal(size=(6, 10))
    points[5] = points[1]
    found = map_models(sums_of(points), method)
    assert found.points[5] == found.points[1]
    assert found.shares is None
    # The size of learned points says nothing, so the best one is taken.
    true = sums_of(points).l2()
    shown = drawn(found.points)
    for factor in (0.98, 1.02):
        gap = (shown[:5, :5] * factor - true[:5, :5]) ** 2
        assert gap.sum() > ((shown - true)[:5, :5] ** 2).sum()
    assert Learner.given["random_state"] == 0


@pytest.mark.parametrize("method", ["tsne", "umap"])
def test_learned_map_of_few_models_is_refused(monkeypatch, method):
    fake = types.ModuleType("fake")
    for name in ("sklearn", "sklearn.manifold", "umap"):
        monkeypatch.setitem(sys.modules, name, fake)
    with pytest.raises(InputError, match="needs 4 different models, there are 3"):
        map_models(sums_of(np.eye(3)), method)


def test_methods_are_the_known_ones():
    assert list(METHODS) == ["mds", "smacof", "pca", "tsne", "umap"]
