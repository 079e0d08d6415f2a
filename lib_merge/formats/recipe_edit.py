"""Small changes of a recipe: another method, other values, other block weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lib_merge.core.blocks import BlockId
from lib_merge.core.method import MergeMethod
from lib_merge.core.nodes import LoraNode, MergeNode, ModelNode, SelectNode, Setting
from lib_merge.core.params import split_name
from lib_merge.core.recipe import Recipe
from lib_merge.errors import InputError
from lib_merge.methods import methods


def main_merge(recipe: Recipe) -> tuple[int, MergeNode]:
    """The merge that a recipe is about: the first one over its models.

    Returns:
        Its place among the nodes, and the node.

    Raises:
        InputError: The recipe merges nothing.
    """
    index = len(recipe.nodes) - 1
    while True:
        node = recipe.nodes[index]
        if isinstance(node, ModelNode):
            raise InputError("The recipe merges nothing, so nothing of it can change.")
        if isinstance(node, LoraNode):
            index = node.base
        elif isinstance(node, SelectNode):
            index = node.inputs[0]
        else:
            deeper = [i for i in node.inputs if _holds_merge(recipe, i)]
            if not deeper:
                return index, node
            index = deeper[-1]


def _holds_merge(recipe: Recipe, index: int) -> bool:
    node = recipe.nodes[index]
    if isinstance(node, ModelNode):
        return False
    return isinstance(node, MergeNode) or any(
        _holds_merge(recipe, i) for i in node.inputs
    )


def with_method(recipe: Recipe, method: MergeMethod) -> Recipe:
    """Another method over the same models; parameters of the same name stay.

    Raises:
        InputError: It takes another number of models.
    """
    index, node = main_merge(recipe)
    n_models = len(node.inputs)
    if not method.accepts(n_models):
        raise InputError(
            f"{method.label} does not take {n_models} models, as the loaded merge has; "
            "choose another method."
        )
    kept = []
    for name, setting in node.params:
        spec = method.param(split_name(name)[0])
        if spec is not None and (spec.param.per_model or "@" not in name):
            kept.append((name, setting if spec.param.per_block else _flat(setting)))
    return _with(recipe, index, replace(node, method=method.id, params=tuple(kept)))


def with_value(recipe: Recipe, name: str, value: float) -> Recipe:
    """Another main value of a parameter; its blocks and rules stay.

    Raises:
        InputError: The method has no such parameter, or the value is beyond its limits.
    """
    index, node = main_merge(recipe)
    setting = _setting(node, name)
    _check(node, name, value)
    return _with(
        recipe, index, _with_setting(node, name, replace(setting, value=value))
    )


def with_blocks(
    recipe: Recipe,
    name: str,
    values: Mapping[BlockId, float],
    *,
    is_whole: bool = False,
) -> Recipe:
    """Other values of a parameter in some blocks.

    Args:
        recipe: Any recipe with a merge.
        name: The parameter.
        values: By block, range or component.
        is_whole: Whether blocks that are not named lose their own values.

    Raises:
        InputError: No such parameter, or it is the same for all blocks.
    """
    index, node = main_merge(recipe)
    setting = _setting(node, name)
    spec = methods().get(node.method).param(split_name(name)[0])
    if spec is None or not spec.param.per_block:
        raise InputError(f"{name} of {node.method} is the same for all blocks.")
    for value in values.values():
        _check(node, name, value)
    blocks = {} if is_whole else dict(setting.blocks)
    changed = replace(setting, blocks=tuple({**blocks, **values}.items()))
    return _with(recipe, index, _with_setting(node, name, changed))


def method_of(recipe: Recipe) -> MergeMethod:
    """The method that a recipe is about.

    Raises:
        InputError: The recipe merges nothing.
        UnknownIdError: A method that this MergeLab does not have.
    """
    return methods().get(main_merge(recipe)[1].method)


def _flat(setting: Setting) -> Setting:
    return Setting(setting.value)


def _setting(node: MergeNode, name: str) -> Setting:
    method = methods().get(node.method)
    spec = method.param(split_name(name)[0])
    if spec is None:
        known = ", ".join(one.name for one in method.params) or "none"
        raise InputError(f"{method.label} has no parameter '{name}'; it has: {known}.")
    return dict(node.params).get(name, Setting(spec.default))


def _check(node: MergeNode, name: str, value: float) -> None:
    spec = methods().get(node.method).param(split_name(name)[0])
    if spec is not None:
        spec.check(value, node.method)


def _with_setting(node: MergeNode, name: str, setting: Setting) -> MergeNode:
    params = {**dict(node.params), name: setting}
    return replace(node, params=tuple(params.items()))


def _with(recipe: Recipe, index: int, node: MergeNode) -> Recipe:
    nodes = (*recipe.nodes[:index], node, *recipe.nodes[index + 1 :])
    return replace(recipe, nodes=nodes)
