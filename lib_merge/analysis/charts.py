"""Charts of compared models: heat map, plane, bars, block strip, histogram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lib_merge.analysis.comparison import Comparison
from lib_merge.analysis.drawing import (
    INK,
    Box,
    Dot,
    Drawing,
    Grid,
    Line,
    Shape,
    Words,
    shade,
)
from lib_merge.analysis.groups import Grouping, group_models
from lib_merge.analysis.histogram import Histogram
from lib_merge.analysis.map import ModelMap

CLUSTER_COLOURS = (
    "#9ca3af",
    "#2563eb",
    "#c2410c",
    "#15803d",
    "#9333ea",
    "#b45309",
    "#0e7490",
    "#be185d",
    "#4d7c0f",
)
"""The first is for models in no cluster; the others come round again."""

_BAR = "#2563eb"
_LETTER = 0.6
"""Width of a letter as a share of its height; a guess that is wide enough."""

_MOST_CELL_TITLES = 120


def cluster_colour(number: int) -> str:
    """The colour of a cluster; 0 for none."""
    if number == 0:
        return CLUSTER_COLOURS[0]
    return CLUSTER_COLOURS[1 + (number - 1) % (len(CLUSTER_COLOURS) - 1)]


def shorten(name: str, n_letters: int = 36) -> str:
    """A name with its middle left out where it is long: both ends tell models apart."""
    if len(name) <= n_letters:
        return name
    half = (n_letters - 1) // 2
    return f"{name[: n_letters - 1 - half]}…{name[len(name) - half :]}"


def _margin(names: Sequence[str], size: float) -> float:
    return 12 + size * _LETTER * max(len(shorten(name)) for name in names)


def heat_map(comparison: Comparison, part: str) -> Drawing:
    """The L2 distances of all pairs as colours, alike models side by side.

    Args:
        comparison: Of two or more models.
        part: What part of them.
    """
    sums = comparison.part(part)
    grouping = group_models(sums)
    distances = sums.l2()[np.ix_(grouping.order, grouping.order)]
    names = [comparison.names[i] for i in grouping.order]
    n_models = len(names)
    cell = max(4.0, min(28.0, 900.0 / n_models))
    size = max(4.0, min(12.0, cell * 0.8))
    left, top = _margin(names, size) + 10, 44.0
    side = cell * n_models
    farthest = _usual_distance(distances, grouping)
    fills = tuple(
        tuple(shade(d / farthest if farthest else 0.0) for d in row)
        for row in distances
    )
    shapes: list[Shape] = [Grid(left, top, cell, fills, _titles(names, distances))]
    shapes += _cluster_marks(grouping, left - 8, top, cell)
    for i, name in enumerate(names):
        y = top + (i + 0.5) * cell
        shapes.append(Words(left - 12, y + size / 3, shorten(name), size, anchor="end"))
        x = left + (i + 0.5) * cell + size / 3
        shapes.append(
            Words(x, top + side + 6, shorten(name), size, "end", is_upright=True)
        )
    title = f"L2 distance, {part}, {n_models} models in order of likeness"
    shapes.append(Words(left, 18, title, 14))
    more = " and more" if farthest < distances.max() else ""
    shapes += _scale(left, 26, min(side, 240.0), farthest, more)
    below = _margin(names, size)
    width = max(left + side + 20, left + len(title) * 14 * _LETTER)
    return Drawing(width, top + side + below + 10, title, tuple(shapes))


def _usual_distance(distances: np.ndarray, grouping: Grouping) -> float:
    """The largest distance between models that are no outliers."""
    outliers = {outlier.model for outlier in grouping.outliers}
    usual = [i for i, model in enumerate(grouping.order) if model not in outliers]
    return float(distances[np.ix_(usual, usual)].max()) or float(distances.max())


def _titles(names: Sequence[str], distances: np.ndarray) -> tuple[tuple[str, ...], ...]:
    """What is shown under the pointer: of a cell, or of a row where cells are many."""
    if len(names) <= _MOST_CELL_TITLES:
        return tuple(
            tuple(f"{a} to {b}: {d:.6g}" for b, d in zip(names, row, strict=True))
            for a, row in zip(names, distances, strict=True)
        )
    return tuple((name,) for name in names)


def _cluster_marks(
    grouping: Grouping, x: float, top: float, cell: float
) -> list[Shape]:
    return [
        Box(
            x,
            top + i * cell,
            5,
            cell,
            cluster_colour(grouping.cluster_of[model]),
            model=model,
        )
        for i, model in enumerate(grouping.order)
    ]


def _scale(x: float, y: float, width: float, top: float, more: str = "") -> list[Shape]:
    """The colours and what they mean."""
    n_steps = 48
    step = width / n_steps
    shapes: list[Shape] = [
        Box(x + i * step, y, step + 0.5, 8, shade(i / (n_steps - 1)))
        for i in range(n_steps)
    ]
    shapes.append(Words(x + width + 8, y + 8, f"0 to {top:.6g}{more}", 11))
    return shapes


def model_plane(comparison: Comparison, plane: ModelMap, part: str) -> Drawing:
    """The models as dots in a plane, named where there is room and under the pointer.

    Args:
        comparison: Of two or more models.
        plane: Their places.
        part: What part of them the places are of.
    """
    grouping = group_models(comparison.part(part))
    width, height, margin = 860.0, 700.0, 60.0
    points = np.array(plane.points)
    low, high = points.min(axis=0), points.max(axis=0)
    reach = float(max(high - low)) or 1.0
    scale = min((width - 4 * margin) / reach, (height - 2.4 * margin) / reach)
    middle = (low + high) / 2
    xs = width / 2 + (points[:, 0] - middle[0]) * scale
    ys = height / 2 - (points[:, 1] - middle[1]) * scale
    title = _plane_title(plane, part, len(points))
    shapes: list[Shape] = [Words(16, 22, title, 14)]
    shapes += _ruler(width, height, scale)
    places: dict[tuple[float, float], list[int]] = {}
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        places.setdefault((float(x), float(y)), []).append(i)
    marks, labels = _marks(comparison, plane, grouping, places, _Room(width))
    return Drawing(width, height, title, (*shapes, *marks, *labels))


def _marks(
    comparison: Comparison,
    plane: ModelMap,
    grouping: Grouping,
    places: Mapping[tuple[float, float], Sequence[int]],
    room: _Room,
) -> tuple[list[Shape], list[Shape]]:
    """A dot for each place, and names for those that have room for one."""
    dots: list[Shape] = []
    labels: list[Shape] = []
    for x, y in places:
        room.take(x - 6, y - 6, 12, 12)
    ordered = sorted(places.items(), key=lambda p: _rank(comparison, grouping, p[1]))
    for (x, y), models in ordered:
        names = [comparison.names[i] for i in models]
        is_base = comparison.base in models
        words = " = ".join(names) + (" (base)" if is_base else "")
        colour = cluster_colour(grouping.cluster_of[models[0]])
        radius = 7.0 if is_base else 5.0
        dots.append(Dot(x, y, radius, colour, words, models[0], is_ringed=is_base))
        label = shorten(names[0], 30)
        label += f" (+{len(names) - 1} equal)" if len(names) > 1 else ""
        label += " (farther away)" if models[0] in plane.at_edge else ""
        if room.take(x + 9, y - 6, len(label) * 11 * _LETTER, 12):
            labels.append(Words(x + 9, y + 4, label, 11))
    return dots, labels


def _rank(
    comparison: Comparison, grouping: Grouping, models: Sequence[int]
) -> tuple[bool, bool, int]:
    """Who is named first where room is short: the base, outliers, copies."""
    odd = {outlier.model for outlier in grouping.outliers}
    is_odd = len(models) > 1 or bool(odd & set(models))
    return comparison.base not in models, not is_odd, models[0]


def _plane_title(plane: ModelMap, part: str, n_models: int) -> str:
    kinds = {
        "mds": "classical MDS",
        "smacof": "metric MDS",
        "pca": "PCA of the changes from the base",
        "tsne": "t-SNE",
        "umap": "UMAP",
    }
    shown = f", axes show {100 * sum(plane.shares):.0f} %" if plane.shares else ""
    return (
        f"{n_models} models, {part}: {kinds.get(plane.method, plane.method)}, "
        f"stress {plane.stress:.3f}{shown}"
    )


def _ruler(width: float, height: float, scale: float) -> list[Shape]:
    """A length, so that distances can be read off."""
    length = 10.0 ** np.floor(np.log10(max(width / 4 / scale, 1e-300)))
    for factor in (5.0, 2.0):
        if length * factor * scale <= width / 4:
            length *= factor
            break
    x, y = 16.0, height - 16
    return [
        Line(
            ((x, y - 4), (x, y), (x + length * scale, y), (x + length * scale, y - 4))
        ),
        Words(x, y - 8, f"{length:g}", 11),
    ]


class _Room:
    """Places on the paper that are taken.

    Args:
        width: Of the paper.
    """

    def __init__(self, width: float) -> None:
        self._width = width
        self._taken: list[tuple[float, float, float, float]] = []

    def take(self, x: float, y: float, width: float, height: float) -> bool:
        """Take a place, if it is free."""
        right, bottom = x + width, y + height
        is_free = right <= self._width and not any(
            x < box[2] and right > box[0] and y < box[3] and bottom > box[1]
            for box in self._taken
        )
        if is_free:
            self._taken.append((x, y, right, bottom))
        return is_free


def base_bars(comparison: Comparison, part: str) -> Drawing:
    """Every model's distance from the base, the nearest first.

    Args:
        comparison: Of two or more models.
        part: What part of them.
    """
    far = comparison.part(part).l2()[comparison.base]
    order = [i for i in np.argsort(far, kind="stable") if i != comparison.base]
    names = [comparison.names[i] for i in order]
    base = comparison.names[comparison.base]
    title = f"L2 distance from {shorten(base)}, {part}"
    return _bars(title, names, [float(far[i]) for i in order], models=order)


def _bars(
    title: str,
    names: Sequence[str],
    values: Sequence[float],
    models: Sequence[int] = (),
) -> Drawing:
    left, row, width = _margin(names, 12), 20.0, 420.0
    top = max([*values, 0.0]) or 1.0
    shapes: list[Shape] = [Words(8, 20, title, 14)]
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        y = 34 + i * row
        length = width * value / top
        words = f"{name}: {value:.6g}"
        model = int(models[i]) if len(models) else None
        shapes.append(Box(left, y, max(length, 0.5), row - 5, _BAR, words, model))
        shapes.append(Words(left - 6, y + 12, shorten(name), 12, "end"))
        shapes.append(Words(left + length + 6, y + 12, f"{value:.4g}", 11))
    size = (
        max(left + width + 80, 16 + len(title) * 14 * _LETTER),
        44 + len(names) * row,
    )
    return Drawing(*size, title, tuple(shapes))


def block_strip(comparison: Comparison, one: int, two: int) -> Drawing:
    """Where a pair of models differs: the relative distance of every block.

    Args:
        comparison: With sums by block.
        one: A model.
        two: Another.
    """
    found = [
        (name, float(sums.relative_l2()[one, two]), float(sums.l2()[one, two]))
        for name, sums in comparison.blocks.items()
    ]
    top = max((relative for _, relative, _ in found), default=0.0)
    names = f"{shorten(comparison.names[one])} and {shorten(comparison.names[two])}"
    title = f"Relative L2 distance by block: {names}"
    cell, left, y = 30.0, 12.0, 52.0
    shapes: list[Shape] = [Words(left, 20, title, 14)]
    shapes += _scale(left, 28, 200, top)
    for i, (name, relative, plain) in enumerate(found):
        x = left + i * cell
        words = f"{name}: relative {relative:.6g}, L2 {plain:.6g}"
        fill = shade(relative / top if top else 0.0)
        shapes.append(Box(x, y, cell - 1, 60, fill, words))
        shapes.append(Words(x + cell / 2 + 4, y + 66, name, 11, "end", is_upright=True))
    width = max(left * 2 + cell * len(found), 24 + len(title) * 14 * _LETTER)
    return Drawing(width, y + 150, title, tuple(shapes))


def histogram_bars(histogram: Histogram) -> Drawing:
    """How often a difference of each size occurs in one block.

    Args:
        histogram: From `difference_histogram`.
    """
    width, height, left, base = 820.0, 340.0, 24.0, 280.0
    one, two = histogram.names
    title = f"{histogram.part}: {shorten(two)} less {shorten(one)}"
    step = (width - 2 * left) / len(histogram.counts)
    top = max(histogram.counts) or 1
    bar = 2 * histogram.reach / len(histogram.counts)
    shapes: list[Shape] = [Words(left, 20, title, 14)]
    for i, count in enumerate(histogram.counts):
        low = -histogram.reach + i * bar
        words = f"{low:.3g} to {low + bar:.3g}: {count:,} values"
        size = (base - 60) * count / top
        place = (left + i * step, base - size, max(step - 1, 0.5))
        shapes.append(Box(*place, max(size, 0.3), _BAR, words))
    shapes.append(Line(((left, base), (width - left, base)), INK, 1, 0.5))
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        value = (2 * share - 1) * histogram.reach
        x = left + share * (width - 2 * left)
        shapes.append(Words(x, base + 16, f"{value:.3g}", 11, anchor))
    below, above = histogram.n_beyond
    facts = (
        f"root mean square {histogram.deviation:.4g}; {histogram.n_equal:,} values "
        f"equal; {below:,} below and {above:,} above what is drawn"
    )
    shapes.append(Words(left, base + 40, facts, 12))
    return Drawing(width, height, title, tuple(shapes))
