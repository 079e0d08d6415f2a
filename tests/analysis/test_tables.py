"""Comparisons as files: CSV, JSON and back, and the published matrices."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from lib_merge.analysis.comparison import ALL, Comparison
from lib_merge.analysis.distances import CompareOptions, compare_files
from lib_merge.analysis.groups import group_models
from lib_merge.analysis.map import map_models
from lib_merge.analysis.tables import (
    from_json,
    load_comparison,
    save_text,
    to_csv,
    to_json,
)
from lib_merge.errors import InputError, OutputError
from tests.analysis.reference import moved, write_models
from tests.support.checkpoints import tiny_part


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> Comparison:
    base = tiny_part(1)
    states = {"base": base, "a": moved(base, 2, 0.1), "b": moved(base, 3, 0.2)}
    del states["b"]["betas"]
    paths = write_models(tmp_path_factory.mktemp("models"), states)
    options = CompareOptions(is_by_key=True, predict_share=0.5)
    return compare_files(paths[1:], base=paths[0], options=options)


@pytest.mark.parametrize("level", ["component", "block", "key"])
def test_csv_has_a_line_for_every_pair_and_part(found, level):
    rows = list(csv.DictReader(io.StringIO(to_csv(found, level))))
    levels = ["component", "block", "key"]
    shown = levels[: levels.index(level) + 1]
    n_parts = sum(len(list(found.parts(name))) for name in shown)
    assert len(rows) == 3 * n_parts
    row = next(
        r for r in rows if (r["part"], r["model_a"], r["model_b"]) == ("unet", "a", "b")
    )
    sums = found.part("unet")
    assert float(row["l2"]) == sums.l2()[1, 2]
    assert float(row["relative_l2"]) == sums.relative_l2()[1, 2]
    assert float(row["cosine"]) == sums.cosine()[1, 2]
    assert float(row["change_cosine"]) == sums.change_cosine()[1, 2]
    assert float(row["sign_agreement"]) == sums.sign_agreement()[1, 2]
    assert int(row["n_values"]) == sums.n_values


def test_csv_leaves_empty_what_cannot_be_told(found):
    rows = csv.DictReader(io.StringIO(to_csv(found)))
    row = next(r for r in rows if r["model_a"] == "base")
    assert row["change_cosine"] == row["sign_agreement"] == ""
    assert float(row["l2"]) > 0


@pytest.mark.parametrize("level", ["component", "block", "key"])
def test_json_comes_back_as_it_was(found, level):
    text = json.dumps(to_json(found, level), allow_nan=False)
    other = from_json(json.loads(text), "x.json")
    assert (other.names, other.paths, other.base) == (
        found.names,
        found.paths,
        found.base,
    )
    assert (other.n_apart, other.left_out) == (1, found.left_out)
    assert other.predictions == found.predictions
    assert set(other.blocks) == (set() if level == "component" else set(found.blocks))
    assert set(other.keys) == (set(found.keys) if level == "key" else set())
    for name in found.components:
        one, two = found.part(name), other.part(name)
        assert np.array_equal(one.squares, two.squares)
        assert np.array_equal(one.norms, two.norms)
        assert np.array_equal(one.sign_agreement(), two.sign_agreement(), True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "is no comparison of MergeLab"),
        ({"version": 99}, "has version 99"),
        ({"parts": [{"level": "component", "part": "unet"}]}, "damaged .*KeyError"),
        ({"models": ["a"]}, "damaged"),
        ({"parts": 3}, "damaged"),
    ],
    ids=["format", "version", "entry", "models", "parts"],
)
def test_damaged_json_is_refused(found, change, message):
    with pytest.raises(InputError, match=message):
        from_json(to_json(found) | change, "x.json")


def published(n_models: int = 5) -> dict:
    """The form of the published matrices, with the figures that are cited of 21b."""
    names = ["01-VBP23.safetensors", "20-bp.safetensors", "20b-AstolfoMix.safetensors"]
    names += ["21-AstolfoMix.safetensors", "21b-AstolfoMix.safetensors"]
    far = {(1, 2): 41.08, (1, 3): 20.54, (2, 3): 20.54, (3, 4): 9.19}
    far |= {(1, 4): 22.33, (2, 4): 22.67}
    far |= {(0, i): 120.0 + i for i in range(1, 5)}
    unet = np.zeros((5, 5))
    for (i, j), distance in far.items():
        unet[i, j] = unet[j, i] = distance
    marks = [[f"m{i}", f"../models/{name}"] for i, name in enumerate(names)]
    pairs = [[marks[i], marks[j]] for i in range(5) for j in range(i + 1, 5)]
    zeros = np.zeros((5, 5)).tolist()
    return {
        "cm": [["21b", pairs]],
        "dm": {"other": zeros, "te": zeros, "unet": unet.tolist(), "vae": zeros},
        "ml": names[:n_models],
    }


def test_published_matrix_is_read(tmp_path):
    path = tmp_path / "21b.json"
    path.write_text(json.dumps(published()))
    found = load_comparison(path)
    assert found.names[3] == "21-AstolfoMix"
    assert found.paths[4] == "../models/21b-AstolfoMix.safetensors"
    assert list(found.components) == ["unet"]
    assert found.main_part == "unet"
    assert found.part("unet").l2()[3, 4] == pytest.approx(9.19)
    assert not found.part("unet").has_signs
    grouping = group_models(found.part("unet"))
    assert grouping.nearest[3].model == 4
    assert map_models(found.part("unet")).stress < 0.1
    row = next(csv.DictReader(io.StringIO(to_csv(found))))
    assert (row["relative_l2"], row["cosine"], row["sign_agreement"]) == ("", "", "")
    again = from_json(json.loads(json.dumps(to_json(found))), "x")
    assert np.array_equal(again.part(ALL).squares, found.part(ALL).squares)


def test_published_matrix_keeps_every_part_that_differs():
    data = published()
    data["dm"]["te0"] = data["dm"]["unet"]
    data["dm"]["mine"] = data["dm"]["unet"]
    from lib_merge.analysis.matrices import read_published

    assert list(read_published(data, "x").components) == ["te0", "unet", "mine"]


def spoil(data: dict, name: str) -> dict:
    unet = data["dm"]["unet"]
    if name == "shape":
        data["ml"] = data["ml"][:4]
    elif name == "negative":
        unet[0][1] = unet[1][0] = -1.0
    elif name == "asymmetric":
        unet[0][1] += 1.0
    elif name == "text":
        unet[0][1] = "far"
    elif name == "nan":
        unet[0][1] = unet[1][0] = float("nan")
    elif name == "diagonal":
        unet[2][2] = 1.0
    elif name == "names":
        data["ml"][1] = data["ml"][0]
    elif name == "empty":
        data["dm"] = {}
    return data


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shape", r"dm\.unet has the shape \[5, 5\], but `ml` names 4"),
        ("negative", "holds what is no distance"),
        ("asymmetric", "is not symmetric"),
        ("text", "is no matrix of numbers"),
        ("nan", "holds what is no distance"),
        ("diagonal", "holds what is no distance"),
        ("names", "two or more different model names"),
        ("empty", "`dm` must hold matrices"),
    ],
)
def test_damaged_published_matrix_is_refused(tmp_path, name, message):
    data = spoil(published(), name)
    if name == "shape":
        for part in ("other", "te", "vae"):
            del data["dm"][part]
    path = tmp_path / "m.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=message):
        load_comparison(path)


@pytest.mark.parametrize("pairs", [None, 3, [["x"]], [["x", [["m0"]]]], []])
def test_paths_of_a_published_matrix_are_not_needed(pairs):
    from lib_merge.analysis.matrices import read_published

    assert read_published(published() | {"cm": pairs}, "x").paths == ()


@pytest.mark.parametrize("content", ["{", "[]", "3", ""], ids=repr)
def test_file_that_holds_no_comparison_is_refused(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"x\.json is no"):
        load_comparison(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_comparison(tmp_path / "gone.json")


def test_text_that_cannot_be_written_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        save_text("x", tmp_path / "gone" / "x.csv")


@pytest.mark.parametrize(
    ("name", "position"), [("a", 1), ("2", 1), ("ase", 0), ("b", 2), ("3", 2)]
)
def test_model_is_found_by_name_part_or_number(found, name, position):
    assert found.model(name) == position


@pytest.mark.parametrize(
    ("name", "message"),
    [("zzz", "is none of the models: base, a, b"), ("", "fits several"), ("9", "none")],
)
def test_model_that_is_not_clear_is_refused(found, name, message):
    with pytest.raises(InputError, match=message):
        found.model(name)


def test_part_is_found_in_any_case_and_the_nearest_is_named(found):
    assert found.part("UNET") is found.part("unet")
    assert found.part("in04") is found.blocks["IN04"]
    with pytest.raises(InputError, match=r"no part 'unett'.*Did you mean unet\?"):
        found.part("unett")
