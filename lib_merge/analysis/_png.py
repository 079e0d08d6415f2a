"""Draws shapes with Pillow."""

from __future__ import annotations

import io
from typing import Any

from lib_merge.analysis import drawing as shapes
from lib_merge.errors import InputError

_SCALE = 2
_INK, _PAPER = (31, 41, 55), (255, 255, 255)


def pillow() -> Any:
    """Pillow's package, with the modules that draw.

    Raises:
        InputError: It is not installed.
    """
    try:
        import PIL.Image
        import PIL.ImageDraw
        import PIL.ImageFont
    except ImportError as fault:
        raise InputError(
            f"A PNG needs Pillow, which is not installed ({fault}); run 'pip install "
            "pillow' or give a name that ends in .svg."
        ) from fault
    return PIL


def to_png(drawing: shapes.Drawing) -> bytes:
    """A drawing as PNG, twice its size in pixels.

    Raises:
        InputError: Pillow is not installed.
    """
    library = pillow()
    size = (round(drawing.width * _SCALE), round(drawing.height * _SCALE))
    image = library.Image.new("RGB", size, _PAPER)
    brush = _Brush(image)
    for shape in drawing.shapes:
        brush.draw(shape)
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def _colour(name: str, opacity: float = 1.0) -> tuple[int, int, int, int]:
    rgb = _INK if name == shapes.INK else shapes.channels(name)
    return (*rgb, round(255 * opacity))


class _Brush:
    """Draws on one image.

    Args:
        image: Pillow's.
    """

    def __init__(self, image: Any) -> None:
        self._library = pillow()
        self._image = image
        self._canvas = self._library.ImageDraw.Draw(image, "RGBA")

    def draw(self, shape: shapes.Shape) -> None:
        """Draw one shape."""
        if isinstance(shape, shapes.Box):
            fill = _colour(shape.fill)
            self._box(shape.x, shape.y, shape.width, shape.height, fill)
        elif isinstance(shape, shapes.Dot):
            self._dot(shape)
        elif isinstance(shape, shapes.Line):
            points = [(x * _SCALE, y * _SCALE) for x, y in shape.points]
            width = max(1, round(shape.width * _SCALE))
            stroke = _colour(shape.stroke, shape.opacity)
            self._canvas.line(points, fill=stroke, width=width)
        elif isinstance(shape, shapes.Words):
            self._words(shape)
        else:
            for i, row in enumerate(shape.fills):
                for j, name in enumerate(row):
                    x, y = shape.x + j * shape.cell, shape.y + i * shape.cell
                    self._box(x, y, shape.cell, shape.cell, _colour(name))

    def _box(self, x: float, y: float, width: float, height: float, fill: Any) -> None:
        left, top = round(x * _SCALE), round(y * _SCALE)
        right, bottom = round((x + width) * _SCALE), round((y + height) * _SCALE)
        # Pillow's corners are both inside.
        ends = (max(left, right - 1), max(top, bottom - 1))
        self._canvas.rectangle([(left, top), ends], fill=fill)

    def _dot(self, dot: shapes.Dot) -> None:
        left, top = (dot.x - dot.radius) * _SCALE, (dot.y - dot.radius) * _SCALE
        right, bottom = (dot.x + dot.radius) * _SCALE, (dot.y + dot.radius) * _SCALE
        rim = {"outline": _INK, "width": 2 * _SCALE} if dot.is_ringed else {}
        self._canvas.ellipse([left, top, right, bottom], fill=_colour(dot.fill), **rim)

    def _words(self, words: shapes.Words) -> None:
        size = words.size * _SCALE
        try:
            font: Any = self._library.ImageFont.load_default(size)
        except TypeError:  # Pillow before 10.1 has one size only.
            font = self._library.ImageFont.load_default()
        left, _, right, bottom = font.getbbox(words.text)
        shift = {"start": 0.0, "middle": 0.5, "end": 1.0}[words.anchor]
        x, y = words.x * _SCALE, words.y * _SCALE
        # The baseline lies about a fifth of the size above the box's lower end.
        rise = bottom - 0.2 * size
        if not words.is_upright:
            place = (x - shift * (right - left), y - rise)
            self._canvas.text(place, words.text, fill=_colour(words.fill), font=font)
            return
        sheet = self._library.Image.new(
            "L", (max(1, round(right)), max(1, round(bottom))), 0
        )
        self._library.ImageDraw.Draw(sheet).text(
            (0, 0), words.text, fill=255, font=font
        )
        turned = sheet.rotate(90, expand=True)
        place = (round(x - rise), round(y - (1 - shift) * turned.height))
        self._image.paste(_colour(words.fill)[:3], place, turned)
