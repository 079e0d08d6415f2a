"""sd-mecha's recipes in all three dialects: .mecha, and `mecha_recipe` in metadata."""

from __future__ import annotations

from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.nodes import MergeNode, Node, SelectNode
from lib_merge.core.recipe import DEFAULT_COMPONENTS, Pick, Recipe
from lib_merge.errors import RecipeError
from lib_merge.formats import mecha_linear, mecha_pools
from lib_merge.formats.imported import Entry, Imported, Options
from lib_merge.formats.mecha_calls import Table
from lib_merge.formats.mecha_graph import Builder, date_in
from lib_merge.formats.mecha_text import Line, looks_like_mecha, parse
from lib_merge.formats.mecha_values import Literal, Value, Weight
from lib_merge.formats.mecha_write import write
from lib_merge.formats.orders import WHOLE
from lib_merge.formats.source import Source

__all__ = ["ID", "TITLE", "read", "sniff", "write"]

ID = "mecha"
TITLE = "sd-mecha recipe"

_TAG = "mecha_recipe"
_TIMES = {
    "a": "of February 2024",
    "b": "of March 2024 to February 2025",
    "c": "of 2025 and later, version 0.1.0",
}
_PASSED = r"\.(?:time_embed|label_emb)\."
_TABLE = Table()
mecha_linear.add_to(_TABLE)
mecha_pools.add_to(_TABLE)


def sniff(source: Source) -> bool:
    """Whether a text begins like a recipe, or metadata holds one."""
    return bool(_text(source)) and looks_like_mecha(_text(source))


def _text(source: Source) -> str:
    tag = source.tags.get(_TAG)
    return tag if isinstance(tag, str) else source.text


def read(source: Source, options: Options) -> Imported:
    """The recipe as a graph.

    Raises:
        RecipeError: What cannot be read or repeated, with its line; or what the file
            leaves open.
    """
    text = parse(_text(source), source.name)
    builder = Builder(text, source.name, options.as_of or date_in(source.name))
    if options.arch:
        builder.arch = options.arch
    for line in text.lines:
        builder.values.append(_value(builder, line))
    result = builder.values[-1]
    if not isinstance(result, Weight):
        raise RecipeError(
            [f"{source.name} ends with something that is no whole model."]
        )
    recipe = _finished(builder, result.node)
    n_models = len(recipe.models())
    bases = dict.fromkeys(
        recipe.nodes[node.inputs[0]]
        for node in recipe.nodes
        if isinstance(node, MergeNode) and _has_base(node)
    )
    notes = [
        f"Dialect ({text.dialect}), {_TIMES[text.dialect]}.",
        f"{n_models} models.",
        *(f"Base: {_node_name(base)}." for base in bases),
        *builder.notes,
    ]
    unknown = ["The models are known by path only; the file holds no hashes."]
    entry = Entry(source.name, recipe, facts=(("dialect", text.dialect),))
    title = f"{TITLE}, dialect ({text.dialect})"
    return Imported(ID, title, (entry,), tuple(notes), (*unknown, *builder.unknown))


def _value(builder: Builder, line: Line) -> Value:
    if line.command in ("model", "lora"):
        return builder.read_model(line)
    if line.command == "dict":
        return Literal(dict(line.options))
    if line.command == "literal":
        inner = builder.value((*line.args, None)[0], line)
        config = line.options.get("model_config")
        if isinstance(inner, Literal):
            return Literal(inner.values, config if isinstance(config, str) else "")
        return inner
    if line.command == "parameter":
        raise RecipeError(
            [
                f"{builder.at(line)}: the recipe is a template; its parameter has no "
                "model. Put a model line in its place."
            ]
        )
    return _TABLE.call(builder, line)


def _has_base(node: MergeNode) -> bool:
    from lib_merge.methods import methods

    return methods().get(node.method).has_base


def _node_name(node: Node) -> str:
    path = getattr(node, "path", None)
    return str(path) if path else "a merge"


def _finished(builder: Builder, root: int) -> Recipe:
    """The recipe, with what the dialect passes through."""
    recipe = builder.graph.recipe(root)
    if builder.dialect == "a" and isinstance(recipe.nodes[-1], (MergeNode, SelectNode)):
        # This dialect copies the embeddings of time and size from the first model.
        builder.notes.append(
            "time_embed and label_emb are the first model's, as the dialect has it."
        )
        first = builder.graph.nodes.index(recipe.nodes[recipe.first_model()])
        root = builder.graph.select((root, first), (Pick(1, (), _PASSED),))
        recipe = builder.graph.recipe(root)
    return _without_vae(recipe)


def _without_vae(recipe: Recipe) -> Recipe:
    """A VAE picked from the first model is the same as not merging it."""
    node = recipe.nodes[-1]
    is_vae = (
        isinstance(node, SelectNode)
        and node.picks == (Pick(1, (BlockId(Component.VAE.name),)),)
        and len(recipe.nodes) > 2
        and node.inputs[0] == len(recipe.nodes) - 2
    )
    if not is_vae or not isinstance(node, SelectNode):
        return recipe
    merges = [n for n in recipe.nodes[:-1] if not hasattr(n, "path")]
    inner = Recipe(recipe.nodes[:-1])
    is_plain = all(isinstance(n, MergeNode) and n.components == WHOLE for n in merges)
    if not is_plain or node.inputs[1] != inner.first_model():
        return recipe
    nodes = tuple(
        MergeNode(n.method, n.inputs, n.params, DEFAULT_COMPONENTS)
        if isinstance(n, MergeNode)
        else n
        for n in inner.nodes
    )
    return Recipe(nodes)
