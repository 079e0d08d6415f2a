"""Recipes that are two models and a weight, which several formats can say."""

from __future__ import annotations

from dataclasses import dataclass

from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.recipe import MergeNode, ModelNode, Recipe
from lib_merge.errors import RecipeError


@dataclass(frozen=True)
class Pair:
    """A weighted sum of two files.

    Attributes:
        models: A and B.
        default: alpha where no block says otherwise.
        blocks: alpha by block.
        components: What is blended.
    """

    models: tuple[ModelNode, ModelNode]
    default: float
    blocks: dict[BlockId, float]
    components: tuple[Component, ...]


def pair_of(recipe: Recipe, title: str) -> Pair:
    """The recipe as a pair.

    Args:
        recipe: Any recipe.
        title: The format that is to say it, for the message.

    Raises:
        RecipeError: It is anything else, or has weights for single layers.
    """
    node = recipe.nodes[-1]
    models = [n for n in recipe.nodes if isinstance(n, ModelNode)]
    is_pair = (
        isinstance(node, MergeNode)
        and node.method == "weighted_sum"
        and len(recipe.nodes) == 3
        and len(models) == 2
        and node.inputs == (0, 1)
    )
    if not is_pair or not isinstance(node, MergeNode):
        raise RecipeError(
            [
                f"{title} can say a weighted sum of two files and nothing else; write "
                "this recipe as mergelab or mecha."
            ]
        )
    if any("\n" in model.path for model in models):
        raise RecipeError([f"{title} cannot hold a file name with a line end."])
    setting = dict(node.params).get("alpha")
    if setting is not None and setting.rules:
        raise RecipeError([f"{title} has no weights for single layers, only by block."])
    return Pair(
        (models[0], models[1]),
        0.5 if setting is None else setting.value,
        {} if setting is None else dict(setting.blocks),
        node.components,
    )
