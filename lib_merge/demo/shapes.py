"""Procedural pictures of the demo: one coloured shape on a framed light grey ground.

The dark frame is there for the autoencoder: SD1's 32 norm groups on 32 channels
normalise each channel over the picture, so that absolute colours are easier to keep
when every picture has a fixed dark and a light part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
"""Floating-point arrays; pictures are float32."""

SIZE_PX = 64
COLOURS: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "red": (0.86, 0.14, 0.14),
        "green": (0.12, 0.62, 0.20),
        "blue": (0.13, 0.27, 0.86),
        "yellow": (0.95, 0.83, 0.12),
    }
)
"""Each colour word and its sRGB values in [0, 1]."""

FRAME_PX = 3
_FRAME_RGB = 0.08

SHAPES = ("circle", "square", "triangle", "cross")


@dataclass(frozen=True)
class Subject:
    """What a prompt asks for.

    Attributes:
        colour: One of COLOURS.
        shape: One of SHAPES.
    """

    colour: str
    shape: str

    @property
    def prompt(self) -> str:
        """The words, e.g. "a red circle"."""
        return f"a {self.colour} {self.shape}"


SUBJECTS = tuple(Subject(colour, shape) for colour in COLOURS for shape in SHAPES)
"""All sixteen subjects, by colour, then by shape."""


def draw(subject: Subject, rng: np.random.Generator) -> Floats:
    """One picture; place, size, tint and ground vary a little.

    Args:
        subject: What to draw.
        rng: Where the variation comes from.

    Returns:
        (SIZE_PX, SIZE_PX, 3) float32 in [0, 1], edges smoothed over one pixel.
    """
    return draw_with(subject.shape, _tint(COLOURS[subject.colour], rng), rng)


def draw_with(
    shape: str, rgb: Sequence[float] | Floats, rng: np.random.Generator
) -> Floats:
    """One picture of a shape in any colour (for in-between colours of the judge).

    Args:
        shape: One of SHAPES.
        rgb: Three values in [0, 1].
        rng: Where place, size and ground come from.
    """
    centre = SIZE_PX / 2 + rng.uniform(-5.0, 5.0, size=2)
    radius = rng.uniform(15.0, 20.0)
    ground = rng.uniform(0.82, 0.90)
    inside = mask(shape, centre, radius)[..., None]
    colour = np.asarray(rgb, dtype=np.float32)
    picture = ground * (1.0 - inside) + colour * inside
    framed = np.full_like(picture, _FRAME_RGB)
    inner = slice(FRAME_PX, SIZE_PX - FRAME_PX)
    framed[inner, inner] = picture[inner, inner]
    return np.clip(framed, 0.0, 1.0).astype(np.float32)


def mask(shape: str, centre: Sequence[float] | Floats, radius: float) -> Floats:
    """Coverage of each pixel by the shape.

    Args:
        shape: One of SHAPES.
        centre: x and y in pixels.
        radius: Half the shape's height in pixels.

    Returns:
        (SIZE_PX, SIZE_PX) float32 in [0, 1].
    """
    grid = np.arange(SIZE_PX) + 0.5
    across, down = np.meshgrid(grid - centre[0], grid - centre[1])
    outside = _DISTANCES[shape](across / radius, down / radius) * radius
    return np.clip(0.5 - outside, 0.0, 1.0).astype(np.float32)


def _tint(rgb: Sequence[float], rng: np.random.Generator) -> Floats:
    return np.asarray(rgb + rng.uniform(-0.04, 0.04, size=3), dtype=np.float32)


# Signed distances (positive outside) for a shape of radius 1; y grows downwards.


def _circle(across: Floats, down: Floats) -> Floats:
    far: Floats = np.hypot(across, down) - 1.0
    return far


def _square(across: Floats, down: Floats) -> Floats:
    far: Floats = np.maximum(np.abs(across), np.abs(down)) - 0.88
    return far


def _triangle(across: Floats, down: Floats) -> Floats:
    side = (2.0 * np.abs(across) - down - 1.0) / np.sqrt(5.0)
    far: Floats = np.maximum(side, down - 1.0)
    return far


def _cross(across: Floats, down: Floats) -> Floats:
    arm = 0.33
    wide = np.maximum(np.abs(across) - 1.0, np.abs(down) - arm)
    tall = np.maximum(np.abs(down) - 1.0, np.abs(across) - arm)
    far: Floats = np.minimum(wide, tall)
    return far


_DISTANCES = MappingProxyType(
    {"circle": _circle, "square": _square, "triangle": _triangle, "cross": _cross}
)
