"""Leaf weights of a recipe: what share of each file comes out, block by block.

Chains of weighted sums, added differences, soups and the like are worked out in one
pass from the result back to the files. Merges that are not linear stay as they are and
count as leaves; they are named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lib_merge.arch import architectures
from lib_merge.core.blocks import Architecture, BlockId, Component
from lib_merge.core.nodes import LoraNode, MergeNode, ModelNode, SelectNode, Setting
from lib_merge.core.recipe import Recipe
from lib_merge.errors import RecipeError
from lib_merge.formats.linear import input_weights
from lib_merge.formats.orders import WHOLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_GUESSES = ("sdxl", "sd1", "sd2")
_MAX_PATTERNS = 64


@dataclass(frozen=True)
class Cell:
    """Keys that share their weights: of a block, and of a rule's pattern if any."""

    block: BlockId
    component: Component
    pattern: str = ""


@dataclass(frozen=True)
class Leaf:
    """A file, or a merge that was kept.

    Attributes:
        index: Its node in the recipe.
        name: The file's path, or the merge's method with its node.
        sha256: Of a file, if it is known.
        weights: One for each cell.
    """

    index: int
    name: str
    sha256: str | None
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Flat:
    """A flattened recipe.

    Attributes:
        recipe: The recipe.
        arch: Whose blocks the cells are.
        cells: In the architecture's order, those of patterns behind them.
        leaves: Files and kept merges with a weight anywhere.
        kept: A sentence on every merge that is not linear.
    """

    recipe: Recipe
    arch: Architecture
    cells: tuple[Cell, ...]
    leaves: tuple[Leaf, ...]
    kept: tuple[str, ...] = ()


def flatten(recipe: Recipe, arch_id: str | None = None) -> Flat:
    """Work out the leaf weights.

    Args:
        recipe: Any recipe; its files need not exist.
        arch_id: Of its models; None takes one that has all blocks that it names.

    Raises:
        RecipeError: No architecture has all of its blocks.
    """
    arch = _architecture(recipe, arch_id)
    patterns = _patterns(recipe)
    blocks = [(b.id, b.component) for b in arch.blocks]
    cells = tuple(
        Cell(block, component, pattern)
        for pattern in ("", *patterns[:_MAX_PATTERNS])
        for block, component in blocks
        if component is not Component.SCHEDULE
    )
    work = _Work(recipe, arch, cells)
    work.run()
    kept = list(work.kept)
    if len(patterns) > _MAX_PATTERNS:
        kept.append(f"Rules for layers beyond the first {_MAX_PATTERNS} are not shown.")
    return Flat(recipe, arch, cells, tuple(work.leaves()), tuple(kept))


def _architecture(recipe: Recipe, arch_id: str | None) -> Architecture:
    known = architectures()
    names = sorted(_block_names(recipe))
    if arch_id is not None:
        chosen = [known.get(arch_id)]
    else:
        usual = [known.get(one) for one in _GUESSES]
        chosen = [*usual, *(a for a in known if a not in usual)]
    for arch in chosen:
        if all(arch.expand(name) for name in names):
            return arch
    raise RecipeError(
        [
            f"No architecture has all of the blocks {', '.join(names)[:200]}; say "
            "which one the models are of with --arch."
        ]
    )


def _block_names(recipe: Recipe) -> set[str]:
    found: set[str] = set()
    for node in recipe.nodes:
        if isinstance(node, SelectNode):
            found.update(str(b) for pick in node.picks for b in pick.blocks)
        for setting in _settings(node):
            found.update(str(block) for block, _ in setting.blocks)
            found.update(str(b) for rule in setting.rules for b in rule.blocks)
    return found


def _settings(node: object) -> list[Setting]:
    if isinstance(node, MergeNode):
        return [setting for _, setting in node.params]
    return [node.strength] if isinstance(node, LoraNode) else []


def _patterns(recipe: Recipe) -> list[str]:
    found: dict[str, None] = {}
    for node in recipe.nodes:
        if isinstance(node, SelectNode):
            found.update(dict.fromkeys(pick.pattern for pick in node.picks))
        for setting in _settings(node):
            found.update(dict.fromkeys(rule.pattern for rule in setting.rules))
    return [pattern for pattern in found if pattern]


@dataclass
class _Work:
    """One pass over the nodes, from the last to the first."""

    recipe: Recipe
    arch: Architecture
    cells: Sequence[Cell]
    kept: list[str] = field(default_factory=list)
    shares: dict[int, Array] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)
    _expanded: dict[str, frozenset[BlockId]] = field(default_factory=dict)

    def run(self) -> None:
        import numpy as np

        last = len(self.recipe.nodes) - 1
        self.shares[last] = np.ones(len(self.cells))
        for index in range(last, -1, -1):
            share = self.shares.get(index)
            node = self.recipe.nodes[index]
            if share is None:
                continue
            if isinstance(node, ModelNode):
                self.ends.append(index)
                continue
            parts = self._parts(index, node)
            if parts is None:
                self.ends.append(index)
                continue
            del self.shares[index]
            for place, weight in zip(node.inputs, parts, strict=True):
                before = self.shares.get(place)
                added = share * weight
                self.shares[place] = added if before is None else before + added

    def leaves(self) -> list[Leaf]:
        found = []
        for index in sorted(self.ends):
            share = self.shares[index]
            if not share.any():
                continue
            node = self.recipe.nodes[index]
            if isinstance(node, ModelNode):
                name, sha256 = node.path, node.sha256
            else:
                name, sha256 = self._kept_name(index), None
            found.append(Leaf(index, name, sha256, tuple(share.tolist())))
        return found

    def _kept_name(self, index: int) -> str:
        node = self.recipe.nodes[index]
        what = node.method if isinstance(node, MergeNode) else "LoRA"
        return f"node {index} ({what})"

    def _parts(self, index: int, node: object) -> list[Array] | None:
        """Each input's weight in every cell; None where the node is not linear."""
        import numpy as np

        if isinstance(node, SelectNode):
            return self._picked(node)
        parts = None
        if isinstance(node, MergeNode):
            settings = {name: self.values(s) for name, s in node.params}
            parts = input_weights(node.method, len(node.inputs), settings)
        if parts is None or not isinstance(node, MergeNode):
            n_inputs = len(getattr(node, "inputs", ()))
            files = f"of {n_inputs} inputs" if n_inputs > 1 else "of one input"
            self.kept.append(
                f"{self._kept_name(index)} {files} is not linear and stays as it is."
            )
            return None
        blended = np.array([cell.component in node.components for cell in self.cells])
        rest = [1.0] + [0.0] * (len(node.inputs) - 1)
        return [
            np.where(blended, part, other)
            for part, other in zip(parts, rest, strict=True)
        ]

    def _picked(self, node: SelectNode) -> list[Array]:
        import numpy as np

        chosen = np.zeros(len(self.cells), dtype=int)
        for pick in node.picks:
            chosen[self._fits(pick.blocks, pick.pattern)] = pick.input
        return [(chosen == place).astype(float) for place in range(len(node.inputs))]

    def values(self, setting: Setting) -> Array:
        """A setting's value in every cell."""
        import numpy as np

        values = np.full(len(self.cells), setting.value)
        named: dict[BlockId, float] = {}
        # Ranges first: a block that is also named alone takes its own value.
        for is_single in (False, True):
            for name, value in setting.blocks:
                blocks = self._blocks(name)
                if (len(blocks) == 1) == is_single:
                    named.update(dict.fromkeys(blocks, value))
        if named:
            pairs = zip(self.cells, values, strict=True)
            values = np.array([named.get(cell.block, old) for cell, old in pairs])
        for rule in setting.rules:
            values[self._fits(rule.blocks, rule.pattern)] = rule.value
        return values

    def _fits(self, blocks: Iterable[BlockId], pattern: str) -> Array:
        import numpy as np

        names = [self._blocks(name) for name in blocks]
        allowed = frozenset().union(*names) if names else None
        return np.array(
            [
                (allowed is None or cell.block in allowed)
                and pattern in ("", cell.pattern)
                for cell in self.cells
            ]
        )

    def _blocks(self, name: str) -> frozenset[BlockId]:
        if name not in self._expanded:
            self._expanded[name] = frozenset(self.arch.expand(name))
        return self._expanded[name]


def grouped(flat: Flat) -> list[tuple[str, tuple[float, ...]]]:
    """Cells with equal weights in every leaf under one name, in order.

    Returns:
        (name, a weight for each leaf): "UNET, CLIP_L", "IN04-IN07", "VAE" ...
    """
    groups: dict[tuple[float, ...], list[Cell]] = {}
    own: dict[BlockId, tuple[float, ...]] = {}
    for place, cell in enumerate(flat.cells):
        column = tuple(leaf.weights[place] for leaf in flat.leaves)
        if not cell.pattern:
            own[cell.block] = column
        elif own.get(cell.block) == column:
            continue
        groups.setdefault(column, []).append(cell)
    return [(_name(cells, flat.arch), column) for column, cells in groups.items()]


def _name(cells: Sequence[Cell], arch: Architecture) -> str:
    """What some cells are called: components where they are whole, else blocks."""
    words = []
    by_pattern: dict[str, list[BlockId]] = {}
    for cell in cells:
        by_pattern.setdefault(cell.pattern, []).append(cell.block)
    for pattern, blocks in by_pattern.items():
        name = ", ".join(_ranges(blocks, arch))
        words.append(f"{name} /{pattern}/" if pattern else name)
    return ", ".join(words)


def _ranges(blocks: Sequence[BlockId], arch: Architecture) -> list[str]:
    left = set(blocks)
    words = []
    for component in dict.fromkeys(block.component for block in arch.blocks):
        owned = [b.id for b in arch.blocks if b.component is component]
        if left.issuperset(owned):
            words.append(component.value.upper())
            left.difference_update(owned)
    run: list[BlockId] = []
    for block in [*arch.block_ids(), None]:
        if block is not None and block in left:
            run.append(block)
        elif run:
            words.append(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}")
            run = []
    return words


def flat_recipe(flat: Flat) -> Recipe:
    """One weighted mean of all leaves: the same model, rounded once.

    Raises:
        RecipeError: A kept merge, rules for layers, a negative weight, or weights that
            do not add up to 1.
    """
    problems = list(flat.kept)
    if any(cell.pattern for cell in flat.cells):
        problems.append("The recipe has rules for single layers.")
    if any(w < 0.0 for leaf in flat.leaves for w in leaf.weights):
        problems.append("Some weights are negative, which a mean does not have.")
    sums = [sum(ws) for ws in zip(*(leaf.weights for leaf in flat.leaves), strict=True)]
    if any(abs(total - 1.0) > 1e-9 for total in sums):
        problems.append("The weights do not add up to 1 in every block.")
    if problems:
        raise RecipeError(["It cannot become one weighted mean:", *problems])
    first = flat.recipe.first_model()
    order = sorted(flat.leaves, key=lambda leaf: leaf.index != first)
    if order[0].index != first:
        node = flat.recipe.nodes[first]
        assert isinstance(node, ModelNode)
        zeros = (0.0,) * len(flat.cells)
        order.insert(0, Leaf(first, node.path, node.sha256, zeros))
    models = tuple(ModelNode(leaf.name, leaf.sha256) for leaf in order)
    params = tuple(
        (f"weight@{place}", _setting(leaf.weights, flat.cells))
        for place, leaf in enumerate(order, 1)
    )
    merge = MergeNode("weighted_mean", tuple(range(len(models))), params, WHOLE)
    old = flat.recipe
    return Recipe(
        (*models, merge),
        compute_dtype=old.compute_dtype,
        save_dtype=old.save_dtype,
        keep_ema=old.keep_ema,
        is_missing_ok=old.is_missing_ok,
        on_non_finite=old.on_non_finite,
    )


def _setting(weights: Sequence[float], cells: Sequence[Cell]) -> Setting:
    counts: Mapping[float, int] = {w: weights.count(w) for w in set(weights)}
    usual = max(counts, key=lambda w: (counts[w], -w))
    pairs = [
        (cell.block, weight)
        for cell, weight in zip(cells, weights, strict=True)
        if weight != usual
    ]
    return Setting(usual, tuple(pairs))
