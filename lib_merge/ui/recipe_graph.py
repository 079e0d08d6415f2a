"""A recipe as a graph: files at the left, the result at the right."""

from __future__ import annotations

from collections.abc import Sequence

from lib_merge.analysis.drawing import INK, Box, Drawing, Line, Shape, Words
from lib_merge.core.nodes import LoraNode, MergeNode, ModelNode, Node, SelectNode
from lib_merge.core.recipe import Recipe
from lib_merge.formats.short_form import model_name, setting_words, value_words
from lib_merge.methods import methods

MAX_NODES = 80
"""Larger recipes are not drawn: nobody could read them."""

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 190.0, 46.0, 56.0, 14.0, 8.0
_N_SIGNS = 27
_WHITE = "#ffffff"
# White text on each of these has a contrast of 5 or more.
_FILLS = {
    ModelNode: "#1d4ed8",
    MergeNode: "#166534",
    LoraNode: "#9a3412",
    SelectNode: "#6b21a8",
}


def recipe_graph(recipe: Recipe) -> Drawing | None:
    """The drawing, or None for a recipe too large to be read as one."""
    used = _used(recipe)
    if len(used) > MAX_NODES:
        return None
    columns = _columns(recipe, used)
    places = _places(recipe, columns)
    shapes: list[Shape] = []
    for index in used:
        shapes += _arrows(recipe.nodes[index], places, places[index])
    for index in used:
        shapes += _box(recipe.nodes[index], *places[index])
    width = len(columns) * (_WIDTH + _GAP_X) - _GAP_X + 2 * _MARGIN
    height = max(y for _, y in places.values()) + _HEIGHT + _MARGIN
    n_models = len([i for i in used if isinstance(recipe.nodes[i], ModelNode)])
    label = f"Recipe {recipe.digest()}: {n_models} models, {len(used)} nodes"
    return Drawing(width, height, label, tuple(shapes))


def _inputs(node: Node) -> tuple[int, ...]:
    return () if isinstance(node, ModelNode) else node.inputs


def _used(recipe: Recipe) -> list[int]:
    """Nodes that the result depends on."""
    found: set[int] = set()
    waiting = [len(recipe.nodes) - 1]
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += _inputs(recipe.nodes[index])
    return sorted(found)


def _columns(recipe: Recipe, used: Sequence[int]) -> list[list[int]]:
    """Nodes by how many steps they lie behind the files."""
    depth: dict[int, int] = {}
    for index in used:
        below = [depth[i] for i in _inputs(recipe.nodes[index])]
        depth[index] = 1 + max(below, default=-1)
    columns: list[list[int]] = [[] for _ in range(1 + max(depth.values()))]
    for index in used:
        columns[depth[index]].append(index)
    return columns


def _places(
    recipe: Recipe, columns: Sequence[Sequence[int]]
) -> dict[int, tuple[float, float]]:
    """Corners of the boxes: each at the middle of its inputs, none over another."""
    places: dict[int, tuple[float, float]] = {}
    for number, column in enumerate(columns):
        x = _MARGIN + number * (_WIDTH + _GAP_X)
        free = _MARGIN
        for index in column:
            above = [places[i][1] for i in _inputs(recipe.nodes[index])]
            wanted = (min(above) + max(above)) / 2 if above else free
            y = max(free, wanted)
            places[index] = (x, y)
            free = y + _HEIGHT + _GAP_Y
    return places


def _arrows(
    node: Node, places: dict[int, tuple[float, float]], place: tuple[float, float]
) -> list[Shape]:
    shapes: list[Shape] = []
    end_x, end_y = place[0], place[1] + _HEIGHT / 2
    for index in _inputs(node):
        x, y = places[index][0] + _WIDTH, places[index][1] + _HEIGHT / 2
        bend = end_x - _GAP_X / 2
        points = ((x, y), (bend, y), (bend, end_y), (end_x, end_y))
        shapes.append(Line(points, INK, 1.5, 0.6))
    if _inputs(node):
        tip = ((end_x - 7, end_y - 4), (end_x, end_y), (end_x - 7, end_y + 4))
        shapes.append(Line(tip, INK, 1.5, 0.9))
    return shapes


def _box(node: Node, x: float, y: float) -> list[Shape]:
    heading, below, title = _words(node)
    return [
        Box(x, y, _WIDTH, _HEIGHT, _FILLS[type(node)], title),
        Words(x + 9, y + 19, _cut(heading), 13.0, fill=_WHITE),
        Words(x + 9, y + 36, _cut(below, _N_SIGNS + 4), 11.0, fill=_WHITE),
    ]


def _words(node: Node) -> tuple[str, str, str]:
    """A heading, a line below it, and all of it for a pointer that rests there."""
    if isinstance(node, ModelNode):
        known = f"sha256 {node.sha256[:10]}" if node.sha256 else "model"
        return model_name(node.path), known, node.path
    if isinstance(node, LoraNode):
        strength = setting_words(node.strength, f"strength {node.strength.value:g}")
        return model_name(node.path), strength, f"{node.path}: {strength}"
    if isinstance(node, SelectNode):
        texts = [" ".join(pick.blocks) or pick.pattern for pick in node.picks]
        return "Pick", ", ".join(texts), "; ".join(texts)
    method = methods().get(node.method) if node.method in methods() else None
    params = [
        setting_words(s, f"{name}={value_words(method, name, s.value)}")
        for name, s in node.params
    ]
    label = method.label if method else node.method
    return label, ", ".join(params), f"{label}: {'; '.join(params)}"


def _cut(text: str, limit: int = _N_SIGNS) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
