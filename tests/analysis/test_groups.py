"""What is noteworthy about models: clusters, copies, outliers, neighbours."""

from __future__ import annotations

import itertools
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_merge.analysis.charts import model_plane
from lib_merge.analysis.distances import compare_files
from lib_merge.analysis.drawing import Dot
from lib_merge.analysis.groups import group_models
from lib_merge.analysis.map import map_models
from tests.analysis.reference import moved
from tests.analysis.test_map import sums_of
from tests.support.checkpoints import tiny_part, write_checkpoint

FAMILIES = "abcde"


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """100 models: five families, a copy planted in another's place, a stranger."""
    folder = tmp_path_factory.mktemp("families")
    base = tiny_part(0, dtype=torch.float32)
    paths = []
    for f, family in enumerate(FAMILIES):
        head = moved(base, 1000 + f, 0.03)
        for i in range(20):
            path = folder / f"{family}{i:02d}.safetensors"
            state = moved(head, 20 * f + i, 0.01, torch.float16)
            if path.stem == "a13":
                state = moved(base, 5000, 0.3, torch.float16)
            paths.append(write_checkpoint(path, state))
    shutil.copyfile(folder / "c07.safetensors", folder / "d19.safetensors")
    origin = write_checkpoint(folder / "base.safetensors", base)
    return compare_files(paths, base=origin)


def test_five_families_are_five_clusters(families):
    grouping = group_models(families.part("unet"))
    assert grouping.n_clusters == 5
    for family in FAMILIES:
        members = {
            cluster
            for name, cluster in zip(families.names, grouping.cluster_of, strict=True)
            if name[0] == family and name not in ("a13", "d19", "base")
        }
        assert len(members) == 1
        assert members != {0}


def test_planted_copy_and_outlier_are_named(families):
    grouping = group_models(families.part("unet"))
    copies = [tuple(families.names[i] for i in group) for group in grouping.copies]
    assert copies == [("c07", "d19")]
    assert [families.names[o.model] for o in grouping.outliers] == ["a13"]
    assert grouping.outliers[0].factor > 10
    place = {name: i for i, name in enumerate(families.names)}
    assert grouping.cluster_of[place["d19"]] == grouping.cluster_of[place["c07"]]
    assert grouping.cluster_of[place["a13"]] == 0
    assert grouping.nearest[place["c07"]].model == place["d19"]


def test_families_stand_side_by_side_in_the_order(families):
    grouping = group_models(families.part("unet"))
    assert sorted(grouping.order) == list(range(101))
    clusters = [grouping.cluster_of[i] for i in grouping.order]
    clusters = [cluster for cluster in clusters if cluster]
    assert sum(a != b for a, b in itertools.pairwise(clusters)) == 4


@pytest.mark.parametrize("method", ["mds", "smacof"])
def test_map_shows_five_clusters(families, method):
    """Each family is a heap of dots, far from the other heaps as heaps go."""
    sums = families.part("unet")
    grouping = group_models(sums)
    outliers = [outlier.model for outlier in grouping.outliers]
    plane = map_models(sums, method, outliers)
    assert [families.names[i] for i in plane.at_edge] == ["a13"]
    points = np.array(plane.points)
    cluster_of = np.array(grouping.cluster_of)
    heaps = [points[cluster_of == number] for number in range(1, 6)]
    middles = np.array([heap.mean(axis=0) for heap in heaps])
    widths = [np.linalg.norm(h - h.mean(axis=0), axis=1).max() for h in heaps]
    gaps = np.linalg.norm(middles[:, None] - middles[None, :], axis=2)
    np.fill_diagonal(gaps, np.inf)
    assert gaps.min() > 2 * max(widths)
    drawing = model_plane(families, plane, "unet")
    colours = {s.fill for s in drawing.shapes if isinstance(s, Dot)}
    assert len(colours) == 6


def test_nearly_equal_models_are_named(tmp_path):
    base = tiny_part(1, dtype=torch.float32)
    states = {
        "full": base,
        "half": moved(base, 0, 0.0, torch.float16),
        "other": moved(base, 2, 0.1),
    }
    paths = [
        write_checkpoint(tmp_path / f"{name}.safetensors", state)
        for name, state in states.items()
    ]
    found = compare_files(paths)
    grouping = group_models(found.part("all"))
    assert grouping.alike == ((0, 1),)
    assert grouping.copies == ()


def test_models_without_structure_are_one_cluster_without_outliers():
    draw = np.random.default_rng(1)
    grouping = group_models(sums_of(draw.normal(size=(30, 2000))))
    assert grouping.n_clusters == 1
    assert set(grouping.cluster_of) == {1}
    assert grouping.outliers == ()
    assert grouping.copies == ()


def test_far_group_does_not_hide_the_groups_among_the_others():
    draw = np.random.default_rng(2)
    heads = np.concatenate((np.eye(3, 500) * 30, np.eye(1, 500) * -3000))
    points = np.repeat(heads, 6, axis=0) + draw.normal(size=(24, 500)) * 0.5
    grouping = group_models(sums_of(points))
    assert grouping.n_clusters == 4
    assert len({tuple(grouping.cluster_of[i : i + 6]) for i in (0, 6, 12, 18)}) == 4


def test_few_models_have_no_outliers():
    points = np.array([[0.0], [1.0], [2.0], [1000.0]])
    assert group_models(sums_of(points)).outliers == ()


def test_outliers_come_with_the_farthest_first():
    points = np.zeros((10, 3))
    points[:8, 0] = np.arange(8)
    points[8, 1], points[9, 1] = 100, 500
    found = group_models(sums_of(points)).outliers
    assert [outlier.model for outlier in found] == [9, 8]
    assert found[1].factor == pytest.approx(100, rel=0.01)


def test_two_models_are_grouped():
    grouping = group_models(sums_of(np.array([[0.0, 1], [0, 3]])))
    assert grouping.order in ((0, 1), (1, 0))
    assert [n.distance for n in grouping.nearest] == [2.0, 2.0]
    assert [n.model for n in grouping.nearest] == [1, 0]


def test_equal_models_are_one_group_of_copies():
    grouping = group_models(sums_of(np.ones((6, 3))))
    assert grouping.copies == ((0, 1, 2, 3, 4, 5),)
    assert grouping.alike == ()
    assert grouping.outliers == ()


@given(st.integers(2, 25), st.integers(0, 2**31), st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_order_holds_every_model_once_and_labels_are_numbered(n_models, seed, width):
    draw = np.random.default_rng(seed)
    points = draw.integers(-3, 4, size=(n_models, width)).astype(float)
    grouping = group_models(sums_of(points))
    assert sorted(grouping.order) == list(range(n_models))
    used = set(grouping.cluster_of) - {0}
    assert used == set(range(1, len(used) + 1))
    counts = [grouping.cluster_of.count(number) for number in used]
    assert all(count > 1 for count in counts)
    for group in grouping.copies:
        assert len({tuple(points[i]) for i in group}) == 1
