"""What a model was recognised as, and how the output's keys lie in each model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from weakref import WeakKeyDictionary

from lib_merge.arch import detect_layout
from lib_merge.checkpoint.header import Header
from lib_merge.checkpoint.scaled import refuse_scaled
from lib_merge.core.layouts import Layout, Stored, find_stored
from lib_merge.core.recipe import LoraNode, Recipe
from lib_merge.errors import CheckpointError

_layouts: WeakKeyDictionary[Header, Layout] = WeakKeyDictionary()
_by_infos: OrderedDict[int, Layout] = OrderedDict()
"""Files with the same tensors share their mapping, and so their layout."""
_N_LAYOUTS = 256


def layout_of(header: Header) -> Layout:
    """The layout of a file; recognised once for each state of it.

    Raises:
        CheckpointError: It is of no known architecture, or its weights are scaled.
    """
    layout = _layouts.get(header)
    if layout is None:
        refuse_scaled(header)
        layout = _by_infos.get(id(header.infos))
        if layout is None or layout.infos is not header.infos:
            layout = detect_layout(header.infos, where=str(header.path))
            _by_infos[id(header.infos)] = layout
            while len(_by_infos) > _N_LAYOUTS:
                _by_infos.popitem(last=False)
        _layouts[header] = layout
    return layout


def single_file_layout(header: Header) -> Layout:
    """The layout of a file that has the names of a single file.

    Raises:
        CheckpointError: It is of no known architecture, or named in another way.
    """
    layout = layout_of(header)
    if not layout.is_single_file:
        raise CheckpointError(
            f"{header.path} is {layout.architecture.label} in {layout.naming} names, "
            "and the names of a single file are wanted here; convert it first "
            "(python -m lib_merge convert)."
        )
    return layout


def output_layout(recipe: Recipe, header: Header) -> Layout:
    """The layout that a merge is saved in: its first model's.

    A pipeline's folder is saved under the names of a single file, since the output is
    one; so is what LoRAs are baked into, since they speak of these.

    Args:
        recipe: The merge.
        header: Of its first model.

    Raises:
        CheckpointError: It is of no known architecture.
    """
    layout = layout_of(header)
    has_loras = any(isinstance(node, LoraNode) for node in recipe.nodes)
    if header.is_pipeline or (has_loras and not layout.is_single_file):
        return layout.as_canonical()
    return layout


class Finder:
    """Finds the tensors of an output in some models.

    Args:
        output: Whose keys they are.
        models: By any name.
    """

    def __init__(self, output: Layout, models: Mapping[int, Layout]) -> None:
        self._output = output
        self._models = models
        self._found: dict[tuple[int, str], Stored | None] = {}
        # Hundreds of models named alike need no table of their own.
        self._alike = {i for i, m in models.items() if m.bindings == output.bindings}

    def find(self, model: int, key: str) -> Stored | None:
        """Where a model holds one of the output's tensors, or None."""
        layout = self._models[model]
        if model in self._alike and key in layout.infos:
            return find_stored(self._output, key, layout)
        place = (model, key)
        if place not in self._found:
            self._found[place] = find_stored(self._output, key, layout)
        return self._found[place]
