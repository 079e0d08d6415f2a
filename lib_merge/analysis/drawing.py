"""Drawings of a few kinds of shapes, written as SVG or, with Pillow, as PNG."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib_merge.errors import InputError, OutputError

INK = "ink"
"""The colour of text and axes: that of the page around the drawing."""

_STANDALONE_INK, _PAPER = "#1f2937", "#ffffff"


@dataclass(frozen=True)
class Box:
    """A filled rectangle; sizes in pixels, as everywhere here."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    title: str = ""
    model: int | None = None
    """The model that it stands for, for a page that lets it be clicked."""


@dataclass(frozen=True)
class Dot:
    """A filled circle, with a rim where `is_ringed`."""

    x: float
    y: float
    radius: float
    fill: str
    title: str = ""
    model: int | None = None
    is_ringed: bool = False


@dataclass(frozen=True)
class Line:
    """A straight or broken line."""

    points: tuple[tuple[float, float], ...]
    stroke: str = INK
    width: float = 1.0
    opacity: float = 1.0


@dataclass(frozen=True)
class Words:
    """A line of text at its baseline.

    Attributes:
        anchor: Which end is at x: start, middle or end.
        is_upright: Written upwards.
    """

    x: float
    y: float
    text: str
    size: float = 12.0
    anchor: str = "start"
    is_upright: bool = False
    fill: str = INK


@dataclass(frozen=True)
class Grid:
    """Square cells, side by side.

    Attributes:
        cell: Side of one.
        fills: A colour for each, by row.
        titles: A text for each, by row; or one for each row (rows of one text), or
            none.
    """

    x: float
    y: float
    cell: float
    fills: tuple[tuple[str, ...], ...]
    titles: tuple[tuple[str, ...], ...] = ()


Shape = Box | Dot | Line | Words | Grid


@dataclass(frozen=True)
class Drawing:
    """Shapes on paper, the later ones on top.

    Attributes:
        label: What it shows, for those who cannot see it.
    """

    width: float
    height: float
    label: str
    shapes: tuple[Shape, ...] = field(default=())


def to_svg(drawing: Drawing, *, is_file: bool = True) -> str:
    """A drawing as SVG.

    Args:
        drawing: What is drawn.
        is_file: A file of its own, on white; else an element for a page, in the
            page's colour of text.
    """
    parts = "".join(_svg_shape(shape) for shape in drawing.shapes)
    size = f"{drawing.width:.0f} {drawing.height:.0f}"
    head = f'viewBox="0 0 {size}" role="img" aria-label="{_text(drawing.label)}"'
    if not is_file:
        width = f'style="max-width:{drawing.width:.0f}px"'
        return f'<svg class="merge-drawing" {width} {head}>{parts}</svg>'
    width, height = size.split()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'{head} color="{_STANDALONE_INK}" font-family="system-ui,sans-serif">'
        f"<title>{_text(drawing.label)}</title>"
        f'<rect width="100%" height="100%" fill="{_PAPER}"/>{parts}</svg>\n'
    )


def _text(words: str) -> str:
    return html.escape(words, quote=True)


def _colour(name: str) -> str:
    return "currentColor" if name == INK else name


def _titled(tag: str, attributes: str, title: str) -> str:
    if not title:
        return f"<{tag} {attributes}/>"
    return f"<{tag} {attributes}><title>{_text(title)}</title></{tag}>"


def _mark(model: int | None) -> str:
    return "" if model is None else f' data-model="{model}"'


def _svg_shape(shape: Shape) -> str:
    if isinstance(shape, Box):
        place = f'x="{shape.x:.1f}" y="{shape.y:.1f}" width="{shape.width:.1f}" '
        place += f'height="{shape.height:.1f}" fill="{_colour(shape.fill)}"'
        return _titled("rect", place + _mark(shape.model), shape.title)
    if isinstance(shape, Dot):
        place = f'cx="{shape.x:.1f}" cy="{shape.y:.1f}" r="{shape.radius:.1f}" '
        place += f'fill="{_colour(shape.fill)}"'
        if shape.is_ringed:
            place += ' stroke="currentColor" stroke-width="2"'
        return _titled("circle", place + _mark(shape.model), shape.title)
    if isinstance(shape, Line):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
        return (
            f'<polyline points="{points}" fill="none" stroke="{_colour(shape.stroke)}" '
            f'stroke-width="{shape.width:g}" stroke-opacity="{shape.opacity:g}"/>'
        )
    if isinstance(shape, Words):
        place = f'x="{shape.x:.1f}" y="{shape.y:.1f}"'
        if shape.is_upright:
            place = f'transform="translate({shape.x:.1f},{shape.y:.1f}) rotate(-90)"'
        return (
            f'<text {place} font-size="{shape.size:g}" text-anchor="{shape.anchor}" '
            f'fill="{_colour(shape.fill)}">{_text(shape.text)}</text>'
        )
    return _svg_grid(shape)


def _svg_grid(grid: Grid) -> str:
    """Cells with titles one by one; others by colour, which is much shorter."""
    side = f"{grid.cell:.2f}"
    if grid.titles and len(grid.titles[0]) > 1:
        return "".join(
            _titled(
                "rect",
                f'x="{grid.x + j * grid.cell:.2f}" y="{grid.y + i * grid.cell:.2f}" '
                f'width="{side}" height="{side}" fill="{fill}"',
                grid.titles[i][j],
            )
            for i, row in enumerate(grid.fills)
            for j, fill in enumerate(row)
        )
    paths: dict[str, list[str]] = {}
    for i, row in enumerate(grid.fills):
        for j, fill in enumerate(row):
            x, y = grid.x + j * grid.cell, grid.y + i * grid.cell
            cell = f"M{x:.2f} {y:.2f}h{side}v{side}h-{side}z"
            paths.setdefault(fill, []).append(cell)
    parts = [f'<path fill="{f}" d="{"".join(p)}"/>' for f, p in paths.items()]
    for i, titles in enumerate(grid.titles):
        width = len(grid.fills[i]) * grid.cell
        place = f'x="{grid.x:.1f}" y="{grid.y + i * grid.cell:.2f}" '
        place += f'width="{width:.1f}" height="{side}" fill-opacity="0"'
        parts.append(_titled("rect", place, titles[0]))
    return "".join(parts)


def save_drawing(drawing: Drawing, path: Path) -> None:
    """Write a drawing to a file.

    Args:
        drawing: What is drawn.
        path: Ends in .svg or .png.

    Raises:
        OutputError: The file cannot be written.
        InputError: Another suffix, or a PNG without Pillow.
    """
    check_name(path)
    content = SUFFIXES[path.suffix.lower()](drawing)
    try:
        path.write_bytes(content)
    except OSError as fault:
        raise OutputError(
            f"{path} cannot be written ({fault.strerror}); choose another place."
        ) from fault


def check_name(path: Path) -> None:
    """See whether a drawing can be saved under a name.

    Raises:
        InputError: Another suffix, or a PNG without Pillow.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"{path} is no drawing's name: it must end in {' or '.join(SUFFIXES)}."
        )
    if suffix == ".png":
        from lib_merge.analysis._png import pillow

        pillow()


def _svg_bytes(drawing: Drawing) -> bytes:
    return to_svg(drawing).encode("utf-8")


def _png_bytes(drawing: Drawing) -> bytes:
    from lib_merge.analysis._png import to_png

    return to_png(drawing)


SUFFIXES: dict[str, Callable[[Drawing], bytes]] = {
    ".svg": _svg_bytes,
    ".png": _png_bytes,
}
"""What a drawing can be saved as."""

_STOPS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")


def shade(share: float, stops: Sequence[str] = _STOPS, *, n_steps: int = 64) -> str:
    """A colour between the ends of a scale (Matplotlib's viridis), in steps.

    Args:
        share: 0 for the dark end, 1 for the bright one.
        stops: Colours at even distances.
        n_steps: So many different colours.
    """
    share = round(min(max(share, 0.0), 1.0) * (n_steps - 1)) / (n_steps - 1)
    place = share * (len(stops) - 1)
    at = min(int(place), len(stops) - 2)
    low, high = channels(stops[at]), channels(stops[at + 1])
    mixed = (round(a + (b - a) * (place - at)) for a, b in zip(low, high, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def channels(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of a colour such as #21918c, 0 to 255."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue
