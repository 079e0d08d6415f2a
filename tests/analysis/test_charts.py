"""Charts: they show what was found, name it, and stay well-formed."""

from __future__ import annotations

import io
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from lib_merge.analysis import charts
from lib_merge.analysis.comparison import Comparison
from lib_merge.analysis.distances import compare_files
from lib_merge.analysis.drawing import (
    Box,
    Dot,
    Drawing,
    Grid,
    Line,
    Words,
    check_name,
    save_drawing,
    shade,
    to_svg,
)
from lib_merge.analysis.histogram import difference_histogram
from lib_merge.analysis.map import map_models
from lib_merge.errors import InputError, OutputError
from tests.analysis.reference import moved, write_models
from tests.analysis.test_map import sums_of
from tests.support.checkpoints import tiny_part

SVG = "{http://www.w3.org/2000/svg}"
KEY = "model.diffusion_model.input_blocks.4.0.in_layers.0.weight"


def comparison_of(points, names=None) -> Comparison:
    sums = sums_of(points)
    names = names or tuple(f"model {i}" for i in range(sums.n_models))
    return Comparison(names=tuple(names), base=0, components={"unet": sums})


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    base = tiny_part(1)
    states = {"base": base, "a<b>": moved(base, 2, 0.1), "c": moved(base, 3, 0.2)}
    paths = write_models(tmp_path_factory.mktemp("models"), states)
    return paths, compare_files(paths)


def drawings(models) -> dict[str, Drawing]:
    paths, found = models
    plane = map_models(found.part("unet"))
    return {
        "heat": charts.heat_map(found, "unet"),
        "plane": charts.model_plane(found, plane, "unet"),
        "bars": charts.base_bars(found, "unet"),
        "strip": charts.block_strip(found, 0, 1),
        "histogram": charts.histogram_bars(difference_histogram(*paths[:2], "IN04")),
    }


def titles(svg: str) -> list[str]:
    return [node.text or "" for node in ET.fromstring(svg).iter(f"{SVG}title")]


def test_every_chart_is_a_well_formed_file_with_names_under_the_pointer(models):
    for name, drawing in drawings(models).items():
        found = titles(to_svg(drawing))
        assert found[0] == drawing.label
        assert len(found) > 1, name
    for name in ("heat", "plane", "bars"):
        words = " ".join(titles(to_svg(drawings(models)[name])))
        assert "a<b>" in words


def test_every_chart_is_a_picture(models):
    for drawing in drawings(models).values():
        from lib_merge.analysis._png import to_png

        image = Image.open(io.BytesIO(to_png(drawing)))
        assert image.size == (round(drawing.width * 2), round(drawing.height * 2))
        assert len(image.getcolors(1 << 20)) > 5


def test_element_for_a_page_has_its_colour_and_marks_the_models(models):
    drawing = drawings(models)["plane"]
    svg = to_svg(drawing, is_file=False)
    assert svg.startswith('<svg class="merge-drawing"')
    assert "xmlns" not in svg
    assert 'fill="currentColor"' in svg
    marks = [s.model for s in drawing.shapes if isinstance(s, Dot)]
    assert sorted(marks) == [0, 1, 2]
    assert all(f'data-model="{mark}"' in svg for mark in marks)


def test_cells_of_the_heat_map_say_who_and_how_far():
    points = np.array([[0.0, 0], [3, 4], [3, 4.1]])
    drawing = charts.heat_map(comparison_of(points), "unet")
    grid = next(s for s in drawing.shapes if isinstance(s, Grid))
    words = [title for row in grid.titles for title in row]
    assert "model 0 to model 1: 5" in words or "model 1 to model 0: 5" in words
    assert len({*words}) == 9
    assert grid.fills[0][0] == shade(0.0)


def test_heat_map_of_many_models_names_its_rows():
    draw = np.random.default_rng(1)
    drawing = charts.heat_map(comparison_of(draw.normal(size=(130, 5))), "unet")
    grid = next(s for s in drawing.shapes if isinstance(s, Grid))
    assert all(len(row) == 1 for row in grid.titles)
    svg = to_svg(drawing)
    assert len(svg) < 1_500_000
    assert "model 129" in " ".join(titles(svg))


def test_colours_of_the_heat_map_are_not_spent_on_an_outlier():
    points = np.zeros((8, 2))
    points[:7, 0] = np.arange(7)
    points[7, 1] = 1000
    drawing = charts.heat_map(comparison_of(points), "unet")
    assert any(
        isinstance(s, Words) and s.text == "0 to 6 and more" for s in drawing.shapes
    )


def test_identical_models_share_a_dot_that_names_them_all():
    points = np.array([[0.0, 0], [1, 0], [1, 0], [0, 2]])
    found = comparison_of(points)
    drawing = charts.model_plane(found, map_models(found.part("unet")), "unet")
    dots = [s for s in drawing.shapes if isinstance(s, Dot)]
    assert sorted(dot.title for dot in dots) == [
        "model 0 (base)",
        "model 1 = model 2",
        "model 3",
    ]
    words = [s.text for s in drawing.shapes if isinstance(s, Words)]
    assert "model 1 (+1 equal)" in words


def test_map_says_its_stress_and_keeps_its_scale():
    points = np.array([[0.0, 0], [3, 4], [6, 0]])
    found = comparison_of(points)
    drawing = charts.model_plane(found, map_models(found.part("unet")), "unet")
    assert "stress 0.000, axes show 100 %" in drawing.label
    dots = {s.model: (s.x, s.y) for s in drawing.shapes if isinstance(s, Dot)}

    def gap(i: int, j: int) -> float:
        return float(np.hypot(*np.subtract(dots[i], dots[j])))

    assert gap(0, 2) / gap(0, 1) == pytest.approx(6 / 5)
    ruler = next(s for s in drawing.shapes if isinstance(s, Line))
    length = float(
        next(
            s.text
            for s in drawing.shapes
            if isinstance(s, Words) and s.text != drawing.label
        )
    )
    pixels = ruler.points[2][0] - ruler.points[1][0]
    assert pixels / length == pytest.approx(gap(0, 1) / 5)


def test_names_on_the_map_do_not_lie_on_each_other():
    draw = np.random.default_rng(2)
    found = comparison_of(draw.normal(size=(80, 3)))
    drawing = charts.model_plane(found, map_models(found.part("unet")), "unet")
    words = [s for s in drawing.shapes if isinstance(s, Words) and s.size == 11]
    boxes = [(w.x, w.y - 10, w.x + len(w.text) * 6.6, w.y + 2) for w in words]
    for i, one in enumerate(boxes):
        for two in boxes[i + 1 :]:
            assert not (
                one[0] < two[2] - 1
                and one[2] - 1 > two[0]
                and one[1] < two[3] - 1
                and one[3] - 1 > two[1]
            )


def test_bars_are_sorted_and_as_long_as_the_distances():
    found = comparison_of(np.array([[0.0], [4], [1], [2]]))
    boxes = [s for s in charts.base_bars(found, "unet").shapes if isinstance(s, Box)]
    assert [box.model for box in boxes] == [2, 3, 1]
    assert boxes[2].width == pytest.approx(4 * boxes[0].width)
    assert boxes[0].title == "model 2: 1"


def test_strip_has_a_cell_for_every_block(models):
    _, found = models
    boxes = [s for s in charts.block_strip(found, 0, 2).shapes if isinstance(s, Box)]
    named = [box.title.split(":")[0] for box in boxes if box.title]
    assert named == list(found.blocks)


def test_histogram_counts_every_difference_once(models):
    paths, _ = models
    base, other = tiny_part(1), moved(tiny_part(1), 2, 0.1)
    gaps = np.concatenate(
        [
            (other[k].double() - base[k].double()).reshape(-1).numpy()
            for k in base
            if ".input_blocks.4." in k
        ]
    )
    found = difference_histogram(paths[0], paths[1], "IN04")
    assert sum(found.counts) + sum(found.n_beyond) == len(gaps)
    assert found.n_equal == int((gaps == 0).sum())
    assert found.deviation == pytest.approx(float(np.sqrt((gaps**2).mean())))
    true = np.histogram(gaps, bins=81, range=(-found.reach, found.reach))[0]
    assert found.counts == tuple(true)


def test_histogram_of_equal_models_is_one_bar(models, tmp_path):
    paths = write_models(tmp_path, {"a": tiny_part(1), "b": tiny_part(1)})
    found = difference_histogram(*paths, "unet")
    assert found.deviation == 0
    assert sum(found.counts) == found.counts[40] == found.n_equal
    assert to_svg(charts.histogram_bars(found))


def test_long_names_keep_both_ends():
    name = "x" * 30 + "-" * 30 + "y" * 30
    short = charts.shorten(name)
    assert len(short) == 36
    assert short[0] == "x"
    assert short[-1] == "y"
    assert charts.shorten("short") == "short"


def test_scale_goes_from_dark_to_bright():
    assert shade(0.0) == shade(-1.0) == "#440154"
    assert shade(1.0) == shade(2.0) == "#fde725"
    assert shade(0.5) not in (shade(0.0), shade(1.0))


def test_drawing_is_saved_under_its_suffix(tmp_path):
    drawing = Drawing(20, 10, "nothing", (Words(1, 9, "x", is_upright=True),))
    save_drawing(drawing, tmp_path / "d.svg")
    save_drawing(drawing, tmp_path / "d.PNG")
    assert (tmp_path / "d.svg").read_text().startswith("<svg xmlns=")
    assert Image.open(tmp_path / "d.PNG").size == (40, 20)
    with pytest.raises(InputError, match=r"must end in \.svg or \.png"):
        save_drawing(drawing, tmp_path / "d.jpg")
    with pytest.raises(OutputError, match="cannot be written"):
        save_drawing(drawing, tmp_path / "gone" / "d.svg")


def test_png_without_pillow_is_refused_with_what_to_do(monkeypatch, tmp_path):
    for name in [m for m in sys.modules if m.split(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match="pip install pillow"):
        check_name(tmp_path / "d.png")
    check_name(tmp_path / "d.svg")
