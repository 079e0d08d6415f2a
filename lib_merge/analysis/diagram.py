"""Diagrams of architectures, drawn from their block maps and key lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lib_merge.analysis.anatomy import (
    ATTENTION,
    DOWN,
    JOINT,
    LOOSE,
    OTHER,
    RESNET,
    SINGLE,
    UP,
    Anatomy,
    Part,
)
from lib_merge.analysis.drawing import INK, Box, Drawing, Line, Shape, Words
from lib_merge.core.blocks import Component

COLOURS = {
    RESNET: "#93c5fd",
    ATTENTION: "#fca5a5",
    JOINT: "#fca5a5",
    SINGLE: "#fdba74",
    DOWN: "#c4b5fd",
    UP: "#86efac",
    LOOSE: "#fde68a",
    OTHER: "#d1d5db",
}
"""Fill of a block by its kind; light enough for dark text in every theme."""

NAMES = {
    RESNET: "resnet or convolution",
    ATTENTION: "with attention",
    JOINT: "two streams, joint attention",
    SINGLE: "one stream",
    DOWN: "downsample",
    UP: "with upsample",
    LOOSE: "loose tensors",
    OTHER: "text encoder, VAE",
}
"""What the colours mean, for the legend."""

_DARK = "#1f2937"
_MARGIN, _GAP = 16.0, 8.0
_WIDTH, _HEIGHT = 372.0, 44.0
_SKIP = 48.0
_HEAD = 84.0
_MOST_ROWS = 20


def diagram(anatomy: Anatomy) -> Drawing:
    """A model's blocks: a U where it goes down and up, else columns.

    Every block shows its id, what it is, its tensors and parameters, and, where that
    means something, channels and resolution at the default input. Blocks are marked
    with their position in `Anatomy.parts`.

    Args:
        anatomy: What is drawn.
    """
    sides = [part.block.id[:2] for part in anatomy.of(Component.UNET)]
    is_u = "IN" in sides and "OU" in sides
    shapes, width, height = (_draw_u if is_u else _draw_columns)(anatomy)
    head = list(_head(anatomy))
    words = max(len(shape.text) * shape.size * 0.6 for shape in head)
    legend = list(_legend(anatomy, height))
    size = (max(width, words + 2 * _MARGIN), height + 28)
    return Drawing(*size, f"Blocks of {anatomy.label}", (*head, *shapes, *legend))


def _head(anatomy: Anatomy) -> Iterator[Words]:
    yield Words(_MARGIN, 26, anatomy.label, 18)
    side = anatomy.latent
    facts = (
        f"{anatomy.n_numbered} numbered blocks, {anatomy.n_tensors:,} tensors, "
        f"{anatomy.n_params:,} parameters that denoise; resolutions for an input of "
        f"{anatomy.latent_channels} x {side} x {side}"
    )
    yield Words(_MARGIN, 48, facts, 12)


def _legend(anatomy: Anatomy, y: float) -> Iterator[Shape]:
    x = _MARGIN
    kinds = {part.kind for part in anatomy.parts}
    for kind, words in NAMES.items():
        if kind in kinds:
            yield Box(x, y + 4, 14, 14, COLOURS[kind], words)
            yield Words(x + 20, y + 15, words, 11)
            x += 34 + 6.4 * len(words)


def _box(part: Part, place: int, x: float, y: float, width: float) -> Iterator[Shape]:
    yield Box(x, y, width, _HEIGHT, COLOURS[part.kind], part.title, place)
    yield Words(x + 10, y + 18, part.block.id, 13, fill=_DARK)
    room = int((width - 24 - 9 * len(part.block.id)) / 6.2)
    yield Words(x + width - 10, y + 18, _cut(part.words, room), 11, "end", fill=_DARK)
    yield Words(x + 10, y + 35, part.facts, 11, fill=_DARK)


def _cut(words: str, room: int) -> str:
    return words if len(words) <= room else words[: max(room - 1, 1)] + "…"


def _draw_u(anatomy: Anatomy) -> tuple[list[Shape], float, float]:
    """IN blocks down the left, the middle below, OUT blocks up the right."""
    placed = list(enumerate(anatomy.parts))
    left = [e for e in placed if _is_side(e[1], "IN")]
    right = [e for e in placed if _is_side(e[1], "OUT")]
    middle = [e for e in placed if e[1].block.id == "M00"]
    taken = {place for place, _ in (*left, *right, *middle)}
    rest = [entry for entry in placed if entry[0] not in taken]
    last = [entry for entry in rest if entry[1].block.id == "OUT"]
    vae = [e for e in rest if e[1].block.component is Component.VAE]
    first = [e for e in rest if e not in last and e not in vae]
    far = _MARGIN + _WIDTH + _SKIP
    top = _HEAD + _stack_height(max(len(first), len(last) + len(vae)))
    shapes = [*_stack(first, _MARGIN, _HEAD), *_stack([*vae, *last], far, _HEAD)]
    n_rows = max(len(left), len(right))
    for row, (place, part) in enumerate(left):
        y = top + row * (_HEIGHT + _GAP)
        shapes += _box(part, place, _MARGIN, y, _WIDTH)
        if row < len(right):
            half = y + _HEIGHT / 2
            skip = ((_MARGIN + _WIDTH, half), (far, half))
            shapes.append(Line(skip, INK, 1.5, 0.5))
    for row, (place, part) in enumerate(reversed(right)):
        shapes += _box(part, place, far, top + row * (_HEIGHT + _GAP), _WIDTH)
    bottom = top + n_rows * (_HEIGHT + _GAP)
    x = _MARGIN + (_WIDTH + _SKIP) / 2
    shapes += _stack(middle, x, bottom)
    height = bottom + len(middle) * (_HEIGHT + _GAP)
    return shapes, far + _WIDTH + _MARGIN, height


def _is_side(part: Part, side: str) -> bool:
    rest = part.block.id.removeprefix(side)
    return rest != part.block.id and rest.isdigit()


def _stack_height(n_rows: int) -> float:
    return n_rows * (_HEIGHT + _GAP) + _GAP


def _stack(entries: Sequence[tuple[int, Part]], x: float, y: float) -> Iterator[Shape]:
    for row, (place, part) in enumerate(entries):
        yield from _box(part, place, x, y + row * (_HEIGHT + _GAP), _WIDTH)


def _draw_columns(anatomy: Anatomy) -> tuple[list[Shape], float, float]:
    """Blocks in the order of the forward pass, column by column."""
    placed = list(enumerate(anatomy.parts))
    n_columns = -(-len(placed) // _MOST_ROWS)
    n_rows = -(-len(placed) // n_columns)
    shapes: list[Shape] = []
    for column in range(n_columns):
        entries = placed[column * n_rows : (column + 1) * n_rows]
        shapes += _stack(entries, _MARGIN + column * (_WIDTH + _GAP), _HEAD)
    width = 2 * _MARGIN + n_columns * (_WIDTH + _GAP) - _GAP
    return shapes, width, _HEAD + n_rows * (_HEIGHT + _GAP)
